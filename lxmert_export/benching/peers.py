"""The peers: what else runs the same checkpoint. A row is a peer: its name, its file, and the function that opens it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.targets import Part
from lxmert_export.benching.contestants import Contestant
from lxmert_export.benching.matmul import NAME as MATMUL
from lxmert_export.errors import (
    ArtifactError,
    CheckpointError,
    ConversionError,
    InputError,
    LxmertExportError,
    as_given,
    first_line,
)
from lxmert_export.extras import NNCF, ONNX, ONNXRUNTIME, ONNXSCRIPT, OPENVINO, TORCH, require
from lxmert_export.judging.own_process import run_within
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Precision, Signature, task_signature

CALIBRATED_ON = 128  # inputs
BASELINE_TOKENS = 20  # to which the usual loop pads every question
COMPILERS = ("c++", "g++", "clang++")
MAKING = "making the peers' files"  # a step of progress
_HERE = "lxmert_export.benching"
_EXPORT = (TORCH, ONNX, ONNXSCRIPT, ONNXRUNTIME)


@dataclass(frozen=True)
class Peer:
    """One peer.

    | field | meaning |
    |---|---|
    | ``against`` | the value of ``--against`` that brings it in |
    | ``file`` | the step that makes what it opens: a name of ``FILES`` |
    | ``opens`` | (directory of its files, signature, config, threads) → a ``Runner`` |
    | ``compiles`` | whether it needs a C++ compiler |
    | ``pads_to`` | in a workload, the number of tokens that it pads every question to |
    | ``note`` | what a reader of its figures must know |
    """

    name: str
    against: str
    runtime: str
    precision: Precision
    file: str
    opens: Part
    compiles: bool = False
    pads_to: int | None = None
    note: str | None = None


PEERS = (
    Peer(
        "transformers", "transformers", "torch", "fp32", "checkpoint", Part(f"{_HERE}.peer_runners:open_eager", (TORCH,)),
        pads_to=BASELINE_TOKENS,
    ),
    Peer(
        "transformers, torch.compile", "transformers", "torch", "fp32", "checkpoint",
        Part(f"{_HERE}.peer_runners:open_compiled", (TORCH,)), compiles=True, pads_to=BASELINE_TOKENS,
    ),
    Peer(
        "plain export", "onnxruntime", "onnxruntime", "fp32", "plain", Part(f"{_HERE}.peer_runners:open_onnx", _EXPORT)
    ),
    Peer(
        "plain export, optimizer", "onnxruntime", "onnxruntime", "fp32", "optimized",
        Part(f"{_HERE}.peer_runners:open_onnx", _EXPORT),
    ),
    Peer(
        "plain export, dynamic int8", "onnxruntime", "onnxruntime", "int8", "int8",
        Part(f"{_HERE}.peer_runners:open_onnx", _EXPORT),
    ),
    Peer(
        "plain export, OpenVINO", "openvino", "openvino", "fp32", "plain",
        Part(f"{_HERE}.peer_runners:open_openvino", (*_EXPORT, OPENVINO)),
    ),
    Peer(
        "plain export, NNCF int8, OpenVINO", "nncf", "openvino", "int8", "nncf",
        Part(f"{_HERE}.peer_runners:open_nncf", (*_EXPORT, OPENVINO, NNCF)),
        note=f"calibrated on {CALIBRATED_ON} random inputs: what its answers differ by says nothing of int8 on real ones",
    ),
)  # fmt: skip
AGAINST = tuple(dict.fromkeys(peer.against for peer in PEERS))
# The steps that make the peers' files, in order: each reads the files of those before it.
FILES: dict[str, str] = {
    "checkpoint": f"{_HERE}.peer_files:write_checkpoint_files",
    "plain": f"{_HERE}.peer_files:write_plain",
    "optimized": f"{_HERE}.peer_files:write_optimized",
    "int8": f"{_HERE}.peer_files:write_int8",
    "nncf": f"{_HERE}.peer_files:write_nncf",
}
# What each step reads.
READS = {
    "checkpoint": (),
    "plain": ("checkpoint",),
    "optimized": ("checkpoint", "plain"),
    "int8": ("checkpoint", "plain"),
    "nncf": ("checkpoint", "plain"),
}


@dataclass(frozen=True)
class PeerFiles:
    """A step that makes files of peers, in a folder of the step's name.

    Each step runs in a process of its own: at full size one process for all of them would hold 9 GB.
    """

    artifact: Artifact
    checkpoint: str
    directory: Path
    step: str

    def run(self, progress: Progress = silent) -> None:
        """Makes them in this process. ``ConversionError``: another project's tool fails; the message names the step."""
        module, _, name = FILES[self.step].partition(":")
        (self.directory / self.step).mkdir()
        try:
            getattr(import_module(module), name)(self)
        except (LxmertExportError, MemoryError):
            raise
        except Exception as error:  # whatever the tools of others raise
            raise ConversionError(
                f"{self.artifact.path}: the files of {option('against')} cannot be made: step {self.step!r}: "
                f"{first_line(error)}"
            ) from error


@dataclass(frozen=True)
class OpensPeer:
    """Opens a peer by the place of its row in ``PEERS``."""

    name: str
    directory: Path
    signature: Signature
    config: LxmertConfig

    def __call__(self, threads: int) -> Runner:
        """Returns its runner."""
        row = next(peer for peer in PEERS if peer.name == self.name)
        runner: Runner = row.opens.load()(self.directory / row.file, self.signature, self.config, threads)
        return runner


def check_against(against: Sequence[str]) -> None:
    """``InputError``: a name of no peers. ``MissingExtra``: a library that they need is not installed."""
    if unknown := [name for name in against if name not in AGAINST]:
        raise InputError(f"{option('against')}: takes {', '.join(AGAINST)}, not {as_given(unknown[0])}")
    for row in PEERS:
        if row.against in against:
            require(f"benching {row.name}", *row.opens.needs)


def check_names(contestants: Sequence[Contestant], against: Sequence[str]) -> None:
    """``InputError``: an artifact has the name of another row of the report."""
    taken = {MATMUL, *(row.name for row in PEERS if row.against in against)}
    if found := [one.name for one in contestants if one.name in taken]:
        raise InputError(f"{found[0]}: is the name of another row of the report: rename the artifact's directory")


@contextmanager
def peers_of(
    artifact: Artifact, against: Sequence[str], checkpoint: str | Path | None, time_limit: float, progress: Progress
) -> Iterator[tuple[list[Contestant], list[str]]]:
    """Yields the peers that ``against`` asks for, of the checkpoint that an artifact was made from, and notes on those not run.

    Their files are made in a temporary directory, which lasts as long as the ``with`` block.

    ``InputError``: an unknown name. ``MissingExtra``, ``ConversionError``: a library is not installed, or transformers has no
    such model. ``ArtifactError``: the checkpoint is not there, or is another one.
    """
    check_against(against)
    rows = [peer for peer in PEERS if peer.against in against]
    if not rows:
        yield [], []
        return
    signature = _signature_of_peers(artifact)
    if not any(map(shutil.which, [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS)):
        unrun = [f"{row.name}: not run: it needs a C++ compiler: install g++" for row in rows if row.compiles]
        rows = [row for row in rows if not row.compiles]
    else:
        unrun = []
    notes = [*unrun, *(f"{row.name}: {row.note}" for row in rows if row.note)]
    config = artifact.manifest.config
    with TemporaryDirectory(prefix="lxmert-export-bench-") as place:
        source = _source_of(artifact, checkpoint)
        wanted = {step for row in rows for step in (row.file, *READS[row.file])}
        steps = [step for step in FILES if step in wanted]
        for number, step in enumerate(steps):
            progress(MAKING, number, len(steps))
            _make(PeerFiles(artifact, source, Path(place), step), time_limit, given=checkpoint is not None)
        progress(MAKING, len(steps), len(steps))
        yield [_contestant(row, Path(place), signature, config) for row in rows], notes


def _signature_of_peers(artifact: Artifact) -> Signature:
    """The signature of transformers' model. ``ConversionError``, ``InputError``: there is none, or it has fewer outputs."""
    from lxmert_export.reference.transformers_module import check_transformers

    own = artifact.manifest.signature
    task = check_transformers(artifact.manifest.config, own.lxmert_task)
    signature = task_signature(artifact.manifest.config, task)
    if more := sorted({spec.name for spec in own.outputs} - {spec.name for spec in signature.outputs}):
        raise InputError(
            f"{artifact.path}: {option('against')} compares the outputs of its task alone, and it also has {more[0]}: "
            "export it without"
        )
    return signature


def _source_of(artifact: Artifact, checkpoint: str | Path | None) -> str:
    """The checkpoint of the peers. ``ArtifactError``: none is given, and the artifact was made from a model in memory."""
    if checkpoint is not None:
        return str(checkpoint)
    if artifact.manifest.checkpoint.get("dialect") is None:
        raise ArtifactError(
            f"{artifact.path}: was made from a model in memory, and {option('against')} needs its checkpoint: give "
            f"{option('checkpoint')}"
        )
    return str(artifact.manifest.checkpoint["name"])


def _make(files: PeerFiles, time_limit: float, *, given: bool) -> None:
    try:
        run_within(files, time_limit)
    except CheckpointError as error:
        if given:
            raise
        raise ArtifactError(
            f"{files.artifact.path}: {option('against')} needs the checkpoint that it was made from: {error}; or give its "
            f"place by {option('checkpoint')}"
        ) from error


def _contestant(row: Peer, place: Path, signature: Signature, config: LxmertConfig) -> Contestant:
    size = sum(file.stat().st_size for file in (place / row.file).rglob("*") if file.is_file())
    return Contestant(
        row.name, "peer", row.runtime, row.precision, OpensPeer(row.name, place, signature, config), bytes=size,
        pads_to=row.pads_to,
    )  # fmt: skip
