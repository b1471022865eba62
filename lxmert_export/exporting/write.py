"""Writes an artifact: converts the model, copies the tokenizer and label files, runs the gate, writes the manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lxmert_export.artifact.companions import problem_of_labels
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.flops import flops_of
from lxmert_export.artifact.manifest import Manifest, write_manifest
from lxmert_export.artifact.precision import check_precision
from lxmert_export.errors import CheckpointError, ConversionError
from lxmert_export.exporting.conversion import Conversion
from lxmert_export.exporting.model_to_export import ModelToExport
from lxmert_export.exporting.refusal import refused
from lxmert_export.files.beside_weights import LABELS_FILE
from lxmert_export.files.json_files import parse_json
from lxmert_export.files.lfs_pointers import not_copied
from lxmert_export.option_names import option
from lxmert_export.parity.decisions import Decisions
from lxmert_export.parity.report import ParityReport, finite
from lxmert_export.progress import Progress, silent
from lxmert_export.reference.gate import pass_gate
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.signature import ANSWER_OUTPUT, Signature
from lxmert_export.tokenizer.opening import load_tokenizer

LOGGER = logging.getLogger(__name__)


def write_artifact(
    conversion: Conversion,
    directory: Path,
    *,
    name: str,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> Artifact:
    """Fills an empty directory with an artifact.

    ``name`` is the artifact's name in reports, because ``directory`` is a temporary one. Raises ``ParityError`` if the artifact
    fails its gate, and ``ConversionError`` if the model cannot be converted.
    """
    model, options = conversion.model, conversion.options
    artifact = Artifact(directory, _convert(conversion, directory, progress), name)
    facts = check_precision(artifact)
    operators = {"operators": sorted(artifact.check_program())}
    options_with_facts = {**artifact.manifest.options, **operators, **facts.for_manifest()}
    manifest = replace(artifact.manifest, options=options_with_facts, flops=flops_of(artifact))
    if not options.parity:
        return replace(artifact, manifest=write_manifest(directory, manifest))
    samples = conversion.calibration.judged(conversion.signature) if conversion.calibration else None
    report = pass_gate(replace(artifact, manifest=manifest), model.module, providers, progress, samples=samples)
    judged = replace(artifact, manifest=_with_parity(manifest, report), report=report)
    if not report.passed:
        raise refused(judged, model.module, options, report)
    return replace(judged, manifest=write_manifest(directory, judged.manifest))


def _convert(conversion: Conversion, directory: Path, progress: Progress) -> Manifest:
    """Writes the target's files and copies the checkpoint's companion files; returns the manifest, not yet written."""
    model, options, signature = conversion.model, conversion.options, conversion.signature
    left_out = {"without_families": list(options.without_families)} if options.without_families else {}
    converter = options.row.converter
    assert converter is not None, "ExportOptions refuses targets without one"
    step = f"converting {model.name} to {options.target} {options.precision}"
    progress(step, 0, 1)
    try:
        chosen = converter.load()(conversion, directory, progress)
    except ConversionError as error:
        if options.keep_failed is None:
            raise
        raise ConversionError(f"{error}; {option('keep_failed')} keeps nothing: no file was made") from error
    progress(step, 1, 1)
    model.companions.write(directory)
    _check_tokenizer(model, directory)
    _check_labels(model, signature)
    return Manifest(
        target=options.target,
        precision=options.precision,
        task=signature.task,
        config=model.config,
        signature=signature,
        checkpoint=model.checkpoint,
        options={**chosen, "io_dtype": _io_dtype(signature), **left_out},
    )


def _check_tokenizer(model: ModelToExport, directory: Path) -> None:
    """Says if there is no tokenizer, or none that loads. ``ConversionError``: it has ids that the word embedding lacks."""
    if not model.companions.have_tokenizer:
        if model.checkpoint["sha256"]:
            LOGGER.warning(
                "%s: no tokenizer lies beside the weights, so the artifact has none; vocab.txt is enough", model.name
            )
        return
    try:
        words = len(load_tokenizer(directory))
    except CheckpointError as error:
        told = str(error).replace(
            str(directory), str(model.companions.place or model.name)
        )  # not the temporary directory
        LOGGER.warning("%s: the tokenizer beside the weights cannot be used: %s", model.name, told)
        return
    if words > model.config.vocab_size:
        raise ConversionError(
            f"{model.name}: the tokenizer beside the weights has {words} words and the word embedding has "
            f"{model.config.vocab_size} rows: put the tokenizer there that the checkpoint was trained with, or none"
        )


def _check_labels(model: ModelToExport, signature: Signature) -> None:
    """Says if the file of the answers' names does not name the answers that the artifact gives."""
    content = model.companions.files.get(LABELS_FILE)
    if content is None or ANSWER_OUTPUT not in [spec.name for spec in signature.outputs]:
        return
    try:
        problem = not_copied(content) or problem_of_labels(
            parse_json(content.decode("utf-8")), model.config.num_qa_labels
        )
    except ValueError as error:
        problem = f"is not JSON: {error}"
    if problem:
        file = (model.companions.place or Path()) / LABELS_FILE
        LOGGER.warning(
            "%s: %s, so the artifact cannot name its answers: correct the file or remove it, and export again",
            file,
            problem,
        )


def _io_dtype(signature: Signature) -> str:
    """The dtype of floating-point outputs; float32 if there are none."""
    return next((spec.dtype for spec in signature.outputs if spec.is_float), "float32")


def _with_parity(manifest: Manifest, report: ParityReport) -> Manifest:
    """Returns the manifest with the gate's figures for each arithmetic: the worst cell of each output, and the decisions."""
    outputs: dict[str, Any] = {}
    for cell in report.worst_cells():
        if cell.kind != "reference":  # compares a SavedModel's other signatures with its first
            continue
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
    return replace(manifest, parity=finite(parity))


def _figures(decisions: Decisions) -> dict[str, Any]:
    left_out = (
        "runner",
        "arithmetic",
        "inputs",
        "status",
        "reason",
    )  # elsewhere in the manifest, for the whole artifact
    return {name: value for name, value in decisions.to_dict().items() if name not in left_out}
