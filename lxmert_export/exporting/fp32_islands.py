"""Which nodes of a graph must compute in float32 for its fp16 artifact to pass the gate: a set from which none can be taken.

The search begins with every node in fp16, the usual islands included, and is a search by trial: whatever set it tries is
judged as the gate judges an artifact, through the emulator. The set that it ends with passes, and fails without any one of
its nodes. There may be other such sets, also smaller ones: finding the least would take a trial of every subset.
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
from lxmert_export.spec.sample_inputs import Family, SampleInputs, sample_inputs

LONGEST_SEARCH = 3600.0  # seconds
STEP = "searching float32 islands"


@dataclass(frozen=True)
class Islands:
    """The names of the nodes, in the graph's order; ``minimal`` unless time ran out before each had been tried."""

    nodes: tuple[str, ...]
    minimal: bool
    trials: int


def find_islands(
    source: Path, artifact: Artifact, module: nn.Module, progress: Progress = silent, *, seconds: float = LONGEST_SEARCH
) -> Islands:
    """Searches the float32 islands that an fp16 artifact of a module needs.

    ``source`` is the module's float32 ONNX file, with float32 inputs and outputs; ``artifact`` says what is to become of it:
    only its manifest is read. After ``seconds`` the least set that has passed by then is returned. ``ConversionError``: it
    fails its gate with every node in float32.
    """
    trials = _Trials(artifact, module, progress)
    deadline = time.monotonic() + seconds
    names = computing_nodes(source)
    likely = _likely_islands(source, trials.samples)
    for candidates in ([name for name in names if name in likely], names):
        with _switched(source, artifact, candidates) as runner:
            trial = trials.of(runner)
            if trial(candidates):
                kept, minimal = minimise(_matmuls_first(candidates), trial, progress, deadline)
                return Islands(tuple(name for name in names if name in set(kept)), minimal, trials.count)
    raise ConversionError(
        f"{artifact.name}: no float32 islands help: it fails its gate with all of its {len(names)} nodes in float32"
    )


def minimise(
    candidates: Sequence[str], passes: Callable[[Sequence[str]], bool], progress: Progress, deadline: float
) -> tuple[list[str], bool]:
    """Takes names out of a set that passes, many at once and then fewer, until it fails without any one of them.

    Returns what is left and whether each of it is needed: False where the deadline came first.
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
        # What was tried in a larger set may be dispensable now: the last round takes nothing.
        size = size // 2 if size > 1 else int(taken)
    return kept, True


def _likely_islands(source: Path, samples: SampleInputs) -> set[str]:
    """The usual islands, what leaves fp16's range on the sample inputs, and what reads that."""
    batches = [batch for family in samples.families for batch in family.batches]
    largest = largest_activations(source, batches, of_all=True)
    beyond = {name for name, figure in largest.items() if not figure <= LARGEST_HALF}
    return {*standard_islands(source), *beyond, *readers_of(source, beyond)}


def _matmuls_first(names: Sequence[str]) -> list[str]:
    """Tried first, and so taken out first where there is a choice: matmuls are what fp16 is for."""
    return sorted(names, key=lambda name: not name.rpartition("/")[2].startswith(("MatMul", "Gemm")))


@contextmanager
def _switched(source: Path, artifact: Artifact, candidates: Sequence[str]) -> Iterator[SwitchedOnnxRunner]:
    manifest = artifact.manifest
    limits = manifest.limits
    with SwitchedOnnxRunner(source, manifest.signature, limits, candidates) as runner:
        yield runner


class _NotFinite(Exception):  # noqa: N818  # says that a trial has failed, not that the program has
    pass


class _Trials:
    """Judges sets of islands as the gate judges an artifact, and stops at the first thing that fails."""

    def __init__(self, artifact: Artifact, module: nn.Module, progress: Progress) -> None:
        manifest = artifact.manifest
        self.artifact, self.signature = artifact, manifest.signature
        self.samples = sample_inputs(manifest.signature, manifest.config)
        arguments = (module, manifest.signature, manifest.config, self.samples)
        self.reference: Recording = run_reference(*arguments, progress)
        self.floors: Floors = run_floors(*arguments, self.reference, manifest.precision, progress)
        held_out = held_out_of(artifact)
        self.held_out: HeldOut | None = held_out if held_out and held_out.fits(manifest.signature) else None
        self.families = list(self.samples.families)
        self.count = 0

    def of(self, runner: SwitchedOnnxRunner) -> Callable[[Sequence[str]], bool]:
        """A trial: whether a set of islands passes."""

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
        # What fails goes first the next time: it is likely to fail again.
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
