"""Engines and bundles of int8 graphs, and of split ones: what TensorRT-RTX parses and builds without a GPU. None is run here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lxmert_export as lx
from converters.to_tensorrt import convert_to_tensorrt
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.engines.devices import resolve
from lxmert_export.engines.on_device.build_and_verify import NOT_RUN
from lxmert_export.engines.options import BuildOptions
from lxmert_export.engines.profiles import make_profiles
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.engine_options import EngineOptions
from lxmert_export.graphs.onnx_facts import read_facts
from lxmert_export.judging.device_report import matmul_faults, read_report
from lxmert_export.spec.signature import Task
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY
from parity_tests.onnx.test_int8 import real_rows

INT8: dict[str, Any] = {"precision": "int8", "int8_range": "7bit"}
TASK: Task = "question-answering"
KEPT = "answer_head.expand/Gemm"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the small network, on which ranges are measured."""
    place = tmp_path_factory.mktemp("features") / "features.npz"
    batches = real_rows(12)
    np.savez(place, **{name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})  # type: ignore[arg-type]
    return place


@pytest.fixture
def graph(calibration: Path, exports: Exports) -> Artifact:
    """A small network in int8, but for one matmul."""
    return exports.lively("onnx", TASK, TINY, **INT8, calibration=calibration, int8_keep=(KEPT,))


@pytest.mark.parametrize("kept", [False, True])
def test_an_int8_graph_becomes_an_int8_engine(kept: bool, calibration: Path, exports: Exports, graph: Artifact) -> None:
    graph = graph if kept else exports.lively("onnx", TASK, TINY, **INT8, calibration=calibration)
    engine = exports.engine(graph, compute_capability="8.9")
    build, facts = engine.manifest.options["build"], read_facts(graph)
    assert engine.manifest.precision == "int8" and engine.manifest.options["status"] == NOT_RUN
    assert build["matmuls"] == facts.matmuls and build["matmul_weights"] == facts.matmul_weights
    assert sorted(build["float32_matmuls"]) == sorted(graph.float32_matmuls)
    assert (KEPT in " ".join(build["float32_matmuls"])) == kept
    rows = dict(summary_rows(inspect_artifact(engine.path)))
    assert rows["matmuls"].startswith(f"{facts.matmuls['int8']} read dequantised int8, ")
    with pytest.raises(ArtifactError, match=r"built, not run \(no GPU\)"):
        lx.verify(engine.path)


def test_a_matmul_that_is_not_int8_is_refused(graph: Artifact, tmp_path: Path) -> None:
    signature = graph.manifest.signature
    profiles = make_profiles(graph.manifest.config, signature)
    names = frozenset(graph.float32_matmuls)
    planted = next(name for name in names if KEPT in name)
    with pytest.raises(ConversionError, match=f"labelled int8, .* in float32, which the graph's are not: {planted}"):
        convert_to_tensorrt(
            graph.file(ONNX_FILE), signature, profiles, resolve("rtx", precision="int8"), tmp_path,
            weights_size=graph.weights_size, islands=names - {planted},
        )  # fmt: skip


def test_a_device_counts_the_same(graph: Artifact, tmp_path: Path) -> None:
    bundle = lx.build_engine(graph.path, tmp_path / "sent", compute_capability="8.9", bundle=True)
    command = [sys.executable, "-I", str(bundle.path / "build_and_verify.py"), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "report.json")
    assert dict(report.engine.matmuls) == read_facts(graph).matmuls and matmul_faults(report.engine, bundle) == []
    described = json.loads((bundle.path / "bundle.json").read_text())
    described["islands"].remove(next(name for name in described["islands"] if KEPT in name))
    described["files"] = {}
    (bundle.path / "bundle.json").write_text(json.dumps(described))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "every matmul but the float32 islands must be int8" in done.stderr


def test_a_split_graph_becomes_a_whole_engine(exports: Exports, tmp_path: Path) -> None:
    split = exports.lively("onnx", TASK, TINY, split=True)
    for bundle in (False, True):
        made = lx.build_engine(split.path, tmp_path / f"out{bundle}", compute_capability="8.9", bundle=bundle)
        assert made.halves is None and "vision" not in (made.manifest.flops or {})
    assert lx.verify(tmp_path / "outTrue").passed


@pytest.mark.parametrize("keep", ["auto", KEPT, (KEPT,), ["auto"]])
def test_matmuls_to_keep_are_named_as_for_onnx(keep: str | list[str]) -> None:
    onnx: dict[str, object] = {"int8_keep": keep, "task": "question-answering"}
    asked = EngineOptions(
        "int8", "rtx", None, BuildOptions(), dict.fromkeys(("batch", "text", "objects"), ()), None, False, onnx
    )
    assert asked.of_graph(resolve("rtx", precision="int8")).int8_keep == (
        (keep,) if isinstance(keep, str) else tuple(keep)
    )


@pytest.mark.quick
def test_what_does_not_fit_is_refused(graph: Artifact, tmp_path: Path) -> None:
    (tmp_path / "real.npz").touch()
    refused(
        run("tensorrt", str(graph.path), "--calibration", "real.npz", "-o", "out", cwd=tmp_path),
        "is calibrated already: leave --calibration out",
    )
    for chosen in ("7bit", "8bit"):
        refused(
            run("tensorrt", str(graph.path), "--int8-range", chosen, "-o", "out", cwd=tmp_path),
            "--int8-range cannot be changed in an ONNX artifact",
        )
    refused(
        run("tensorrt", "demo", "--int8-range", "7bit", "-o", "out", cwd=tmp_path),
        "--int8-range: not an option of fp32 onnx",
    )
    refused(
        run("tensorrt", "demo", "--int8", "--compute-capability", "7.5", "-o", "out", cwd=tmp_path),
        "TensorRT-RTX for compute capability 7.5 cannot build an fp32 matrix product",
    )
    assert not (tmp_path / "out").exists()
