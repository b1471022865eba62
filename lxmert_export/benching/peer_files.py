"""Makes the files of peers: the checkpoint in Hugging Face's dialect, and what other tools make of a plain export."""

from __future__ import annotations

import numpy as np

from lxmert_export.benching.peers import BASELINE_TOKENS, CALIBRATED_ON, PeerFiles
from lxmert_export.errors import ArtifactError
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch
from lxmert_export.spec.signature import task_signature

OBJECTS = 36  # in a picture
NNCF_FILE = "model.xml"


def write_checkpoint_files(files: PeerFiles) -> None:
    """Writes the checkpoint as transformers reads it. ``ArtifactError``: it is not the one that the artifact was made from."""
    from lxmert_export.checkpoint.read import read_checkpoint
    from lxmert_export.checkpoint.write import write_checkpoint

    manifest = files.artifact.manifest
    read = read_checkpoint(
        files.checkpoint, task=manifest.signature.lxmert_task, ignore_other_parts=True,
        num_attention_heads=manifest.config.num_attention_heads,
    )  # fmt: skip
    made_from, found = manifest.checkpoint.get("sha256"), read.source.sha256
    if made_from and made_from != found:
        raise ArtifactError(
            f"{files.artifact.path}: was made from other weights (sha256 {made_from[:12]}) than {files.checkpoint} "
            f"(sha256 {found[:12]}): name the checkpoint that it was made from"
        )
    directory = files.directory / "checkpoint"
    write_checkpoint(read.tensors, read.config, read.task, directory, dialect="hf", overwrite=True)


def write_plain(files: PeerFiles) -> None:
    """Exports transformers' model with plain torch.onnx.export."""
    from lxmert_export.benching.plain_model import export_plain, plain_model
    from lxmert_export.reference.transformers_module import CLASSES

    manifest = files.artifact.manifest
    task = manifest.signature.lxmert_task
    assert task is not None  # peers are refused for modules of the user's own
    outputs = [spec.name for spec in task_signature(manifest.config, task).outputs]
    with quiet_native_logs():
        model = plain_model(files.directory / "checkpoint", CLASSES[task], outputs)
        export_plain(model, files.directory / "plain")


def write_optimized(files: PeerFiles) -> None:
    """Has onnxruntime's transformer optimizer fuse the plain export, by its patterns for BERT."""
    from onnxruntime.transformers.optimizer import optimize_model

    config = files.artifact.manifest.config
    with quiet_native_logs():
        optimized = optimize_model(
            str(files.directory / "plain" / "model.onnx"),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
        )
        optimized.save_model_to_file(str(files.directory / "optimized" / "model.onnx"), use_external_data_format=True)


def write_int8(files: PeerFiles) -> None:
    """Has onnxruntime quantise the plain export dynamically, with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    with quiet_native_logs():
        quantize_dynamic(files.directory / "plain" / "model.onnx", files.directory / "int8" / "model.onnx")


def write_nncf(files: PeerFiles) -> None:
    """Has NNCF quantise the plain export for OpenVINO, by its preset for transformers, on random inputs."""
    from lxmert_export.runners.openvino.library import import_nncf, import_openvino

    openvino, nncf = import_openvino(), import_nncf()
    manifest = files.artifact.manifest
    task = manifest.signature.lxmert_task
    assert task is not None  # peers are refused for modules of the user's own
    text = min(BASELINE_TOKENS, manifest.config.max_position_embeddings)
    sizes = {"batch": CALIBRATED_ON, "text": text, "objects": OBJECTS}
    drawn = draw_batch(
        FamilyKind(ragged=True), task_signature(manifest.config, task), manifest.config, sizes, np.random.default_rng(0)
    )
    rows = [{name: values[row : row + 1] for name, values in drawn.items()} for row in range(CALIBRATED_ON)]
    with quiet_native_logs():
        plain = openvino.Core().read_model(str(files.directory / "plain" / "model.onnx"))
        quantised = nncf.quantize(
            plain, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATED_ON
        )
        openvino.save_model(quantised, str(files.directory / "nncf" / NNCF_FILE), compress_to_fp16=False)
