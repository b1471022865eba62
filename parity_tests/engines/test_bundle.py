"""Bundles for devices: what they hold, what their script does here without a GPU, and how what comes back is judged.

No engine is run here: the outputs of a "device" are onnxruntime's, from the bundle's own graph and inputs.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.api.engine import check_output
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.facts import read_graph_facts
from lxmert_export.engines.device_kinds import DEVICES
from lxmert_export.engines.devices import resolve
from lxmert_export.engines.on_device import build_and_verify as script
from lxmert_export.engines.on_device.build_and_verify import NOT_RUN
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.bundle import bundle_directory, pack
from lxmert_export.files import appearing_together
from lxmert_export.files.hashing import sha256
from lxmert_export.files.workspaces import Workspace
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.random_models import TINY, lively_model

Arrays = dict[str, Any]


def test_a_bundle_holds_all_that_a_device_needs(bundle: Artifact, bundled_graph: Artifact, tmp_path: Path) -> None:
    described = json.loads(bundle.file("bundle.json").read_text())
    files = {path.name for path in bundle.path.iterdir()}
    assert set(described["files"]) == files - {"bundle.json", "manifest.json"}
    assert all(sha256(bundle.file(name)) == facts["sha256"] for name, facts in described["files"].items())
    assert all(described["files"][name] == facts for name, facts in bundled_graph.manifest.files.items())
    with tarfile.open(f"{bundle.path}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert {path.name: sha256(path) for path in (tmp_path / "sent").iterdir()} == {
        path.name: sha256(path) for path in bundle.path.iterdir()
    }
    arrays = np.load(bundle.file("golden.npz"), allow_pickle=False)
    assert {name.split("/")[0] for name in arrays.files} == {"input", "reference", "shape", "floor", "positions"}
    text = bundle.file("README.md").read_text()
    assert "--minShapes=input_ids:1x2," in text and "--computeCapabilities=89" in text and "polygraphy" not in text
    verified = lx.verify(bundle.path)
    assert verified.passed  # it is an ONNX artifact still
    assert any("only its ONNX graph was judged: a bundle holds no engine" in note for note in verified.notes)
    assert not any("no engine" in note for note in lx.verify(bundled_graph.path).notes)


def test_inspect_tells_a_bundle_from_a_graph(bundle: Artifact, bundled_graph: Artifact) -> None:
    told = dict(summary_rows(inspect_artifact(bundle.path)))
    assert "--target rtx" in told["bundle"] and "no engine is built yet" in told["bundle"]
    assert told["runtime"] == "tensorrt-rtx >=1.7,<2" and told["runs on"] == "compute capability 8.9"
    assert told["profile 0"] == "batch 1:1:8, text 2:20:32, objects 1:36:100" and told["unexecuted"] == "run"
    assert "bundle" not in dict(summary_rows(inspect_artifact(bundled_graph.path)))


def test_a_bundle_can_be_made_anew_from_a_bundle(bundle: Artifact, tmp_path: Path) -> None:
    other = lx.build_engine(bundle.path, tmp_path / "other", target="orin-jp6", bundle=True)
    described = json.loads(other.file("bundle.json").read_text())
    assert "bundle.json" not in described["files"] and described["target"] == "orin-jp6"
    assert all(sha256(other.file(name)) == facts["sha256"] for name, facts in described["files"].items())
    engine = lx.build_engine(bundle.path, tmp_path / "engine", compute_capability="8.9")
    assert "bundle" not in engine.manifest.options and {"lint", "predicted_errors"} <= set(other.manifest.options)


def test_the_same_bundle_is_the_same_bytes(bundled_graph: Artifact, bundle: Artifact, tmp_path: Path) -> None:
    lx.build_engine(bundled_graph.path, tmp_path / "sent", compute_capability="8.9", bundle=True)
    assert sha256(tmp_path / "sent.tar.gz") == sha256(Path(f"{bundle.path}.tar.gz"))


@pytest.mark.parametrize("target", [target for target in DEVICES if target != "this-gpu"])
def test_every_target_can_be_bundled_without_its_runtime(
    target: str, bundled_graph: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    made = lx.build_engine(bundled_graph.path, tmp_path / "sent", target=target, bundle=True, objects=["10:36:100"])
    described = json.loads(made.file("bundle.json").read_text())
    resolved = resolve(target)
    assert described["runtime"] == resolved.runtime and described["unexecuted"] == list(resolved.unexecuted)
    # The golden inputs have 5 and 9 objects: they have a profile of their own.
    assert [profile["objects"] for profile in described["profiles"]] == [[10, 36, 100], [1, 9, 9]]
    assert described["golden_profile"] == 1
    assert ("--stronglyTyped" in made.file("README.md").read_text()) is (resolved.runtime == "tensorrt")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "strip": (
        {"target": "thor", "options": lx.BuildOptions(strip=True)},
        "strip=True computes nothing until it is refitted",
    ),
    "timing cache": ({"target": "thor", "options": lx.BuildOptions(timing_cache="f")}, "leave timing_cache out"),
    "no parity": ({"parity": False}, "must run golden inputs, and parity=False writes none"),
    "resolver": ({"compute_capability": "8.7"}, "TensorRT-RTX cannot target compute capability 8.7"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_bundled_is_one_line(
    options: dict[str, Any], message: str, bundled_graph: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message):
        lx.build_engine(bundled_graph.path, tmp_path / "out", bundle=True, **options)
    assert not any(tmp_path.iterdir())


def test_directory_and_archive_come_both_or_not_at_all(
    bundled_graph: Artifact, bundle: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, archive = tmp_path / "out", tmp_path / "out.tar.gz"
    pack(bundle.path, archive, "out")
    old = archive.read_bytes()
    with pytest.raises(ArtifactError, match=r"out\.tar\.gz: exists already"):
        lx.build_engine(bundled_graph.path, out, bundle=True)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for broken in ("lxmert_export.exporting.bundle.pack", "lxmert_export.files.appearing_together._place"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, fails)
            with pytest.raises(ArtifactError, match="No space left"):
                lx.build_engine(bundled_graph.path, out, bundle=True, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["out.tar.gz"] and archive.read_bytes() == old
    pack(bundled_graph.path, tmp_path / "other", "extension")  # a manifest.json is in many an archive
    for others in (b"mine", (tmp_path / "other").read_bytes()):
        archive.write_bytes(others)
        with pytest.raises(ArtifactError, match="is no bundle's archive, so overwrite=True does not replace it"):
            lx.build_engine(bundled_graph.path, out, bundle=True, overwrite=True)
    archive.write_bytes(old)
    bare = lx.export("onnx", lively_model("question-answering", TINY), tmp_path / "bare", parity=False)
    with pytest.raises(ArtifactError, match="written with --no-parity, so it has no golden inputs"):
        lx.build_engine(bare.path, out, bundle=True, overwrite=True)


@pytest.mark.parametrize("existing", [True, False])
def test_a_bundle_of_a_run_killed_between_its_renames_is_finished(
    existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, archive = tmp_path / "out", tmp_path / "out.tar.gz"
    place = appearing_together._place

    def write(text: str, overwrite: bool) -> None:
        with bundle_directory(out, overwrite=overwrite) as temporary:
            (temporary / "manifest.json").write_text('{"target": "onnx", "files": {"bundle.json": {}}}')
            (temporary / "bundle.json").write_text(text)

    def killed(workspace: Workspace, name: str, **choice: bool) -> None:
        if name == archive.name:
            raise KeyboardInterrupt
        place(workspace, name, **choice)

    if existing:
        write("old", False)
    with monkeypatch.context() as patch:
        patch.setattr(appearing_together, "_place", killed)
        patch.setattr(appearing_together, "_put_back", killed)  # a kill, unlike an interrupt, puts nothing back
        with pytest.raises(KeyboardInterrupt):
            write("new", existing)
    assert (out / "bundle.json").read_text() == "new" and archive.exists() is existing
    with pytest.raises(ArtifactError, match="exists already"):
        check_output(tmp_path / "source", out, bundle=True, overwrite=False)
    with tarfile.open(archive) as packed:
        assert packed.extractfile("out/bundle.json").read() == b"new"  # type: ignore[union-attr]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.tar.gz"}


# --- the script


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.7", "8.9", "9.0", "11.0", "12.0", "12.1", "13.0"])
def test_later_gpus_are_later_than_all_that_a_bundle_names(capability: str) -> None:
    """As the documentation has it: 8.0, 8.6, 8.9, 12.0 and later; named ones are meant alone."""
    portable = {"compute_capabilities": ["8.0", "8.6", "8.9", "12.0"], "and_later": True, "runtime": "tensorrt-rtx"}
    gpu: Any = SimpleNamespace(name="Some GPU", capability=capability)
    for described, taken in (
        (portable, {"8.0", "8.9", "12.0", "12.1", "13.0"}),
        ({**portable, "and_later": False}, {"8.0", "8.9", "12.0"}),
    ):
        if capability in taken:
            script.check_gpu(described, gpu, "")
            continue
        with pytest.raises(script.Failure, match=f"has compute capability {capability}, and this bundle is for 8.0"):
            script.check_gpu(described, gpu, "")


def test_the_script_is_python_3_8() -> None:
    text = Path(script.__file__).read_text()
    ast.parse(text, feature_version=(3, 8))
    newer = ("removeprefix", "removesuffix", "file_digest", "strict=", "is_relative_to", "match ", " | None]")
    assert not [name for name in newer if name in text.split('"""', 2)[2]]
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def execute(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The bundle's own copy of the script, with nothing of ours on the path."""
    command = [sys.executable, "-I", str(place / "build_and_verify.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_builds_here_and_says_that_it_ran_nothing(bundle: Artifact, tmp_path: Path) -> None:
    done = execute(bundle.path, "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"report.json: {NOT_RUN}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["status"] == NOT_RUN and report["outputs"] is report["gpu"] is None
    assert report["executed"] == [
        "hashes of the bundle checked", "ONNX graph parsed", "precision counted", "engine built",
    ]  # fmt: skip
    assert "libcuda" in report["not_executed"][0]
    engine = report["engine"]
    graph = read_graph_facts(bundle)
    assert graph is not None and engine["matmuls"] == graph.matmuls and engine["float32_matmuls"] == []
    assert engine["tf32"] is False and engine["flags"] == []
    assert engine["sha256"] == sha256(tmp_path / "model.engine") and engine["bytes"] > 100_000
    with pytest.raises(ArtifactError, match=r"built, not run \(no GPU\)"):
        lx.check_device_report(bundle.path, tmp_path / "report.json")
    told = run("parity", str(bundle.path), "--device-report", str(tmp_path / "report.json"), cwd=tmp_path)
    refused(told, NOT_RUN)
    assert "passed" not in told.stderr


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        values = json.loads((place / name).read_text())
        change(values)
        (place / name).write_text(json.dumps(values))

    return apply


STOPPED: dict[str, tuple[Callable[[Path], None], str]] = {
    "changed": (lambda place: (place / "golden.npz").write_bytes(b"x"), "golden.npz: missing or changed"),
    "missing": (lambda place: (place / "model.onnx.data").unlink(), "model.onnx.data: missing or changed"),
    "damaged": (lambda place: (place / "bundle.json").write_text("{") and None, "bundle.json: damaged"),
    "version": (edit("bundle.json", lambda v: v.update(versions=[[[9], [10]]], versions_text=">=9,<10")), "is for >=9,<10"),
    "classic": (edit("bundle.json", lambda v: v.update(runtime="tensorrt")), "builds engines on the GPU that runs them"),
    "module": (edit("bundle.json", lambda v: v.update(module="tensorrt_none")), "tensorrt_none cannot be imported"),
    "precision": (edit("bundle.json", lambda v: v.update(precision="fp16")), "computes in fp32; every matmul but"),
}  # fmt: skip


@pytest.mark.parametrize(("plant", "message"), STOPPED.values(), ids=STOPPED)
def test_what_stops_the_script_is_one_line(
    plant: Callable[[Path], None], message: str, bundle: Artifact, tmp_path: Path
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(bundle.path, place)
    (place / "report.json").write_text("an earlier one")
    plant(place)
    done = execute(place)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert not {"report.json", "model.engine", "outputs.npz"} & {path.name for path in place.iterdir()}


@pytest.mark.parametrize("name", ["model.engine", "report.json"])
def test_a_full_disk_of_the_device_is_one_line_and_leaves_nothing(
    name: str, bundle: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **others: Any) -> Any:
        if path.name == f"{name}.writing":
            path.touch()
            raise OSError(28, "No space left on device")
        return opened(path, mode, *rest, **others)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(script, "__file__", str(bundle.path / "build_and_verify.py"))
    monkeypatch.setattr(script, "build", lambda *_: (b"engine", {}))
    monkeypatch.setattr(script, "open_library", lambda _: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(sys, "argv", ["build_and_verify.py", "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as told:
        script.main()
    assert told.value.code == "error: [Errno 28] No space left on device"
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "failure", [RuntimeError("no\nmemory"), TypeError("odd"), AttributeError("no FLAG"), MemoryError()]
)
def test_what_the_library_raises_is_one_line(
    failure: Exception, bundle: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise failure

    shutil.copytree(bundle.path, tmp_path / "copy")
    monkeypatch.setattr(script, "set_options", fails)
    monkeypatch.setattr(script, "__file__", str(tmp_path / "copy" / "build_and_verify.py"))
    monkeypatch.setattr(sys, "argv", ["build_and_verify.py", "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as told:
        script.main()
    words = " ".join(str(failure).split())
    name = re.escape(type(failure).__name__)
    expected = rf"TensorRT failed in fails \(line \d+\): {name}: {words}" if words else name
    assert re.fullmatch(f"error: {expected}", str(told.value.code)) and not any((tmp_path / "out").iterdir())


def test_the_script_tells_tf32_as_it_was_left(bundle: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    library = script.open_library(script.read_bundle(bundle.path))
    monkeypatch.setattr(script, "set_options", lambda library, config, _: config.set_flag(library.BuilderFlag.TF32))
    _, facts = script.build(library, script.read_bundle(bundle.path), bundle.path)
    assert facts["tf32"] is True and facts["flags"] == ["TF32"]


def test_the_first_profile_that_takes_all_inputs_is_picked() -> None:
    profiles = [{"shapes": {"ids": [[1, low], [1, 5], [2, 9]], "boxes": [[1, 1, 4]] * 3}} for low in (4, 2)]
    inputs = {"ids": np.zeros((1, 3)), "boxes": np.zeros((1, 1, 4))}
    assert script.pick_profile({"profiles": profiles}, inputs) == 1
    assert script.pick_profile({"profiles": profiles}, {**inputs, "ids": np.zeros((2, 9))}) == 0
    for outside in ({"ids": np.zeros((1, 10))}, {"ids": np.zeros((3, 5))}, {"boxes": np.zeros((1, 2, 4))}):
        with pytest.raises(script.Failure, match="outside every profile"):
            script.pick_profile({"profiles": profiles}, {**inputs, **outside})
