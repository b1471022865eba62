"""What comes back from a device: held to its bundle by hashes and by what the engine is, and judged here.

No engine is run: the outputs of a "device" are onnxruntime's, from the bundle's own graph and inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.facts import read_graph_facts
from lxmert_export.engines.on_device import build_and_verify as script
from lxmert_export.errors import ArtifactError
from lxmert_export.files.hashing import sha256
from lxmert_export.judging.device_report import check_engine, read_report
from parity_tests.engines.test_bundle import Arrays, edit
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import run
from parity_tests.fixtures.random_models import TINY, lively_model


def matmuls_of(artifact: Artifact) -> dict[str, int]:
    facts = read_graph_facts(artifact)
    assert facts is not None
    return facts.matmuls


def returned(bundle: Artifact, place: Path, change: Callable[[Arrays], object] = lambda outputs: None) -> Path:
    """A device report whose outputs onnxruntime computed, by the script's own naming, changed before they are hashed."""
    golden = dict(np.load(bundle.file("golden.npz"), allow_pickle=False))
    batches: dict[tuple[str, str], Arrays] = {}
    for name, array in golden.items():
        if name.startswith("input/"):
            _, family, number, tensor = name.split("/", 3)
            batches.setdefault((family, number), {})[tensor] = array
    found: Arrays = {}
    with lx.load_artifact(bundle.path) as runner:
        for (family, number), inputs in batches.items():
            for output, array in runner.run(inputs).items():
                found[f"shape/{family}/{output}/{number}"] = np.array(array.shape)
                positions = golden.get(f"positions/{array.size}")
                found[f"output/{family}/{output}/{number}"] = array if positions is None else array.flat[positions]
    change(found)
    place.mkdir(exist_ok=True)
    np.savez(place / "outputs.npz", **found)
    described = json.loads(bundle.file("bundle.json").read_text())
    report = {
        "format": script.REPORT_FORMAT, "status": script.RUN, "executed": [], "not_executed": [],
        "bundle": {
            "sha256": sha256(bundle.file("bundle.json")),
            "files": {name: facts["sha256"] for name, facts in described["files"].items()},
        },
        "engine": {
            "file": "model.engine", "sha256": "0" * 64, "flags": [], "tf32": False,
            "matmuls": matmuls_of(bundle), "float32_matmuls": [],
        },
        "outputs": {"file": "outputs.npz", "sha256": sha256(place / "outputs.npz")},
        "runtime": "tensorrt-rtx", "runtime_version": "1.7.1", "gpu": {"name": "Synthetic GPU", "compute_capability": "8.9"},
    }  # fmt: skip
    (place / "report.json").write_text(json.dumps(report))
    return place / "report.json"


def test_outputs_of_a_device_are_judged_here(bundle: Artifact, bundled_graph: Artifact, tmp_path: Path) -> None:
    path = returned(bundle, tmp_path / "back")
    for artifact in (bundle, bundled_graph):
        report = lx.check_device_report(artifact.path, path)
        assert report.passed
        assert {cell.runner for cell in report.cells} == {f"{artifact.name} on Synthetic GPU (tensorrt-rtx 1.7.1)"}
        assert {cell.output for cell in report.cells} == {spec.name for spec in bundle.manifest.signature.outputs}
    done = run("parity", str(bundle.path), "--device-report", str(path), "--json", "out.json", cwd=tmp_path)
    assert (
        done.returncode == 0
        and "Synthetic GPU" in done.stderr
        and json.loads((tmp_path / "out.json").read_text())["passed"]
    )


KEY, WORDS = "output/plain/question_answering_score/0", "output/plain/prediction_logits/0"
FAULTS: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "values": (lambda o: o.update({KEY: o[KEY] * np.float32(1.001)}), "score"),
    "one row": (lambda o: o[KEY].__setitem__(3, o[KEY][2]), "score"),
    "nan": (lambda o: o[KEY].__setitem__((0, 0), np.nan), "NaN or infinity"),
    "dtype": (lambda o: o.update({KEY: o[KEY].astype(np.float64)}), "dtype float64, expected float32"),
    "transposed": (
        lambda o: o.update({KEY: o[KEY].T, KEY.replace("output", "shape", 1): np.array(o[KEY].T.shape)}),
        "shape",
    ),
    "missing output": (
        lambda o: [o.pop(name) for name in list(o) if name.startswith("output/plain/question_answering_score")],
        "missing output",
    ),
    "large shape": (
        lambda o: o.update({WORDS.replace("output", "shape", 1): np.array([8, 10, 150])}),
        "shape [8, 10, 150]",
    ),
    "large values": (lambda o: o.update({WORDS: o[WORDS][::-1]}), "score"),
    "missing batch": (lambda o: o.pop(max(name for name in o if name.startswith(KEY[:-1]))), "shape"),
}


@pytest.mark.parametrize(("plant", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_a_device_fails(
    plant: Callable[[Arrays], object], reason: str, bundle: Artifact, tmp_path: Path
) -> None:
    report = lx.check_device_report(bundle.path, returned(bundle, tmp_path / "back", plant))
    assert not report.passed and reason in report.summary(), report.summary()
    assert len(report.failures) == 1 and report.failures[0].family == "plain"


def _report(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return edit("report.json", change)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "graph": (
        _report(lambda r: r["bundle"]["files"].update({"model.onnx.data": "0"})),
        "from another bundle than .*: other hashes on the device: .*onnx.data",
    ),
    "golden": (_report(lambda r: r["bundle"]["files"].pop("golden.safetensors")), "from another bundle than .*golden"),
    "bundle": (_report(lambda r: r["bundle"].update(sha256="0")), "from another bundle than .*: bundle.json$"),
    "format": (_report(lambda r: r.update(format="theirs")), "is not a device report of this version"),
    "field": (_report(lambda r: r.pop("runtime")), "damaged device report: no field 'runtime'"),
    "status": (_report(lambda r: r.update(status="passed")), "unknown status 'passed'"),
    "outputs gone": (_report(lambda r: r.update(outputs=None)), "its outputs and GPU contradict that"),
    "no gpu": (_report(lambda r: r.update(gpu=None)), "its outputs and GPU contradict that"),
    "not json": (lambda p: (p / "report.json").write_text("{"), "damaged device report"),
    "long name": (_report(lambda r: r["engine"].update(file="x" * 5000)), "damaged device report: names a file 'xxx"),
    "no name": (_report(lambda r: r["outputs"].update(file="/")), "damaged device report: names a file ''"),
    "no report": (lambda p: (p / "report.json").unlink(), "report.json: cannot be read"),
    "no arrays": (lambda p: (p / "outputs.npz").unlink(), "outputs.npz: is missing"),
    "arrays changed": (
        lambda p: (p / "outputs.npz").write_bytes(b"PK"),
        "outputs.npz: is not the file in report.json",
    ),
    "version": (
        _report(lambda r: r.update(runtime_version="1.6.9")),
        "built by tensorrt-rtx 1.6.9, not by .* >=1.7,<2",
    ),
    "runtime": (_report(lambda r: r.update(runtime="tensorrt")), "built by tensorrt 1.7.1, not by tensorrt-rtx"),
    "odd runtime": (_report(lambda r: r.update(runtime="theirs")), "damaged device report: unknown runtime 'theirs'"),
    "capability": (_report(lambda r: r["gpu"].update(compute_capability="9.0")), "compute capability 9.0, not 8.9$"),
    "no capability": (_report(lambda r: r["gpu"].update(compute_capability="?")), r"compute capability \?, not 8.9$"),
    "tf32": (_report(lambda r: r["engine"].update(flags=["TF32"])), "TF32 was on"),
    "tf32 said": (_report(lambda r: r["engine"].update(tf32=True)), "TF32 was on"),
    "half": (
        _report(lambda r: r["engine"].update(matmuls={"fp16": 7})),
        "computed in {'fp16': 7}, but its precision is fp32",
    ),
    "count": (
        _report(lambda r: r["engine"]["matmuls"].update(fp32=1)),
        r"it has 1 matmuls in fp32, but the graph has \d+",
    ),
    "no count": (_report(lambda r: r["engine"].pop("matmuls")), "damaged device report: no field 'matmuls'"),
    "engine": (lambda p: (p / "model.engine").write_bytes(b"another"), "model.engine beside it is not the engine"),
}


@pytest.mark.parametrize(("plant", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_tampered_or_foreign_report_is_one_line(
    plant: Callable[[Path], object], message: str, bundle: Artifact, tmp_path: Path
) -> None:
    path = returned(bundle, tmp_path / "back")
    plant(path.parent)
    with pytest.raises(ArtifactError, match=message) as told:
        lx.check_device_report(bundle.path, path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda o: o.update({"output/plain/strange/0": o[KEY], "shape/plain/strange/0": np.array([8, 7])}), "not one of the"),
        (lambda o: o.update({KEY: o[KEY][:2]}), "has 14 values for shape"),
        (lambda o: o.pop(KEY), "batches of plain/question_answering_score are missing"),
        (lambda o: o.pop(KEY.replace("output", "shape", 1)), "damaged outputs: no 'shape/"),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_read_are_one_line(
    plant: Callable[[Arrays], object], message: str, bundle: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=message):
        lx.check_device_report(bundle.path, returned(bundle, tmp_path / "back", plant))


@pytest.mark.parametrize("held", [b"no array", b"\x93NUMPY\x01\x00\x02\x00(("], ids=["text", "cut header"])
def test_outputs_that_hold_no_arrays_are_one_line(held: bytes, bundle: Artifact, tmp_path: Path) -> None:
    path = returned(bundle, tmp_path / "back")
    with ZipFile(path.with_name("outputs.npz"), "w") as archive:
        archive.writestr(f"{KEY}.npy", held)
        archive.writestr(f"{KEY.replace('output', 'shape', 1)}.npy", held)
    edit("report.json", lambda r: r["outputs"].update(sha256=sha256(path.with_name("outputs.npz"))))(path.parent)
    with pytest.raises(ArtifactError, match="outputs") as told:
        lx.check_device_report(bundle.path, path)
    assert "\n" not in str(told.value)


def test_a_device_stands_beside_other_artifacts(bundle: Artifact, bundled_graph: Artifact, tmp_path: Path) -> None:
    path = returned(bundle, tmp_path / "back")
    report = check_here([bundle.path, bundled_graph.path], device_reports=[path])
    device = next(facts.name for facts in report.runners if facts.kind == "device")
    assert report.passed and report.status_of(device) == "pass"
    opponents = {cell.runner for cell in report.cells if cell.against == device}
    assert opponents == {bundle.name, bundled_graph.name}  # every pair, the device's among them
    required = check_here([bundle.path], device_reports=[path], require_targets=["tensorrt"])
    assert required.passed
    without = check_here([bundle.path], require_targets=["tensorrt"])
    assert not without.passed and "tensorrt is required" in without.summary()


def test_a_device_report_is_judged_by_golden_files_alone(tmp_path: Path) -> None:
    done = run("parity", "one", "--device-report", "report.json", "--checkpoint", "demo", cwd=tmp_path)
    assert done.returncode == 2 and "leave --checkpoint" in " ".join(done.stderr.split())


def test_only_islands_of_the_graph_are_float32(tmp_path: Path) -> None:
    """An fp16 bundle whose graph names no islands, and one that names some: a device's float32 matmuls are held to them."""
    half = lx.export("onnx", lively_model("question-answering", TINY), tmp_path / "half", precision="fp16")
    bundle = lx.build_engine(half.path, tmp_path / "sent", bundle=True, options=lx.BuildOptions(weight_streaming=True))
    path = returned(bundle, tmp_path / "back")
    count = matmuls_of(bundle)["fp16"]
    island = next(node.name for node in onnx.load(bundle.file("model.onnx"), load_external_data=False).graph.node
                  if node.op_type == "MatMul")  # fmt: skip

    def engine(**facts: Any) -> None:
        _report(lambda report: report["engine"].update(facts))(path.parent)
        check_engine(read_report(path), bundle)

    with pytest.raises(ArtifactError, match="builds: built without WEIGHT_STREAMING$"):
        engine()
    engine(flags=["WEIGHT_STREAMING"])
    with pytest.raises(ArtifactError, match=f"{island} computed in float32, but the graph does not list them"):
        engine(matmuls={"fp16": count - 1, "fp32": 1}, float32_matmuls=[island])
    with pytest.raises(ArtifactError, match="computed in {'fp16': .*, 'fp32': 1}, but its precision is fp16"):
        engine(matmuls={"fp16": count - 1, "fp32": 1}, float32_matmuls=[])
    bundle.manifest.options["fp32_islands"] = [island]
    engine(matmuls={"fp16": count - 1, "fp32": 1}, float32_matmuls=[island])
    with pytest.raises(ArtifactError, match="but its precision is fp16"):
        engine(matmuls={"fp32": count}, float32_matmuls=[island])
