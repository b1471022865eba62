"""An ONNX artifact in a single file is an artifact like any other; which runtime is the lowest is read from the file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import lxmert_export as lx
from converters import to_onnx
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE
from lxmert_export.errors import ConversionError
from lxmert_export.graphs.onnx_facts import BY_OPSET, lowest_onnxruntime
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

pytestmark = pytest.mark.quick


def test_a_single_file_passes_gate_verify_and_bundle(exports: Exports, tmp_path: Path) -> None:
    artifact = exports.lively("onnx", "question-answering", TINY, precision="fp16", single_file=True)
    two = exports.lively("onnx", "question-answering", TINY, precision="fp16")
    assert ONNX_DATA_FILE not in artifact.manifest.files and not (artifact.path / ONNX_DATA_FILE).exists()
    assert artifact.manifest.options["single_file"] is True and artifact.manifest.parity is not None
    assert artifact.weights_size > two.weights_size == two.manifest.files[ONNX_DATA_FILE]["bytes"]
    one, other = onnx.load(artifact.file(ONNX_FILE)), onnx.load(two.file(ONNX_FILE))
    assert one.graph == other.graph  # the same graph, with the same weights
    assert not any(tensor.external_data for tensor in one.graph.initializer)
    assert lx.verify(artifact.path).passed
    bundle = lx.build_engine(artifact.path, tmp_path / "bundle", target="orin-jp6", bundle=True)
    assert ONNX_DATA_FILE not in bundle.manifest.files
    assert lx.verify(bundle.path).passed


def test_what_one_file_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "LARGEST_FILE", 100_000)
    said = r"single_file: graph and weights take [\d,]+ bytes, and one ONNX file holds 100,000 at most; leave it out"
    with pytest.raises(ConversionError, match=said):
        lx.export("onnx", lively_model("model", TINY), tmp_path / "out", single_file=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("opset", "ir_version", "lowest"),
    [(18, 8, "1.15"), (18, 10, "1.18"), (20, 9, "1.17"), (23, 10, "1.23"), (25, 10, "1.24"), (26, 10, None), (25, 13, None)],
)  # fmt: skip
def test_the_lowest_runtime(opset: int, ir_version: int, lowest: str | None) -> None:
    assert lowest_onnxruntime(opset, ir_version) == (lowest and f"onnxruntime {lowest}")


def test_every_opset_has_the_lowest_ir_version_that_it_allows() -> None:
    first: dict[int, int] = {}
    for _, ir_version, opset, *_ in onnx.helper.VERSION_TABLE:
        first.setdefault(opset, ir_version)
    known = [opset for opset in to_onnx.OPSETS if opset in first]  # the lowest onnx that is declared knows up to 24
    assert len(known) > 5
    assert {opset: to_onnx.IR_VERSIONS[opset] for opset in known} == {opset: min(first[opset], 10) for opset in known}
    assert set(BY_OPSET) == set(to_onnx.OPSETS)


def test_inspect_says_the_lowest_runtime(exports: Exports) -> None:
    rows = dict(
        summary_rows(inspect_artifact(exports.lively("onnx", "question-answering", TINY, precision="fp16").path))
    )
    assert (rows["opset"], rows["runs in"]) == ("18, IR version 8", "onnxruntime 1.15 or later")
