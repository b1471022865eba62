"""What can go wrong on a GPU: each case is one line that names it, and how to mend it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import lxmert_export as lx
from lxmert_export import extras
from lxmert_export.api.doctor import examine
from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.engines.gpus import Gpu
from lxmert_export.errors import ArtifactError, BuiltNotRun, ConversionError, MissingExtra
from lxmert_export.runners.onnx.cuda import libraries, opening
from lxmert_export.runners.onnx.cuda.libraries import why_it_failed, why_not_started
from lxmert_export.runners.onnx.cuda.runner import CudaRunner
from lxmert_export.runners.onnx.cuda.session import CudaSettings
from parity_tests.cuda.test_cuda import ANSWERS, FIXED, TASK, calls_of, on_the_cpu
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY
from parity_tests.fixtures.stand_in_gpu import CPU, CUDA, NOT_LOADED, Session, StandInGpu, put_gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandInGpu:
    return put_gpu(monkeypatch)


@pytest.fixture
def artifact(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY)


@pytest.fixture
def fixed(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY, fixed=FIXED)


def no_gpu() -> tuple[Gpu, ...]:
    raise ConversionError(
        "no NVIDIA GPU found here (there is no nvidia-smi): name the target instead (rtx builds without a GPU)"
    )


def test_without_a_gpu_it_is_not_run(gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_gpus", no_gpu)
    said = r"@cuda: no NVIDIA GPU found here \(there is no nvidia-smi\): run it on a machine with one$"
    for refuse in (lx.verify, lx.load_artifact):
        with pytest.raises(BuiltNotRun, match=said):
            refuse(f"{artifact.path}@cuda")
    report = check_here([artifact.path, f"{artifact.path}@cuda"])
    assert [report.status_of(facts.name) for facts in report.runners] == ["pass", "built-not-run"]
    assert report.passed and not gpu.told


def test_the_build_for_cpus_is_told(gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(MissingExtra) as told:
        lx.load_artifact(artifact.path, runtime="cuda")
    assert str(told.value) == (
        f"running ONNX artifacts in cuda (onnxruntime {onnxruntime.__version__} is the build for CPUs) needs the extra 'cuda': "
        "pip uninstall --yes onnxruntime && pip install 'lxmert-export[cuda]'"
    )


LIBRARIES = {
    "libcublasLt.so.13": r"cuBLAS \(libcublasLt\.so\.13\) is not found: pip install 'onnxruntime-gpu\[cuda,cudnn\]==",
    "libcudnn.so.9": r"cuDNN \(libcudnn\.so\.9\) is not found: pip install 'onnxruntime-gpu\[cuda,cudnn\]==",
    "libcudart.so.13": r"the CUDA runtime \(libcudart\.so\.13\) is not found: ",
    "libcuda.so.1": r"NVIDIA's driver \(libcuda\.so\) is not found: install it; a container needs the option --gpus all$",
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("runtime", ["@cuda", "--provider"])
def test_a_library_that_is_missing_is_one_line(
    library: str, runtime: str, gpu: StandInGpu, artifact: Artifact, capfd: pytest.CaptureFixture[str]
) -> None:
    gpu.missing = library
    chosen: dict[str, Any] = {"runtime": "cuda"} if runtime == "@cuda" else {"providers": [CUDA, CPU]}
    with pytest.raises(ArtifactError, match=f"could not start {CUDA}.*: {LIBRARIES[library]}") as told:
        lx.load_artifact(artifact.path, **chosen)
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")
    # PyTorch's own folder is looked at when NVIDIA's wheels are not there.
    assert gpu.preloaded[0] is None and len(gpu.preloaded) == 2 and str(gpu.preloaded[1]).endswith("torch/lib")


CUDA_ERRORS = {
    35: ("CUDA driver version is insufficient for CUDA runtime version", "the driver is too old for CUDA 13.0, for"),
    46: ("CUDA-capable device(s) is/are busy or unavailable", "the GPU is busy: another process has it for itself"),
    100: ("no CUDA-capable device is detected", "the driver finds no GPU"),
    209: ("no kernel image is available for execution on the device", "holds no machine code for this GPU"),
    999: ("unknown error", "CUDA failure 999: unknown error"),
}  # fmt: skip


@pytest.mark.parametrize("code", CUDA_ERRORS)
def test_an_error_of_the_driver_is_one_line(code: int, gpu: StandInGpu, artifact: Artifact) -> None:
    raised, said = CUDA_ERRORS[code]
    gpu.opening_raises = RuntimeError(
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:122 std::conditional_t<THRW, void, Status> CudaCall() "
        f"CUDA failure {code}: {raised} ; GPU=-1 ; hostname=here ; file=cuda_execution_provider.cc ; line=336 ; "
        "expr=cudaSetDevice(info_.device_id); \nand more"
    )
    with pytest.raises(ArtifactError, match=f"onnxruntime cannot load it on the GPU: .*{said}") as told:
        lx.load_artifact(artifact.path, runtime="cuda")
    assert "\n" not in str(told.value) and "cuda_call.cc" not in str(told.value)


MEMORY_ERRORS = {
    "arena": "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 1073741824",
    "driver": "CUDA failure 2: out of memory ; GPU=0 ; hostname=here ; expr=cudaMalloc((void**)&p, size);",
    "cuBLAS": "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);",
}


@pytest.mark.parametrize("kind", MEMORY_ERRORS)
def test_memory_that_does_not_suffice_is_one_line_with_the_sizes(
    kind: str, gpu: StandInGpu, artifact: Artifact
) -> None:
    """The runner goes on afterwards with a smaller call, and with the same call once there is room."""
    gpu.raises, calls = RuntimeError(MEMORY_ERRORS[kind]), calls_of(1)
    asked = r" \(1,024 MiB more were asked for\)" if kind == "arena" else ""
    with lx.load_artifact(artifact.path, runtime="cuda") as runner:
        with pytest.raises(
            ArtifactError,
            match=rf"the GPU's memory is too small for batch 2, text 5, objects 3{asked}: give fewer rows a call; nvidia-smi",
        ):
            runner.run(calls[0])
        assert isinstance(runner, CudaRunner) and not runner._calls
        assert np.allclose(runner.run(calls[0])[ANSWERS], on_the_cpu(artifact, calls)[0], atol=1e-5)


def test_a_failure_while_it_runs_is_one_line(gpu: StandInGpu, artifact: Artifact) -> None:
    gpu.raises = RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=x;\nmore")
    with (
        lx.load_artifact(artifact.path, runtime="cuda") as runner,
        pytest.raises(
            ArtifactError,
            match="failed on the GPU at batch 2, .*: CUDA failure 700: an illegal memory access was encountered$",
        ),
    ):
        runner.run(calls_of(1)[0])


def floats_of(artifact: Artifact, count: int) -> tuple[str, ...]:
    graph = onnx.load(artifact.file(ONNX_FILE), load_external_data=False).graph
    return tuple(node.name for node in graph.node if node.op_type == "Erf")[:count]


def test_nodes_that_fall_back_to_the_cpu_are_named(gpu: StandInGpu, artifact: Artifact) -> None:
    gpu.on_cpu = floats_of(artifact, 2)
    with pytest.raises(ArtifactError) as told:
        lx.load_artifact(artifact.path, runtime="cuda")
    message = str(told.value)
    assert "would compute 2 of its nodes on the CPU: it has no CUDA kernel for them in this precision: Erf " in message
    assert all(name in message for name in gpu.on_cpu) and "\n" not in message


def test_the_reason_of_onnxruntime_is_told(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the reason at the level of information alone, so the session is opened once more for it."""
    gpu.on_cpu = floats_of(artifact, 1)
    line = f"CUDA kernel not found in registries for Op type: Erf node name: {gpu.on_cpu[0]}\n"
    monkeypatch.setattr(
        onnxruntime, "set_default_logger_severity", lambda level: os.write(2, line.encode()) if level == 1 else None
    )
    with pytest.raises(
        ArtifactError, match=rf"1 of its nodes on the CPU: Erf {gpu.on_cpu[0]} \(no CUDA kernel\); export"
    ):
        lx.load_artifact(artifact.path, runtime="cuda")
    assert len(gpu.told) == 2


def test_arithmetic_of_sizes_may_stay_on_the_cpu_unless_a_graph_is_captured(
    gpu: StandInGpu, artifact: Artifact
) -> None:
    graph = onnx.load(artifact.file(ONNX_FILE), load_external_data=False).graph
    gpu.on_cpu = tuple(node.name for node in graph.node if node.op_type == "Shape")
    assert len(gpu.on_cpu) == 1
    with lx.load_artifact(artifact.path, runtime="cuda") as runner:
        runner.run(calls_of(1)[0])
    manifest = artifact.manifest
    with pytest.raises(
        ArtifactError, match="cannot be captured as a CUDA graph: 1 of its nodes run on the CPU, such as Shape"
    ):
        CudaRunner(artifact.file(ONNX_FILE), manifest.signature, manifest.limits, settings=CudaSettings(graph=True))


def test_onnxruntimes_refusal_of_a_graph_is_one_line(gpu: StandInGpu, fixed: Artifact) -> None:
    gpu.opening_raises = RuntimeError(
        "This session cannot use the graph capture feature as requested by the user  as all compute graph nodes have not been "
        "partitioned to the CUDAExecutionProvider"
    )
    with pytest.raises(
        ArtifactError, match="cannot be captured as a CUDA graph: onnxruntime runs nodes of it on the CPU"
    ):
        lx.load_artifact(fixed.path, runtime="cuda")


def test_an_onnxruntime_that_cannot_tell_where_nodes_run_is_refused(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Session, "get_provider_graph_assignment_info")
    with pytest.raises(ArtifactError, match="does not tell which nodes it leaves to the CPU: install 1.24 or later"):
        lx.load_artifact(artifact.path, runtime="cuda")


def test_an_environment_that_forces_tf32_is_refused(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(ArtifactError, match="NVIDIA_TF32_OVERRIDE=1 is set, which allows TF32 whatever a program says"):
        lx.load_artifact(artifact.path, runtime="cuda")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    lx.load_artifact(artifact.path, runtime="cuda").close()


def test_two_onnxruntimes_are_told_with_the_line_that_mends_it(
    gpu: StandInGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(extras, "version", lambda name: both[name])
    with pytest.raises(MissingExtra) as told:
        lx.load_artifact(artifact.path, runtime="cuda")
    assert str(told.value).endswith(
        "(onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed, and overwrite one another) needs the extra 'cuda': "
        "pip uninstall --yes onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1"
    )


def test_words_of_onnxruntime_that_are_not_known_are_told_as_they_are() -> None:
    assert why_not_started("") == "onnxruntime does not say why"
    assert (
        why_not_started("[0;93m2026 [W:onnxruntime:x, y] a warning\n[1;31m2026 [E:onnxruntime:x, y] it burns")
        == "it burns"
    )
    assert why_it_failed("first\nsecond") == "first"
    windows = 'with error: Error loading "C:\\onnxruntime_providers_cuda.dll" which depends on "cudnn64_9.dll" which is missing.'
    assert why_not_started(windows).startswith("cuDNN (cudnn64_9.dll) is not found: pip install")
    assert why_not_started(NOT_LOADED.format("libnew.so.1")).startswith("a library (libnew.so.1) is not found")


def test_the_command_line_tells_it_in_one_line(artifact: Artifact, tmp_path: Path) -> None:
    """On this machine itself, whatever it lacks."""
    if opening.lacks_gpu() is None:
        pytest.skip("this machine has a GPU")
    (tmp_path / "onnx").symlink_to(artifact.path)
    for command in (["verify", "onnx@cuda"], ["parity", "onnx@cuda"], ["bench", "onnx@cuda"]):
        refused(run(*command, cwd=tmp_path), "no NVIDIA GPU found here")


def test_doctor_says_what_a_gpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> Any:
        return next(one for one in examine() if one.what == "run and verify ONNX artifacts @cuda")

    put_gpu(monkeypatch)
    assert told().works and "NVIDIA H200, compute capability 9.0, driver 580.159.04, CUDA 13.0" in told().detail
    monkeypatch.setattr(opening, "find_gpus", no_gpu)
    assert (told().works, told().mend) == (False, "an NVIDIA GPU, and its driver")
    monkeypatch.setattr(libraries, "both_onnxruntimes", lambda: ("twice", "pip uninstall"))
    assert told().detail.endswith("; twice") and told().mend == "pip uninstall"
