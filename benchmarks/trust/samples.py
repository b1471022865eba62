"""Valid files of every kind that the tool reads, as small as they can be: what trials damage, and compare with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from lxmert_export.api.engine import build_engine
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import open_artifact
from lxmert_export.artifact.golden import golden_of
from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.checkpoint.write import write_checkpoint
from lxmert_export.demo.drawing import draw_scene
from lxmert_export.demo.scenes import scene_of_seed
from lxmert_export.files.beside_weights import LABELS_FILE, TOKENIZER_FILES, Companions
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.runners.tensorrt.runtime_cache import CacheFile
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Task
from parity_tests.engines.test_device_report import returned
from parity_tests.fixtures.random_models import lively_state
from parity_tests.fixtures.sample_reports import full_report

TASK: Task = "question-answering"
CONFIG = LxmertConfig(
    vocab_size=80,  # the demo's words, whose tokenizer lies beside the weights
    hidden_size=16,
    num_attention_heads=2,
    intermediate_size=64,  # TFLite keeps weights of fewer than 1,024 values in float32
    max_position_embeddings=16,
    l_layers=1,
    x_layers=1,
    r_layers=1,
    num_qa_labels=3,
    num_object_labels=3,
    num_attr_labels=3,
    visual_feat_dim=4,
)
WEIGHTS = {"hf": "model.safetensors", "original": "BEST.pth", "tf": "tf_model.h5"}  # of each dialect
# What is exported of the smallest checkpoint: the target, and the options that differ from the defaults.
EXPORTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "onnx": ("onnx", {}),
    "bf16": ("onnx", {"precision": "bf16"}),
    "saved-model": ("tensorflow", {}),
    "keras": ("tensorflow", {"file_format": "keras"}),
    "tflite": ("tflite", {}),
}
KERNELS = {"engine": "0f" * 32, "runtime": "1.7.1", "gpu": "Some GPU"}  # what a file of compiled kernels belongs to


@dataclass(frozen=True)
class Samples:
    """Directories of valid files below one place, each made when it is first asked for and then kept."""

    place: Path

    def directory(self, name: str) -> Path:
        """Returns the directory of one of ``MAKERS``."""
        made = self.place / name
        if not made.exists():
            unfinished = self.place / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            MAKERS[name](self, unfinished)
            unfinished.rename(made)
        return made

    def first_inputs(self) -> Arrays:
        """A batch of inputs that the artifacts take."""
        golden = golden_of(open_artifact(self.directory("onnx")))
        return dict(golden.samples.families[0].batches[0])


def _checkpoint(dialect: Dialect) -> Callable[[Samples, Path], None]:
    def make(_: Samples, directory: Path) -> None:
        files = {name: (DEMO_DIRECTORY / name).read_bytes() for name in TOKENIZER_FILES}
        beside = Companions({**files, LABELS_FILE: json.dumps(["one", "two", "three"]).encode()})
        write_checkpoint(lively_state(CONFIG, TASK), CONFIG, TASK, directory, dialect=dialect, companions=beside)

    return make


def _legacy(samples: Samples, directory: Path) -> None:
    """PyTorch's layout before archives."""
    shutil.copytree(samples.directory("original"), directory)
    tensors = torch.load(directory / WEIGHTS["original"], weights_only=True)
    torch.save(tensors, directory / WEIGHTS["original"], _use_new_zipfile_serialization=False)


def _sharded(samples: Samples, directory: Path) -> None:
    shutil.copytree(samples.directory("original"), directory)
    tensors = torch.load(directory / WEIGHTS["original"], weights_only=True)
    (directory / WEIGHTS["original"]).unlink()
    places = {name: f"pytorch_model-{1 + number % 2}.bin" for number, name in enumerate(tensors)}
    for shard in set(places.values()):
        torch.save({name: tensors[name].clone() for name in places if places[name] == shard}, directory / shard)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))


def _export(kind: str) -> Callable[[Samples, Path], None]:
    target, options = EXPORTS[kind]
    return lambda samples, directory: _exported(target, samples.directory("hf"), directory, options)


def _exported(target: str, checkpoint: Path, directory: Path, options: Mapping[str, Any]) -> None:
    export(target, checkpoint, directory, **options)


def _bundle(samples: Samples, directory: Path) -> None:
    build_engine(samples.directory("onnx"), directory, compute_capability="8.9", bundle=True)


def _engine(samples: Samples, directory: Path) -> None:
    build_engine(samples.directory("onnx"), directory, compute_capability="8.9")


def _device_report(samples: Samples, directory: Path) -> None:
    returned(open_artifact(samples.directory("bundle")), directory)


def _report(_: Samples, directory: Path) -> None:
    directory.mkdir()
    (directory / "report.json").write_text(json.dumps(full_report().to_dict()))


def _inputs(samples: Samples, directory: Path) -> None:
    from lxmert_export.engines.library import prepare_polygraphy

    prepare_polygraphy()
    from polygraphy.json import to_json

    directory.mkdir()
    batch = samples.first_inputs()
    np.savez(directory / "inputs.npz", **batch)  # type: ignore[arg-type]  # every keyword is an array
    save_file({name: np.ascontiguousarray(array) for name, array in batch.items()}, directory / "inputs.safetensors")
    (directory / "inputs.json").write_text(to_json([batch]))


def _picture(_: Samples, directory: Path) -> None:
    directory.mkdir()
    picture = draw_scene(scene_of_seed(7))
    for suffix in ("png", "jpg"):
        picture.save(directory / f"scene.{suffix}")


def _demo(_: Samples, directory: Path) -> None:
    export("onnx", "demo", directory, task=TASK, parity=False)


def _kernels(_: Samples, directory: Path) -> None:
    CacheFile(directory, **KERNELS).write(b"kernels" * 20)


MAKERS: Mapping[str, Callable[[Samples, Path], None]] = {
    "hf": _checkpoint("hf"),
    "original": _checkpoint("original"),
    "tf": _checkpoint("tf"),
    "legacy": _legacy,
    "sharded": _sharded,
    **{kind: _export(kind) for kind in EXPORTS},
    "bundle": _bundle,
    "engine": _engine,
    "device": _device_report,
    "report": _report,
    "inputs": _inputs,
    "picture": _picture,
    "demo": _demo,
    "kernels": _kernels,
}
