"""OpenVINO as a second runtime of ONNX artifacts: float32 everywhere, bf16 where the CPU computes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest

import lxmert_export as lx
from lxmert_export.api.doctor import examine
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE, Artifact, open_artifact, open_named
from lxmert_export.artifact.targets import TARGETS, Lack
from lxmert_export.errors import ArtifactError, BuiltNotRun, InputError, MissingExtra
from lxmert_export.parity.laws import THREADS
from lxmert_export.runners.opening import open_emulator
from lxmert_export.runners.openvino import compiled
from lxmert_export.runners.runner import Runner
from parity_tests.faults.onnx_faults import FILE_FAULTS, plant_in_file
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import ROOT, refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import list_files
from parity_tests.fixtures.random_models import TINY, inputs_for, lively_model
from parity_tests.fixtures.stand_ins import Function
from parity_tests.project.test_extras import without

TASK = "question-answering"
FAULTS = ["swapped_query_and_key", "missing_half"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("openvino") / "checkpoint"
    lx.save_checkpoint(lively_model(TASK, TINY), place)
    return place


@pytest.fixture
def artifact(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY)


@pytest.mark.quick
def test_it_passes_beside_onnxruntime_and_the_report_names_both(artifact: Artifact, checkpoint: Path) -> None:
    both = [str(artifact.path), f"{artifact.path}@openvino"]
    for judged_by in (None, checkpoint):
        report = check_here(both, checkpoint=judged_by)
        assert report.passed, report.summary()
        rows = [(facts.name, facts.runtime, facts.device, facts.precision) for facts in report.runners]
        assert rows == [("out", "onnxruntime", "CPU", "fp32"), ("out@openvino", "openvino", "CPU", "fp32")]
        assert {cell.arithmetic for cell in report.cells} == {"native"}
        assert any(cell.kind == "pair" for cell in report.cells)
    laws = check_here([both[1]], laws=True)
    assert laws.passed and sum(cell.against == f"law: {THREADS}" for cell in laws.cells) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_it_fails_a_faulty_file(fault: str, artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(artifact.path, tmp_path / "faulty")
    plant_in_file(artifact.file(ONNX_FILE), tmp_path / "faulty" / ONNX_FILE, FILE_FAULTS[fault])
    list_files(tmp_path / "faulty", ONNX_FILE, ONNX_DATA_FILE)
    report = lx.verify(f"{tmp_path / 'faulty'}@openvino")
    assert not report.passed


def test_half_precision_is_computed_in_float32_and_proven_by_the_emulator(exports: Exports) -> None:
    for precision in ("fp16", "bf16"):
        made = exports.lively("onnx", TASK, TINY, precision=precision)
        report = lx.verify(f"{made.path}@openvino")
        assert report.passed, report.summary()
        assert {cell.arithmetic for cell in report.cells if cell.kind == "reference"} == {
            "cpu-fp32-arithmetic", "emulated",
        }  # fmt: skip


@pytest.mark.quick
def test_the_runtime_is_chosen_by_name(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for(TASK).items()}
    results = []
    for runner in (
        lx.load_artifact(artifact.path),
        lx.load_artifact(artifact.path, runtime="openvino"),
        lx.load_artifact(f"{artifact.path}@openvino"),
    ):
        with runner:
            results.append(runner.run(inputs)["question_answering_score"])
    assert not np.array_equal(results[0], results[1]) and np.array_equal(results[1], results[2])
    assert np.allclose(results[0], results[1], atol=1e-4)
    assert open_named(f"{artifact.path}@onnxruntime") == open_artifact(artifact.path)
    shutil.copytree(artifact.path, tmp_path / "mine@openvino")  # an existing path is a path
    assert open_named(tmp_path / "mine@openvino").runtime.name == "onnxruntime"
    chosen = open_named(tmp_path / "mine@openvino@openvino")
    assert (chosen.name, chosen.runtime.name) == ("mine@openvino@openvino", "openvino")


def test_two_directories_of_one_name_are_told_apart(artifact: Artifact, tmp_path: Path) -> None:
    for place in ("a", "b"):
        shutil.copytree(artifact.path, tmp_path / place / "out")
    named = [f"{tmp_path / place / 'out'}@openvino" for place in ("a", "b")]
    assert [facts.name for facts in check_here(named, laws=False).runners] == named


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "onnx@tensorflow",
            "onnx: no runtime 'tensorflow' runs ONNX artifacts: choose onnxruntime, openvino, openvino-bf16, cuda",
        ),
        ("onnx@", "onnx: no runtime '' runs ONNX artifacts"),
        ("tflite@openvino", "tflite: no runtime 'openvino' runs TFLite artifacts: choose litert"),
        ("onnx@openvino@openvino", "onnx@openvino@openvino: names two runtimes"),
        ("nothing@openvino", "nothing: not an artifact directory (there is none of that name)"),
        ("@openvino", "@openvino: not an artifact directory"),
    ],
)
def test_an_unknown_runtime_is_one_line(name: str, said: str, exports: Exports, tmp_path: Path) -> None:
    for target in ("onnx", "tflite"):
        if name.startswith(target):
            (tmp_path / target).symlink_to(exports.lively(target, TASK, TINY).path)
    for command in (["verify", name], ["parity", name], ["ask", name, "why?", "--image", "a.png"]):
        refused(run(*command, cwd=tmp_path), said)


def test_what_it_does_not_have_is_one_line(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{artifact.path}@openvino"
    with pytest.raises(InputError, match="is for ONNX artifacts in onnxruntime, and this one runs in openvino"):
        lx.load_artifact(name, providers=["CUDAExecutionProvider"])
    with pytest.raises(ArtifactError, match="read with onnxruntime alone: leave @openvino out"):
        compiled_points(name)
    without(monkeypatch, "openvino")
    with pytest.raises(
        MissingExtra, match=r"^running ONNX artifacts in openvino needs the extra 'openvino': pip install"
    ):
        lx.load_artifact(name)


def compiled_points(name: str) -> None:
    from lxmert_export.runners.intermediates import check_visible

    check_visible(open_named(name))


def test_a_file_that_openvino_cannot_load_is_one_line(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / ONNX_FILE).write_bytes(b"\x08\x08")
    with pytest.raises(ArtifactError, match="OpenVINO cannot load it: ") as caught:
        compiled.OpenVinoRunner(tmp_path / ONNX_FILE, artifact.manifest.signature, artifact.manifest.limits)
    assert "\n" not in str(caught.value) and "src/" not in str(caught.value)


def test_its_telemetry_is_never_imported(artifact: Artifact) -> None:
    program = (
        "import sys; import lxmert_export as lx\n"
        f"lx.load_artifact({str(artifact.path)!r}, runtime='openvino').close()\n"
        "import openvino.tools.ovc.telemetry_utils as telemetry\n"
        "print(telemetry.tm.__name__, 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


# bf16


def computes_bf16() -> bool:
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_bf16_is_computed_by_the_cpu_or_not_run(artifact: Artifact) -> None:
    """On a CPU with bf16 the runtime itself is judged; on another one nothing passes."""
    if computes_bf16():
        report = lx.verify(f"{artifact.path}@openvino-bf16")
        assert report.passed and {cell.arithmetic for cell in report.cells} == {"native"}
        return
    with pytest.raises(BuiltNotRun, match="has no bf16 arithmetic, which needs AVX512_BF16 or AMX: run it @openvino"):
        lx.verify(f"{artifact.path}@openvino-bf16")
    report = check_here([artifact.path, f"{artifact.path}@openvino-bf16"], laws=False)
    assert [report.status_of(facts.name) for facts in report.runners] == ["pass", "built-not-run"]


def test_a_runtime_that_computes_in_float32_instead_is_refused(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What OpenVINO is told is a hint: the layers of the compiled model say what it does."""
    manifest = artifact.manifest
    monkeypatch.setitem(compiled.HINTS, "bf16", "f32")
    compiled.OpenVinoRunner(artifact.file(ONNX_FILE), manifest.signature, manifest.limits, computed="bf16").close()
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "HINTS", {"fp32": "f32", "bf16": "f16"})
    with pytest.raises(ArtifactError, match=r"OpenVINO computes (\d+) in f32 of \1 matrix multiplications, not bf16"):
        compiled.OpenVinoRunner(artifact.file(ONNX_FILE), manifest.signature, manifest.limits, computed="bf16")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_bf16_of_a_half_precision_file_is_refused(precision: str, exports: Exports) -> None:
    made = exports.lively("onnx", TASK, TINY, precision=precision)
    with pytest.raises(ArtifactError, match=f"openvino-bf16 runs fp32 artifacts, and this is {precision}"):
        lx.verify(f"{made.path}@openvino-bf16")


class Disturbed(Runner):
    """The emulator in bf16, in the place of a CPU that computes in bf16; its results are disturbed by a share of their size."""

    def __init__(self, artifact: Artifact, share: float) -> None:
        super().__init__(artifact.name, artifact.manifest.signature, artifact.manifest.limits)
        self.inner, self.share = open_emulator(artifact), share

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.inner.compute(inputs)
        noise = np.random.default_rng(0)
        return {
            name: (values + self.share * values.std() * noise.standard_normal(values.shape)).astype(values.dtype)
            for name, values in outputs.items()
        }

    def release(self) -> None:
        self.inner.close()


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Gives this machine a CPU with bf16, whose results are disturbed."""

    def put(share: float) -> None:
        def opened(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
            return Disturbed(artifact, share)

        row = TARGETS["onnx"]
        runtimes = tuple(
            replace(one, opens=Function("a test", (), opened), finds=None) if one.rounds else one
            for one in row.other_runtimes
        )
        monkeypatch.setitem(TARGETS, "onnx", replace(row, other_runtimes=runtimes))

    return put


@pytest.mark.parametrize("judged_by", ["golden file", "checkpoint"])
def test_bf16_is_judged_native_by_bf16s_own_floor(
    judged_by: str, artifact: Artifact, checkpoint: Path, with_bf16: Callable[[float], None]
) -> None:
    with_bf16(0.0)
    report = check_here(
        [f"{artifact.path}@openvino-bf16"], checkpoint=checkpoint if judged_by == "checkpoint" else None
    )
    assert report.passed, report.summary()
    (facts,) = report.runners
    assert (facts.precision, facts.runtime) == ("bf16", "openvino-bf16")
    assert facts.settings == ("its fp32 file is computed in bf16",)
    arithmetics = {cell.arithmetic for cell in report.cells if cell.kind == "reference"}
    assert arithmetics == ({"native", "emulated"} if judged_by == "checkpoint" else {"native"})
    told = any("its noise floor is the emulator's error of its graph" in note for note in report.notes)
    assert told == (judged_by == "golden file")


@pytest.mark.parametrize("judged_by", ["golden file", "checkpoint"])
def test_bf16_that_is_wrong_fails(
    judged_by: str, artifact: Artifact, checkpoint: Path, with_bf16: Callable[[float], None]
) -> None:
    with_bf16(0.3)
    report = check_here(
        [f"{artifact.path}@openvino-bf16"], checkpoint=checkpoint if judged_by == "checkpoint" else None, laws=False
    )
    assert {cell.arithmetic for cell in report.failures if cell.kind == "reference"} == {"native"}


def test_bf16_of_a_file_that_failed_in_float32_proves_nothing(
    artifact: Artifact, with_bf16: Callable[[float], None]
) -> None:
    with_bf16(0.0)
    failed = replace(artifact.manifest, parity={**(artifact.manifest.parity or {}), "passed": False})
    chosen = replace(artifact, manifest=failed).in_runtime("openvino-bf16")
    from lxmert_export.artifact.golden import golden_of
    from lxmert_export.judging.by_golden import EmulatedFloors

    with pytest.raises(ArtifactError, match="did not pass its gate in fp32"):
        EmulatedFloors(chosen, golden_of(artifact)).run()


def test_reports_hold_the_runtime_and_earlier_reports_still_load(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(artifact.path)
    pages = ("--json", "report.json", "--markdown", "report.md")
    assert run("parity", "out", "out@openvino", "--no-laws", *pages, cwd=tmp_path).returncode == 0
    values = json.loads((tmp_path / "report.json").read_text())
    assert [facts["runtime"] for facts in values["runners"]] == ["onnxruntime", "openvino"]
    assert "openvino on CPU" in (tmp_path / "report.md").read_text()
    for facts in values["runners"]:
        del facts["runtime"], facts["device"]
    (tmp_path / "earlier.json").write_text(json.dumps(values))
    assert run("parity", "--from", "earlier.json", *pages[2:], cwd=tmp_path).returncode == 0


def test_its_emulator_rounds_as_that_of_a_bf16_file(exports: Exports) -> None:
    """The float32 file, emulated in bf16, and the emulated bf16 file differ where the file keeps float32 islands."""
    inputs = {name: tensor.numpy() for name, tensor in inputs_for(TASK).items()}
    wide, half = (exports.lively("onnx", TASK, TINY, precision=precision) for precision in ("fp32", "bf16"))
    with open_emulator(wide.in_runtime("openvino-bf16")) as one, open_emulator(half) as other:
        first, second = (runner.run(inputs)["question_answering_score"] for runner in (one, other))
    with lx.load_artifact(wide.path) as runner:
        exact = runner.run(inputs)["question_answering_score"]
    errors = [float(np.sqrt(np.mean((scores - exact) ** 2))) for scores in (first, second)]
    assert errors[0] > 0 and 1 / 3 < errors[0] / errors[1] < 3


def test_a_runtime_that_is_named_twice_is_one_line(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="names its runtime already"):
        lx.load_artifact(f"{artifact.path}@openvino", runtime="openvino")


def test_a_library_that_cannot_be_imported_is_one_line(artifact: Artifact, tmp_path: Path) -> None:
    """One of its files is damaged, or another module has its name."""
    (tmp_path / "openvino.py").write_text("raise ImportError('libopenvino.so: file too short')")
    done = subprocess.run(
        [sys.executable, "-m", "lxmert_export.cli", "verify", f"{artifact.path}@openvino"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    refused(done, "openvino is installed and cannot be imported: libopenvino.so: file too short; install it again")


def test_doctor_says_that_this_cpu_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    what = "run and verify ONNX artifacts @openvino-bf16"
    for reason in ("this CPU (old) has no bf16 arithmetic", None):
        lack = Lack(reason, "another CPU") if reason else None
        monkeypatch.setattr(compiled, "lacks_bf16", lambda lack=lack: lack)
        (found,) = [one for one in examine() if one.what == what]
        assert found.works is (reason is None) and (reason is None or found.detail.endswith(reason))


def test_bf16_of_which_no_product_is_shown_is_not_believed() -> None:
    """Without a matrix multiplication in sight, all of them would be in the right precision."""
    shown = SimpleNamespace(get_runtime_model=lambda: SimpleNamespace(get_ops=list))
    compiled._check_computes(shown, "fp32", Path("model.onnx"))
    with pytest.raises(ArtifactError, match="shows no matrix multiplication"):
        compiled._check_computes(shown, "bf16", Path("model.onnx"))
