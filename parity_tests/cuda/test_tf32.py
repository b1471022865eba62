"""TF32 as an arithmetic of its own: its floor, its emulator, and that nothing judged in it is called fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lxmert_export as lx
from benchmarks.full_size_checkpoint import full_size_config, lively_weights
from benchmarks.gpu.setting import SMALL
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.golden import at_sampled_positions, golden_of
from lxmert_export.checkpoint.write import write_checkpoint
from lxmert_export.errors import ArtifactError, BuiltNotRun
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.graphs import onnx_tf32
from lxmert_export.judging.artifact import record_runner
from lxmert_export.judging.held_out import HELD_OUT_FILE, read_held_out
from lxmert_export.parity.scores import errors
from lxmert_export.reference import tf32
from lxmert_export.reference.tf32 import RoundedProducts, runner_of
from lxmert_export.runners.onnx.cuda import opening
from lxmert_export.runners.onnx.cuda.session import CudaSettings
from lxmert_export.runners.opening import open_emulator
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.cuda.test_bad_input import no_gpu
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model
from parity_tests.fixtures.stand_in_gpu import StandInGpu, Value, put_gpu

H200 = Path(__file__).parents[2] / "benchmarks" / "gpu" / "h200"
TASK, ANSWERS = "question-answering", "question_answering_score"


@pytest.fixture
def artifact(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandInGpu:
    return put_gpu(monkeypatch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tf32") / "checkpoint"
    lx.save_checkpoint(lively_model(TASK, TINY), place)
    return place


@pytest.mark.quick
def test_both_round_to_the_nearest_number_of_ten_bits() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    values *= np.float32(2.0) ** np.random.default_rng(1).integers(-60, 60, len(values)).astype(np.float32)
    rounded = onnx_tf32.rounded_to_tf32(values)
    assert not (rounded.view(np.int32) & (2**13 - 1)).any()  # the 13 bits that TF32 lacks
    mantissa, exponent = np.frexp(values.astype(np.float64))
    nearest = np.ldexp(np.round(mantissa * 2**11), exponent - 11)
    assert np.array_equal(rounded.astype(np.float64), nearest)
    assert np.array_equal(tf32.rounded_to_tf32(torch.from_numpy(values)).numpy(), rounded)
    odd = torch.tensor([torch.inf, -torch.inf, 0.0, 1e38])
    assert torch.isfinite(tf32.rounded_to_tf32(odd)).tolist() == [False, False, True, True]
    assert tf32.rounded_to_tf32(torch.tensor(1.0, dtype=torch.float64)).dtype == torch.float64


class Products(nn.Module):
    """Every way in which LXMERT and users' modules multiply."""

    def forward(self, left: torch.Tensor, right: torch.Tensor, kind: str) -> torch.Tensor:
        if kind == "attention":
            return F.scaled_dot_product_attention(left[None], left[None], right.mT[None])[0]
        ways = {
            "linear": lambda: F.linear(left, right.mT, torch.ones(right.shape[-1])),
            "matmul": lambda: left @ right,
            "bmm": lambda: torch.bmm(left[None], right[None])[0],
            "einsum": lambda: torch.einsum("ij,jk->ik", left, right),
            "conv": lambda: F.conv1d(left.mT[None], right.mT[:, :, None])[0].mT,
        }
        return ways[kind]()


@pytest.mark.parametrize("kind", ["linear", "matmul", "bmm", "einsum", "conv"])
def test_every_product_reads_rounded_factors(kind: str) -> None:
    left, right = torch.randn(4, 6), torch.randn(6, 5)
    with torch.inference_mode(), RoundedProducts():
        found = Products()(left, right, kind)
    rounded = [tf32.rounded_to_tf32(factor).double() for factor in (left, right)]
    wanted = rounded[0] @ rounded[1] + (kind == "linear")
    assert torch.allclose(found.double(), wanted, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found.double(), left.double() @ right.double() + (kind == "linear"), rtol=1e-6, atol=1e-6)


def test_fused_attention_is_taken_apart() -> None:
    left, right = torch.randn(4, 6), torch.randn(6, 4)
    with torch.inference_mode():
        exact = Products()(left, right, "attention")
        with RoundedProducts():
            found = Products()(left, right, "attention")
    error = float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert 1e-5 < error < 3e-3


def test_the_emulator_and_the_canonical_model_round_alike(artifact: Artifact) -> None:
    """Two programs, one by onnxruntime and one by PyTorch: their errors are of one size, a thousand times fp32's."""
    inputs = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    model, signature, limits = lively_model(TASK, TINY), task_signature(TINY, TASK), InputLimits.of(TINY)
    found = {}
    for precision in ("fp64", "fp32", "tf32"):
        with runner_of(model, signature, limits, precision) as runner:
            found[precision] = runner.run(inputs)[ANSWERS].astype(np.float64)
    with open_emulator(artifact.in_runtime("cuda-tf32")) as runner:
        found["emulated"] = runner.run(inputs)[ANSWERS].astype(np.float64)
    errors = {name: float(np.sqrt(np.mean((scores - found["fp64"]) ** 2))) for name, scores in found.items()}
    assert 0.5 < errors["emulated"] / errors["tf32"] < 2 and errors["tf32"] > 300 * errors["fp32"]


# judged


def test_a_gpu_is_judged_by_tf32s_own_floor(gpu: StandInGpu, artifact: Artifact, checkpoint: Path) -> None:
    for judged_by in (checkpoint, None):
        report = check_here([f"{artifact.path}@cuda-tf32"], checkpoint=judged_by)
        assert report.passed, report.summary()
        (facts,) = report.runners
        assert (facts.name, facts.precision, facts.device) == ("out@cuda-tf32", "tf32", "GPU")
        assert facts.settings == ("its fp32 file is computed in tf32",) and facts.gpu["name"] == "NVIDIA H200"
        arithmetics = {cell.arithmetic for cell in report.cells if cell.kind == "reference"}
        assert arithmetics == ({"native", "emulated"} if judged_by else {"native"})
    assert all(told["use_tf32"] == "1" for told in gpu.told)


def test_tf32_where_fp32_was_asked_for_fails(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaSettings, "of_provider", property(lambda self: {}))  # as onnxruntime comes
    report = lx.verify(f"{artifact.path}@cuda")
    assert {cell.arithmetic for cell in report.failures if cell.kind == "reference"} == {"native"}


def test_results_that_are_further_off_than_tf32s_fail(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, noise = Value.numpy, np.random.default_rng(0)

    def disturbed(value: Value) -> np.ndarray[Any, Any]:
        array = given(value)
        return (array + 0.1 * array.std() * noise.standard_normal(array.shape)).astype(array.dtype)

    monkeypatch.setattr(Value, "numpy", disturbed)
    report = lx.verify(f"{artifact.path}@cuda-tf32")
    assert {cell.arithmetic for cell in report.failures if cell.kind == "reference"} == {"native"}


def test_without_a_gpu_the_emulator_is_judged_and_says_so(
    artifact: Artifact, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_gpus", no_gpu)
    report = check_here([artifact.path, f"{artifact.path}@cuda-tf32"], checkpoint=checkpoint)
    assert report.passed, report.summary()
    wide, narrow = report.runners
    assert (narrow.precision, narrow.device, narrow.gpu) == ("tf32", "CPU, emulated", {})
    own = [cell for cell in report.cells if cell.runner == narrow.name and cell.kind == "reference"]
    exact = {
        (cell.output, cell.family): cell
        for cell in report.cells
        if cell.runner == wide.name and cell.kind == "reference"
    }
    assert own and {cell.arithmetic for cell in own} == {"emulated"}
    for cell in own:
        assert cell.floor is not None and (other := exact[cell.output, cell.family].floor) is not None
        assert cell.floor > 100 * other or cell.family == "masked-row"  # whose floor is large in every precision
    with pytest.raises(
        BuiltNotRun, match="on a machine with one, or judge it by checkpoint, where the emulator stands in"
    ):
        lx.verify(f"{artifact.path}@cuda-tf32")
    with pytest.raises(BuiltNotRun, match="no NVIDIA GPU found here"):
        lx.load_artifact(artifact.path, runtime="cuda-tf32")
    required = check_here(
        [artifact.path, f"{artifact.path}@cuda-tf32"], checkpoint=checkpoint, require_targets=["onnx:fp32"]
    )
    assert (
        required.passed
        and not check_here([f"{artifact.path}@cuda-tf32"], checkpoint=checkpoint, require_targets=["onnx:fp32"]).passed
    )  # what is judged in TF32 is no proof of fp32


def test_a_half_precision_file_is_not_computed_in_it(gpu: StandInGpu, exports: Exports) -> None:
    made = exports.lively("onnx", TASK, TINY, precision="fp16")
    with pytest.raises(ArtifactError, match="cuda-tf32 runs fp32 artifacts, and this is fp16: run it @cuda"):
        lx.load_artifact(made.path, runtime="cuda-tf32")


def test_an_environment_that_forbids_it_is_refused(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(ArtifactError, match="NVIDIA_TF32_OVERRIDE=0 is set, which forbids TF32"):
        lx.load_artifact(artifact.path, runtime="cuda-tf32")


def test_the_built_in_checkpoint_has_its_floor() -> None:
    held_out = read_held_out(DEMO_DIRECTORY / HELD_OUT_FILE)
    ratio = held_out.floor("tf32").rms / held_out.floor("fp32").rms
    assert 300 < ratio < 30_000 and held_out.floor("tf32").rms < 3 * held_out.floor("fp16").rms


def test_the_emulator_predicts_what_a_gpu_measured(tmp_path: Path) -> None:
    """One NVIDIA H200, with TF32 as onnxruntime comes: its errors on the golden inputs of the small network."""
    task, config = "question-answering", full_size_config("question-answering").replace(**SMALL)
    write_checkpoint(lively_weights(config, task, 0), config, task, tmp_path / "checkpoint", dialect="hf")
    made = lx.export("onnx", tmp_path / "checkpoint", tmp_path / "onnx", task=task)
    golden, signature = golden_of(made), made.manifest.signature
    emulated = record_runner(
        lambda: open_emulator(made.in_runtime("cuda-tf32")), golden.samples, signature, lambda *_: None
    )
    computed = at_sampled_positions(emulated, golden)
    measured = json.loads((H200 / "small_network.json").read_text())["fp32"]["verify_cuda"]["worst"]
    assert len(measured) == 4
    for cell in measured:
        key = (cell["family"], cell["output"])
        ratio = cell["error_rms"] / errors(golden.reference[key], computed[key]).rms
        assert 0.8 < ratio < 1.25, (key, ratio)
