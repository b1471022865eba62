"""Finds a set of nodes to keep in float32, with none to spare, so that an fp16 artifact passes its gate.

The search starts with a set that passes, and takes out as many nodes as possible. Standard islands are taken out like any other
node, unless they are to be kept. Every set is judged as the gate judges an artifact, through the emulator. The final set passes,
and fails without any one of the nodes that were searched. Other such sets may exist, even smaller ones: finding the smallest
would take a trial of every subset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from converters.onnx.islands import computing_nodes, readers_of, standard_islands
from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ConversionError
from lxmert_export.exporting.activation_ranges import largest_activations
from lxmert_export.graphs.fp16_linter import LARGEST_HALF
from lxmert_export.judging.artifact import judge_answers
from lxmert_export.judging.held_out import HeldOut, held_out_of
from lxmert_export.parity.cells import Floors, judge
from lxmert_export.parity.recording import Recording, record
from lxmert_export.progress import Progress, silent
from lxmert_export.reference.yardstick import run_floors, run_reference
from lxmert_export.runners.onnx.switches import SwitchedOnnxRunner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import Family, SampleInputs

LONGEST_SEARCH = 3600.0  # seconds
STEP = "searching float32 islands"


@dataclass(frozen=True)
class Islands:
    """The names of the island nodes, in the graph's order.

    ``searched`` are those that the search kept: all of them, or those beside the standard islands. ``minimal`` is False if time
    ran out before each of these was tried. ``trials`` is the number of sets that were judged.
    """

    nodes: tuple[str, ...]
    searched: tuple[str, ...]
    minimal: bool
    trials: int


def find_islands(
    source: Path,
    artifact: Artifact,
    module: nn.Module,
    progress: Progress = silent,
    *,
    keep_standard: bool = False,
    seconds: float = LONGEST_SEARCH,
) -> Islands:
    """Searches the float32 islands that an fp16 artifact of a module needs; ``keep_standard``: beside the standard ones.

    ``source`` is the module's float32 ONNX file, with float32 inputs and outputs. ``artifact`` stands for the fp16 artifact to be
    written: only its manifest and name are used. After ``seconds`` the search stops and returns the smallest set that has passed.
    Raises ``ConversionError`` if the artifact fails its gate even with every node in float32.
    """
    trials = _Trials(artifact, module, progress)
    deadline = time.monotonic() + seconds
    names = computing_nodes(source)
    always = standard_islands(source) if keep_standard else []
    likely = _likely_islands(source, trials.samples)
    for candidates in ([name for name in names if name in likely], names):
        with _switched(source, artifact, candidates) as runner:
            trial = trials.of(runner)
            if trial(candidates):
                free = _matmuls_first([name for name in candidates if name not in set(always)])
                found, minimal = minimise(free, lambda some: trial([*always, *some]), progress, deadline)  # noqa: B023
                nodes, searched = (tuple(n for n in names if n in kept) for kept in ({*always, *found}, set(found)))
                return Islands(nodes, searched, minimal, trials.count)
    raise ConversionError(
        f"{artifact.name}: no float32 islands help: it fails its gate even with all {len(names)} nodes in float32"
    )


def minimise(
    candidates: Sequence[str], passes: Callable[[Sequence[str]], bool], progress: Progress, deadline: float
) -> tuple[list[str], bool]:
    """Takes names out of a set that passes, many at once and then fewer, until the set fails without any one of its names.

    Returns the names that are left, and whether all of them are needed (False if the deadline came first).
    """
    kept, size = list(candidates), len(candidates)
    while size:
        place, taken = 0, False
        while place < len(kept):
            if time.monotonic() > deadline:
                return kept, False
            fewer = kept[:place] + kept[place + size :]
            if passes(fewer):
                kept, taken = fewer, True
            else:
                place += size
            progress(STEP, len(candidates) - len(kept), len(candidates))
        # A name that a larger set needed may be superfluous now, so rounds of one name go on until a round takes none out.
        size = size // 2 if size > 1 else int(taken)
    return kept, True


def _likely_islands(source: Path, samples: SampleInputs) -> set[str]:
    """The standard islands, the nodes whose values exceed fp16's range on the sample inputs, and the readers of those values."""
    batches = [batch for family in samples.families for batch in family.batches]
    largest = largest_activations(source, batches, of_all=True)
    beyond = {name for name, figure in largest.items() if not figure <= LARGEST_HALF}
    return {*standard_islands(source), *beyond, *readers_of(source, beyond)}


def _matmuls_first(names: Sequence[str]) -> list[str]:
    """Puts matmuls first: names are taken out in this order, and matmuls gain most from fp16."""
    return sorted(names, key=lambda name: not name.rpartition("/")[2].startswith(("MatMul", "Gemm")))


@contextmanager
def _switched(source: Path, artifact: Artifact, candidates: Sequence[str]) -> Iterator[SwitchedOnnxRunner]:
    manifest = artifact.manifest
    limits = manifest.limits
    with SwitchedOnnxRunner(source, manifest.signature, limits, candidates) as runner:
        yield runner


class _NotFinite(Exception):  # noqa: N818  # a trial has failed, not the program
    pass


class _Trials:
    """Judges sets of islands as the gate judges an artifact. A trial stops at its first failure."""

    def __init__(self, artifact: Artifact, module: nn.Module, progress: Progress) -> None:
        manifest = artifact.manifest
        self.artifact, self.signature = artifact, manifest.signature
        self.samples = artifact.drawn_inputs()
        arguments = (module, manifest.signature, manifest.config, self.samples)
        self.reference: Recording = run_reference(*arguments, progress)
        self.floors: Floors = run_floors(*arguments, self.reference, manifest.precision, progress)
        held_out = held_out_of(artifact)
        self.held_out: HeldOut | None = held_out if held_out and held_out.fits(manifest.signature) else None
        self.families = list(self.samples.families)
        self.count = 0

    def of(self, runner: SwitchedOnnxRunner) -> Callable[[Sequence[str]], bool]:
        """Returns a function that tells whether a set of islands passes."""

        def passes(islands: Sequence[str]) -> bool:
            runner.islands = frozenset(islands)
            self.count += 1
            try:
                return all(self._family_passes(runner, family) for family in list(self.families)) and self._answers(
                    runner
                )
            except _NotFinite:
                return False

        return passes

    def _family_passes(self, runner: Runner, family: Family) -> bool:
        # The family tried last comes first in the next trial: if it failed, it is likely to fail again.
        self.families.remove(family)
        self.families.insert(0, family)
        found = record(_finite(runner), SampleInputs((family,), ()), self.signature)
        wanted = {key: chunks for key, chunks in self.reference.items() if key[0] == family.name}
        cells = judge(self.artifact.name, found, wanted, self.floors, self.signature, "emulated", precision="fp16")
        return bool(cells) and all(cell.status == "pass" for cell in cells)

    def _answers(self, runner: Runner) -> bool:
        if self.held_out is None:
            return True
        answers = self.held_out.ask(_finite(runner), self.signature)
        cells, decisions = judge_answers(self.artifact, self.held_out, answers, "emulated")
        return decisions.passed and all(cell.status == "pass" for cell in cells)


def _finite(runner: Runner) -> Callable[[Mapping[str, NDArray[np.generic]]], Arrays]:
    def run(inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        outputs = runner.run(inputs)
        if not all(np.isfinite(array).all() for array in outputs.values()):
            raise _NotFinite
        return outputs

    return run
