"""onnxruntime's CUDA provider as a runtime of ONNX artifacts, on a GPU that is played by the CPU (``fixtures/stand_in_gpu``)."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE, Artifact, open_named
from lxmert_export.errors import InputError
from lxmert_export.runners.onnx.cuda.runner import MOST_SHAPES, CudaRunner
from lxmert_export.runners.onnx.cuda.session import CudaSettings
from lxmert_export.runners.opening import open_runner
from parity_tests.faults.onnx_faults import FILE_FAULTS, plant_in_file
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import list_files
from parity_tests.fixtures.random_models import TINY, lively_inputs
from parity_tests.fixtures.stand_in_gpu import CUDA, StandInGpu, put_gpu
from parity_tests.judging.test_threads import calls_of_several_shapes

TASK, ANSWERS = "question-answering", "question_answering_score"
FIXED = {"batch": 2, "text": 5, "objects": 3}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandInGpu:
    return put_gpu(monkeypatch)


@pytest.fixture
def artifact(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY)


@pytest.fixture
def fixed(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY, fixed=FIXED)


def calls_of(count: int, *, rows: int = 2) -> list[dict[str, Any]]:
    """Calls of one shape, with other inputs each."""
    drawn = [lively_inputs(TINY, seed=seed) for seed in range(count)]
    return [
        {name: tensor.numpy()[:rows, : 3 if name.startswith("visual") else 5] for name, tensor in tensors.items()}
        for tensors in drawn
    ]


def on_the_cpu(artifact: Artifact, calls: list[dict[str, Any]]) -> list[np.ndarray[Any, Any]]:
    with lx.load_artifact(artifact.path) as runner:
        return [runner.run(call)[ANSWERS] for call in calls]


# what it is told, and what it says


def test_it_passes_without_tf32_and_the_report_names_the_gpu(gpu: StandInGpu, artifact: Artifact) -> None:
    report = check_here([artifact.path, f"{artifact.path}@cuda"])
    assert report.passed, report.summary()
    assert gpu.told and all(told == {"use_tf32": "0", "enable_cuda_graph": "0"} for told in gpu.told)
    facts = report.runners[1]
    assert (facts.name, facts.runtime, facts.device, facts.precision) == ("out@cuda", "cuda", "GPU", "fp32")
    assert facts.settings == ("TF32 off",) and report.runners[0].gpu == {}
    assert facts.gpu == {
        "name": "NVIDIA H200", "capability": "9.0", "driver": "580.159.04", "cuda": "13.0",
        "onnxruntime": f"onnxruntime {onnxruntime.__version__}",
    }  # fmt: skip


def test_what_the_manifest_carries_for_the_provider_is_told_and_turns_tf32_on_for_nobody(
    gpu: StandInGpu, artifact: Artifact
) -> None:
    carried = {"provider_options": {CUDA: {"enable_skip_layer_norm_strict_mode": "1", "use_tf32": "1"}}}
    changed = replace(artifact, manifest=replace(artifact.manifest, options={**artifact.manifest.options, **carried}))
    open_runner(changed.in_runtime("cuda")).close()
    assert gpu.told == [{"enable_skip_layer_norm_strict_mode": "1", "use_tf32": "0", "enable_cuda_graph": "0"}]


def test_reports_hold_the_gpu_and_earlier_ones_still_load(gpu: StandInGpu, artifact: Artifact, tmp_path: Path) -> None:
    report = lx.verify(f"{artifact.path}@cuda")
    values = report.to_dict()
    assert values["runners"][0]["gpu"]["name"] == "NVIDIA H200"
    for facts in (values, {**values, "runners": [{k: v for k, v in values["runners"][0].items() if k != "gpu"}]}):
        (tmp_path / "report.json").write_text(json.dumps(facts))
        assert run("parity", "--from", "report.json", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("fault", ["swapped_query_and_key", "missing_half"])
def test_it_fails_a_faulty_file(fault: str, gpu: StandInGpu, artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(artifact.path, tmp_path / "faulty")
    plant_in_file(artifact.file(ONNX_FILE), tmp_path / "faulty" / ONNX_FILE, FILE_FAULTS[fault])
    list_files(tmp_path / "faulty", ONNX_FILE, ONNX_DATA_FILE)
    assert not lx.verify(f"{tmp_path / 'faulty'}@cuda").passed


def test_the_split_halves_run_on_it(gpu: StandInGpu, exports: Exports) -> None:
    made = exports.lively("onnx", TASK, TINY, split=True)
    calls = calls_of(1)
    with lx.load_artifact(made.path, runtime="cuda") as runner:
        assert np.allclose(runner.run(calls[0])[ANSWERS], on_the_cpu(made, calls)[0], atol=1e-5)
    assert len(gpu.told) == 2


# buffers, graphs, threads


def test_buffers_are_reused_and_bound_once_a_shape(gpu: StandInGpu, artifact: Artifact) -> None:
    calls = calls_of(3)
    with lx.load_artifact(artifact.path, runtime="cuda") as runner:
        answers = [runner.run(call)[ANSWERS] for call in calls]
        assert isinstance(runner, CudaRunner) and list(runner.first_calls) == ["batch 2, text 5, objects 3"]
    assert gpu.buffers == len(calls[0]) + 1 and gpu.runs == 3 and not gpu.captures
    for answer, wanted in zip(answers, on_the_cpu(artifact, calls), strict=True):
        assert np.allclose(answer, wanted, atol=1e-5)


def test_the_buffers_of_few_shapes_are_kept(gpu: StandInGpu, artifact: Artifact) -> None:
    whole = lively_inputs(TINY)
    with lx.load_artifact(artifact.path, runtime="cuda") as runner:
        for words in range(1, MOST_SHAPES + 3):
            call = {n: np.resize(t.numpy(), (1, words)) for n, t in whole.items() if not n.startswith("visual")}
            runner.run({**call, **{n: t.numpy()[:1] for n, t in whole.items() if n.startswith("visual")}})
        assert isinstance(runner, CudaRunner) and len(runner._calls) == MOST_SHAPES


@pytest.mark.parametrize("chosen", [None, True, False])
def test_a_call_of_fixed_axes_is_captured_once(chosen: bool | None, gpu: StandInGpu, fixed: Artifact) -> None:
    calls = calls_of(3)
    with lx.load_artifact(fixed.path, runtime="cuda", cuda_graph=chosen) as runner:
        answers = [runner.run(call)[ANSWERS] for call in calls]
    assert gpu.told == [{"use_tf32": "0", "enable_cuda_graph": str(int(chosen is not False))}]
    assert list(gpu.captures.values()) == ([] if chosen is False else [1])
    for answer, wanted in zip(answers, on_the_cpu(fixed, calls), strict=True):
        assert np.allclose(answer, wanted, atol=1e-5)


def test_a_shape_that_changes_after_capture_has_a_graph_of_its_own(gpu: StandInGpu, artifact: Artifact) -> None:
    """The tool captures calls of fixed axes alone, where the check of inputs refuses another shape; the runner itself is safe."""
    manifest, calls = artifact.manifest, [*calls_of(1), *calls_of(1, rows=1), *calls_of(2)]
    settings = CudaSettings(graph=True)
    with CudaRunner(artifact.file(ONNX_FILE), manifest.signature, manifest.limits, settings=settings) as runner:
        answers = [runner.run(call)[ANSWERS] for call in calls]
    assert list(gpu.captures.values()) == [1, 1]
    for answer, wanted in zip(answers, on_the_cpu(artifact, calls), strict=True):
        assert np.allclose(answer, wanted, atol=1e-5)


def test_another_shape_than_the_fixed_one_is_one_line(gpu: StandInGpu, fixed: Artifact) -> None:
    with lx.load_artifact(fixed.path, runtime="cuda") as runner:
        runner.run(calls_of(1)[0])
        with pytest.raises(InputError, match=r"input_ids has shape \[1, 5\]|must be|expected") as told:
            runner.run(calls_of(1, rows=1)[0])
    assert "\n" not in str(told.value)


def test_a_graph_of_dynamic_axes_is_refused(gpu: StandInGpu, exports: Exports) -> None:
    made = exports.lively("onnx", TASK, TINY, fixed={"text": 5})
    with pytest.raises(InputError, match="its axes batch, objects are dynamic: export it again with fixed, or"):
        lx.load_artifact(made.path, runtime="cuda", cuda_graph=True)
    with pytest.raises(
        InputError, match="onnxruntime has no CUDA graphs: leave (cuda_graph|a CUDA graph) out, or run it @cuda"
    ):
        lx.load_artifact(made.path, cuda_graph=True)


@pytest.mark.parametrize("kind", ["dynamic", "fixed", "two runners"])
def test_threads_get_their_own_answers_from_one_thread_on_the_gpu(
    kind: str, gpu: StandInGpu, artifact: Artifact, fixed: Artifact
) -> None:
    chosen = artifact if kind == "dynamic" else fixed
    calls = calls_of_several_shapes() if kind == "dynamic" else calls_of(6)
    wanted = on_the_cpu(chosen, calls)
    gpu.threads.clear()
    with ThreadPoolExecutor(4) as threads, lx.load_artifact(chosen.path, runtime="cuda") as one:
        other = lx.load_artifact(chosen.path, runtime="cuda") if kind == "two runners" else one
        order = np.random.default_rng(0).integers(len(calls), size=40)
        asked = [(one if place % 2 else other, number) for place, number in enumerate(order)]
        answers = list(threads.map(lambda pair: pair[0].run(calls[pair[1]])[ANSWERS], asked))
        other.close()
    assert all(np.allclose(got, wanted[n], atol=1e-5) for got, n in zip(answers, order, strict=True))
    assert len(gpu.threads) == 1 and threading.get_ident() not in gpu.threads and not gpu.overlapped
    assert all(count == 1 for count in gpu.captures.values())
    assert len(gpu.captures) == {"dynamic": 0, "fixed": 1, "two runners": 2}[kind]


# half precision


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_native_and_stands_beside_its_prediction(
    precision: str, gpu: StandInGpu, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gpu.rounds = exports.lively("onnx", TASK, TINY, precision=precision), precision
    report = lx.verify(f"{made.path}@cuda")
    assert report.passed and {cell.arithmetic for cell in report.cells} == {"native"}
    (row,) = report.predictions
    assert (row.runner, row.output) == ("out@cuda", ANSWERS) and row.ratio is not None and 0.8 < row.ratio < 1.25


def test_int8_is_not_claimed_to_be_multiplied_in_int8(gpu: StandInGpu, artifact: Artifact) -> None:
    from lxmert_export.judging.artifact import artifact_facts

    static = replace(artifact, manifest=replace(artifact.manifest, options={"quantization": "static"}))
    assert artifact_facts(static.in_runtime("cuda")).settings == (
        "TF32 off", "its int8 values are multiplied in float32",
    )  # fmt: skip


def test_its_name_is_chosen_as_others_are(gpu: StandInGpu, artifact: Artifact) -> None:
    assert open_named(f"{artifact.path}@cuda").runtime.name == "cuda"
    with pytest.raises(
        InputError, match="is for ONNX artifacts in onnxruntime, and this one runs in cuda: leave it out"
    ):
        lx.load_artifact(artifact.path, runtime="cuda", providers=[CUDA])


def test_inputs_of_one_shape_and_other_types_are_no_other_call(gpu: StandInGpu, artifact: Artifact) -> None:
    call = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    other = {name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in call.items()}
    with lx.load_artifact(artifact.path, runtime="cuda") as runner:
        first, second = runner.run(call), runner.run(other)
        assert np.array_equal(first[ANSWERS], second[ANSWERS]) and isinstance(runner, CudaRunner)
        assert len(runner._calls) == 1
