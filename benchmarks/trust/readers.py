"""Every reader of files that others wrote: a valid file, how it is damaged, and what reads it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.trust.mutations import (
    Generator,
    Mutate,
    damaged,
    damaged_json,
    damaged_pickle,
    damaged_safetensors,
    damaged_words,
    damaged_zip,
    odd_json,
    text_of,
)
from benchmarks.trust.samples import KERNELS, WEIGHTS, Samples
from lxmert_export.files.converted_files import MANIFEST_FILE
from lxmert_export.files.hashing import sha256
from lxmert_export.runners.tensorrt.runtime_cache import CacheFile
from parity_tests.fixtures.manifests import list_files

KERNELS_FILE = CacheFile(Path(), **KERNELS).path.name


@dataclass(frozen=True)
class Reader:
    """A reader, which gets the path of the damaged file among the other files of its sample.

    ``sealed``: after the damage the manifest is given hashes that fit, as somebody who knows the format would.
    ``beside``: another sample that it needs, linked into the copy.
    """

    sample: str
    file: str
    mutate: Mutate
    read: Callable[[Path], object]
    sealed: bool = False
    beside: str | None = None

    def copied(self, samples: Samples, directory: Path) -> Path:
        """Copies the sample to a new directory; returns the valid file in it."""
        shutil.copytree(samples.directory(self.sample), directory)
        if self.beside is not None:
            (directory / self.beside).symlink_to(samples.directory(self.beside).absolute())
        return directory / self.file

    def write(self, directory: Path, content: bytes) -> Path:
        """Writes the damaged file into a copy of the sample."""
        file = directory / self.file
        file.write_bytes(content)
        if self.sealed:
            list_files(directory, self.file)
        return file


def _checkpoint(file: Path) -> object:
    from lxmert_export.checkpoint.read import read_checkpoint

    return read_checkpoint(file.parent, num_attention_heads=2)


def _config(file: Path) -> object:
    from lxmert_export.checkpoint.read import read_checkpoint

    return read_checkpoint(file.parent)


def _tokenizers(file: Path) -> None:
    """In both tokenizers, which have the same readers and other checks."""
    from lxmert_export.tokenizer.fast import LxmertTokenizerFast
    from lxmert_export.tokenizer.pure import LxmertTokenizer

    for kind in (LxmertTokenizer, LxmertTokenizerFast):
        tokenizer = kind.from_pretrained(file.parent)
        tokenizer(["how many circles are there ?", "\x00 é [MASK]"], padding=True, return_tensors="np")


def _artifact(file: Path) -> object:
    from lxmert_export.artifact.directory import open_artifact

    return open_artifact(file.parent)


def _graph(file: Path) -> object:
    from lxmert_export.artifact.directory import open_artifact
    from lxmert_export.artifact.facts import read_graph_facts

    return read_graph_facts(open_artifact(file.parent))


def _saved_model(file: Path) -> object:
    from lxmert_export.artifact.directory import open_artifact

    return open_artifact(file.parent.parent)


def _labels(file: Path) -> object:
    from lxmert_export.artifact.companions import labels_of
    from lxmert_export.artifact.directory import open_artifact

    return labels_of(open_artifact(file.parent))


def _golden(file: Path) -> object:
    from lxmert_export.artifact.directory import open_artifact
    from lxmert_export.judging.by_golden import check_against_golden
    from lxmert_export.progress import silent

    return check_against_golden(
        [open_artifact(file.parent)], ("CPUExecutionProvider",), silent, laws="none", time_limit=None
    )


def _report(file: Path) -> None:
    """What ``parity --from FILE --baseline FILE`` does, with every form of a report."""
    from rich.console import Console

    from lxmert_export.api.parity import compare_with_baseline, judge_report
    from lxmert_export.parity.pages.terminal import print_report
    from lxmert_export.parity.pages.writing import write_reports

    report = compare_with_baseline(judge_report(file, threshold=4, pair_threshold=4), file)
    print_report(report, Console(file=io.StringIO()), verbose=True)
    forms = {"json": "json", "junit": "xml", "markdown": "md", "html": "html"}
    write_reports(report.to_dict(), **{form: file.with_name(f"again.{suffix}") for form, suffix in forms.items()})


def _device_report(file: Path) -> object:
    from lxmert_export.artifact.directory import open_artifact
    from lxmert_export.judging.device_report import judge_device

    return judge_device(open_artifact(file.parent / "bundle"), file)


def _device_outputs(file: Path) -> object:
    report = file.with_name("report.json")
    values = json.loads(report.read_text())
    values["outputs"]["sha256"] = sha256(file)
    report.write_text(json.dumps(values))
    return _device_report(report)


def _arrays(file: Path) -> object:
    from lxmert_export.artifact.directory import open_artifact
    from lxmert_export.judging.own_inputs import read_own_inputs

    manifest = open_artifact(file.parent / "onnx").manifest
    own = read_own_inputs(file, manifest.signature)
    return own.family(manifest.signature, manifest.limits)


def _picture(file: Path) -> object:
    from lxmert_export.predicting.pictures import find_shapes

    return find_shapes(file)


def _kernels(file: Path) -> object:
    return CacheFile(file.parent, **KERNELS).read()


def _kind(file: Path) -> None:
    """What decides whether a path is a converted model, and which artifact holds it."""
    from lxmert_export.files.converted_files import converted_kind, holder_of, manifest_of

    converted_kind(file)
    holder_of(file)
    manifest_of(file.parent)


def damaged_manifest(content: bytes, generator: Generator) -> bytes:
    """An odd manifest with the digest that fits it, most of the time."""
    if generator.random() < 0.2:
        return damaged_json(content, generator)
    values: Any = odd_json(json.loads(content), generator)
    if not isinstance(values, dict):
        return text_of(values).encode("utf-8", "surrogatepass")
    text = text_of({**values, "digest": ""}).encode("utf-8", "surrogatepass")
    return text.replace(b'"digest": ""', b'"digest": "%s"' % hashlib.sha256(text).hexdigest().encode(), 1)


def _weights(dialect: str, sample: str, mutate: Mutate) -> Reader:
    return Reader(sample, WEIGHTS[dialect], mutate, _checkpoint)


def _words(file: str, mutate: Mutate) -> Reader:
    return Reader("hf", file, mutate, _tokenizers)


READERS: Mapping[str, Reader] = {
    "checkpoint, safetensors": _weights("hf", "hf", damaged_safetensors),
    "checkpoint, .pth archive": _weights("original", "original", damaged_zip),
    "checkpoint, .pth pickle": _weights("original", "legacy", damaged_pickle),
    "checkpoint, HDF5": _weights("tf", "tf", damaged_pickle),
    "config": Reader("hf", "config.json", damaged_json, _config),
    "shard index": Reader("sharded", "pytorch_model.bin.index.json", damaged_json, _checkpoint),
    "vocab.txt": _words("vocab.txt", damaged_words),
    "tokenizer.json": _words("tokenizer.json", damaged_json),
    "tokenizer_config.json": _words("tokenizer_config.json", damaged_json),
    "special_tokens_map.json": _words("special_tokens_map.json", damaged_json),
    "manifest": Reader("onnx", MANIFEST_FILE, damaged_manifest, _artifact),
    "labels": Reader("onnx", "labels.json", damaged_json, _labels, sealed=True),
    "golden file": Reader("onnx", "golden.safetensors", damaged_safetensors, _golden, sealed=True),
    "ONNX operators": Reader("onnx", "model.onnx", damaged, _graph, sealed=True),
    "TFLite operators": Reader("tflite", "model.tflite", damaged, _artifact, sealed=True),
    "SavedModel operators": Reader("saved-model", "saved_model/saved_model.pb", damaged, _saved_model, sealed=True),
    ".keras classes": Reader("keras", "model.keras", damaged_zip, _artifact, sealed=True),
    "bundle's manifest": Reader("bundle", MANIFEST_FILE, damaged_manifest, _artifact),
    "report": Reader("report", "report.json", damaged_json, _report),
    "device report": Reader("device", "report.json", damaged_json, _device_report, beside="bundle"),
    "device's outputs": Reader("device", "outputs.npz", damaged_zip, _device_outputs, beside="bundle"),
    "inputs, .npz": Reader("inputs", "inputs.npz", damaged_zip, _arrays, beside="onnx"),
    "inputs, .safetensors": Reader("inputs", "inputs.safetensors", damaged_safetensors, _arrays, beside="onnx"),
    "inputs, Polygraphy's JSON": Reader("inputs", "inputs.json", damaged_json, _arrays, beside="onnx"),
    "picture, PNG": Reader("picture", "scene.png", damaged, _picture),
    "picture, JPEG": Reader("picture", "scene.jpg", damaged, _picture),
    "compiled kernels": Reader("kernels", KERNELS_FILE, damaged, _kernels),
    "kind of a file": Reader("keras", "model.keras", damaged_zip, _kind),
}
