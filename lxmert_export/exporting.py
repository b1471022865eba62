"""From a checkpoint or a module to an artifact on disk: load, convert, carry companions over, pass the gate, describe."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from converters.to_onnx import DEFAULT_OPSET, convert_to_onnx
from lxmert_export.artifact import COMPANION_FILES, Artifact, Manifest, write_manifest
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.config import LxmertConfig
from lxmert_export.errors import ConversionError, ParityError
from lxmert_export.gate import check_precision, pass_gate
from lxmert_export.judging import Progress, silent
from lxmert_export.model import MODELS, LxmertModel
from lxmert_export.parity.decisions import Decisions
from lxmert_export.parity.report import ParityReport
from lxmert_export.pretrained import PreTrainedLxmert
from lxmert_export.runners.runner import InputLimits
from lxmert_export.signature import Precision, Signature, Task


@dataclass(frozen=True)
class Source:
    """What is converted: a module, its config and task, and where it came from."""

    module: nn.Module
    config: LxmertConfig
    task: Task | None
    name: str
    checkpoint: Mapping[str, Any]
    companions: tuple[Path, ...] = ()


def source_of_checkpoint(
    name_or_path: str | Path, task: Task | None, *, revision: str | None, num_attention_heads: int | None
) -> Source:
    """Reads a checkpoint into a model of its task; its tokenizer and label files come along."""
    checkpoint = read_checkpoint(name_or_path, task=task, revision=revision, num_attention_heads=num_attention_heads)
    origin = checkpoint.source
    directory = origin.paths[0].parent
    return Source(
        module=MODELS[checkpoint.task].from_checkpoint(checkpoint),
        config=checkpoint.config,
        task=checkpoint.task,
        name=origin.name,
        checkpoint={
            "dialect": origin.dialect,
            "name": origin.name,
            "sha256": origin.sha256,
            "unused_heads": list(checkpoint.unused),
        },
        companions=tuple(directory / name for name in COMPANION_FILES if (directory / name).is_file()),
    )


def source_of_module(module: nn.Module, config: LxmertConfig | None) -> Source:
    """A module in memory: one of our models, or a user's own that holds an ``LxmertModel`` somewhere."""
    backbone = next((part for part in module.modules() if isinstance(part, LxmertModel)), None)
    if backbone is None and config is None:
        raise ConversionError(f"{type(module).__name__} holds no LxmertModel; pass its config to say what ids it takes")
    return Source(
        module=module,
        config=config or backbone.config,  # type: ignore[union-attr]  # one of the two is there
        task=module.task if isinstance(module, PreTrainedLxmert) else None,
        name=type(module).__name__,
        checkpoint={"dialect": None, "name": type(module).__name__, "sha256": None, "unused_heads": []},
    )


def write_onnx_artifact(
    source: Source,
    signature: Signature,
    directory: Path,
    *,
    name: str,
    precision: Precision,
    opset: int | None,
    parity: bool,
    providers: Sequence[str],
    progress: Progress = silent,
) -> Artifact:
    """Fills an empty directory with an ONNX artifact; ``ParityError`` where it does not pass its gate.

    ``name`` is what reports call it: the directory is a temporary one.
    """
    opset = opset or DEFAULT_OPSET
    progress(f"converting {source.name} to ONNX {precision}", 0, 1)
    limits = InputLimits.of(source.config)
    convert_to_onnx(source.module, signature, limits, directory, precision=precision, opset=opset)
    progress(f"converting {source.name} to ONNX {precision}", 1, 1)
    for file in source.companions:
        shutil.copyfile(file, directory / file.name)
    manifest = Manifest(
        target="onnx",
        precision=precision,
        task=signature.task,
        config=source.config,
        signature=signature,
        checkpoint=source.checkpoint,
        options={"opset": opset, "io_dtype": signature.outputs[0].dtype},
    )
    artifact = Artifact(directory, manifest, name)
    check_precision(artifact)
    if not parity:
        return replace(artifact, manifest=write_manifest(directory, manifest))
    report = pass_gate(artifact, source.module, providers, progress)
    if not report.passed:
        raise ParityError(report.summary(), report)
    return replace(artifact, manifest=write_manifest(directory, _with_parity(manifest, report)), report=report)


def _with_parity(manifest: Manifest, report: ParityReport) -> Manifest:
    """The manifest with the gate's figures, in each arithmetic: of each output where it fared worst, and of the decisions."""
    outputs: dict[str, Any] = {}
    for cell in report.worst_cells():
        outputs.setdefault(cell.output, {})[cell.arithmetic] = {
            "score": cell.score,
            "threshold": cell.threshold,
            "inputs": cell.family,
            "error_rms": cell.error_rms,
            "error_max": cell.error_max,
            "floor": cell.floor,
            "samples": cell.samples,
            "values": cell.values,
        }
    parity = {
        "passed": report.passed,
        "outputs": outputs,
        "families_not_run": list(report.families_not_run),
        "decisions": {decisions.arithmetic: _figures(decisions) for decisions in report.decisions},
    }
    return replace(manifest, parity=parity)


def _figures(decisions: Decisions) -> dict[str, Any]:
    named = ("runner", "arithmetic", "status", "reason")  # the manifest says these elsewhere, of the whole artifact
    return {name: value for name, value in decisions.to_dict().items() if name not in named}
