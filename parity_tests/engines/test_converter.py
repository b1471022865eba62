"""Engines built by TensorRT-RTX without a GPU: what they hold, that they are what they say, and what is refused.

None of them is run here: no test of this file says that an engine computes anything.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lxmert_export as lx
from converters import to_tensorrt
from converters.to_tensorrt import check_network, check_size, convert_to_tensorrt, read_network
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import ENGINE_FILE, ONNX_FILE, Artifact
from lxmert_export.artifact.facts import count_precisions
from lxmert_export.engines.devices import resolve
from lxmert_export.engines.gpus import INSTEAD, Gpu
from lxmert_export.engines.library import as_one_error, open_library
from lxmert_export.engines.on_device.build_and_verify import NOT_RUN, node_name
from lxmert_export.engines.profiles import Profile, call_sizes, make_profiles, pick_profile, pieces
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.engine import status_of
from lxmert_export.files.hashing import sha256
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from lxmert_export.spec.signature import ANSWER_OUTPUT, TASKS, Precision, Task
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.stand_ins import open_with
from parity_tests.fixtures.stress_models import outlier_model, rescale_residual_stream
from parity_tests.onnx.test_converter import every_output

FIXED = {"batch": ("2",), "text": ("6",), "objects": ("5",)}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


def built(source: Any, directory: Path, **options: Any) -> Artifact:
    return lx.build_engine(source, directory, compute_capability="8.9", **options)


# Every task in every precision with dynamic axes; every task and every precision once with fixed ones.
COMBINATIONS: list[tuple[Task, Precision, dict[str, Any]]] = [
    *((task, precision, {}) for task in TASKS for precision in PRECISIONS),
    ("model", "fp32", FIXED),
    ("pretraining", "fp16", FIXED),
    ("question-answering", "bf16", FIXED),
    ("nlvr2", "fp16", FIXED),
]


@pytest.mark.parametrize(
    ("task", "precision", "ranges"),
    COMBINATIONS,
    ids=lambda value: ("fixed" if value else "dynamic") if value in ({}, FIXED) else value,
)
def test_every_task_and_precision_parses_and_builds(
    task: Task, precision: Precision, ranges: dict[str, Any], exports: Exports, tmp_path: Path
) -> None:
    """With fixed axes the graph is exported anew, and not judged; with dynamic ones it is the one of onnx/test_converter."""
    judged = not ranges
    if judged:
        graph = exports.lively("onnx", task, TINY, precision=precision, **every_output(task, precision))
        artifact = built(graph.path, tmp_path / "out")
    else:
        artifact = built(lively_model(task, TINY), tmp_path / "out", precision=precision, parity=False, **ranges)
    manifest = lx.Manifest.from_dict(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert (manifest.target, manifest.precision, manifest.parity) == ("tensorrt", precision, None)
    options = manifest.options
    assert options["status"] == NOT_RUN
    assert set(options["build"]["matmuls"]) == set(options["build"]["matmul_weights"]) == {precision}
    assert options["build"]["tf32"] is False and options["build"]["flags"] == []
    assert manifest.signature.fixed_sizes == ({"batch": 2, "text": 6, "objects": 5} if ranges else {})
    if not judged:
        assert artifact.report is options["onnx"]["parity"] is None and options["predicted_errors"] == {}
        return
    assert artifact.report is None and options["onnx"]["parity"]["passed"]
    foretold = options["predicted_errors"]
    assert set(foretold) == ({spec.name for spec in manifest.signature.outputs} if precision != "fp32" else set())
    assert all(figures["status"] == "unvalidated" and figures["error_rms"] > 0 for figures in foretold.values())


def test_a_build_can_be_repeated_almost_to_the_byte(graph: Artifact, tmp_path: Path) -> None:
    """TensorRT-RTX 1.7 writes some hundred bytes of ten million otherwise now and then; what it parsed is the same."""
    one, other = (built(graph.path, tmp_path / name, batch=["1", "1:4:8"]) for name in ("one", "other"))
    engines = [np.fromfile(artifact.file(ENGINE_FILE), np.uint8) for artifact in (one, other)]
    assert len(engines[0]) == len(engines[1]) and (engines[0] != engines[1]).mean() < 1e-3
    assert one.manifest.options["build"] == other.manifest.options["build"]
    assert one.manifest.options["profiles"][1]["batch"] == [1, 4, 8]
    assert one.manifest.options["onnx"]["files"] == {
        name: graph.manifest.files[name]["sha256"] for name in ("model.onnx", "model.onnx.data")
    }
    assert sha256(one.file("golden.safetensors")) == sha256(graph.file("golden.safetensors"))


def test_an_engine_is_never_said_to_have_passed(graph: Artifact, exports: Exports) -> None:
    out = exports.engine(graph, compute_capability="8.9").path
    with pytest.raises(ArtifactError, match=r"built, not run \(no GPU\)"):
        lx.verify(out)
    with pytest.raises(ArtifactError, match=r"built, not run \(no GPU\)"):
        lx.load_artifact(out)
    rows = dict(summary_rows(inspect_artifact(out)))
    assert rows["status"] == NOT_RUN and "parity" not in rows
    assert rows["matmuls"].endswith("compute in fp16") and "passed" in rows["graph parity"]
    assert "batch 1:1:8, text 2:20:" in rows["profile 0"] and "softmax: 4 fp32" in rows["layers"]


def test_tf32_is_told_as_it_was_left(graph: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CreateConfigRTX leaves it on: what is not turned off is not said to be."""
    flags = to_tensorrt._set_flags

    def leaves_on(library: Any, config: Any) -> tuple[str, ...]:
        flags(library, config)
        config.set_flag(library.BuilderFlag.TF32)
        return ("TF32",) if config.get_flag(library.BuilderFlag.TF32) else ()

    monkeypatch.setattr(to_tensorrt, "_set_flags", leaves_on)
    engine = built(graph.path, tmp_path / "out")
    assert engine.manifest.options["build"]["tf32"] is True
    assert "TF32 on" in dict(summary_rows(inspect_artifact(engine.path)))["options"]


def test_a_timing_cache_is_read_and_kept(graph: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unexecuted: classic TensorRT alone has one. What Polygraphy is told is what is tested."""
    cache = str(tmp_path / "times")
    target = replace(resolve("rtx", precision="fp16"), options=lx.BuildOptions(timing_cache=cache))
    open_library(target.runtime, target.install)
    from polygraphy.backend import tensorrt_rtx, trt

    told: dict[str, Any] = {}
    create, build = tensorrt_rtx.CreateConfigRTX, trt.EngineBytesFromNetwork

    def creates(*, load_timing_cache: str, **arguments: Any) -> Any:
        told["load"] = load_timing_cache
        return create(**arguments)

    def builds(*arguments: Any, save_timing_cache: str) -> Any:
        told["save"] = save_timing_cache
        return build(*arguments)

    monkeypatch.setattr(tensorrt_rtx, "CreateConfigRTX", creates)
    monkeypatch.setattr(trt, "EngineBytesFromNetwork", builds)
    signature = graph.manifest.signature
    profiles = make_profiles(graph.manifest.config, signature)
    convert_to_tensorrt(
        graph.file("model.onnx"),
        signature,
        profiles,
        target,
        tmp_path,
        weights_size=graph.manifest.files["model.onnx.data"]["bytes"],
    )
    assert told == {"load": cache, "save": cache}


@pytest.mark.parametrize(
    ("found", "strip", "status"),
    [(Gpu((8, 9), "Some GPU", "1"), False, "built, not run yet: lxmert-export verify runs it"),
     (Gpu((12, 1), "Some GPU", "1"), False, "built, not run yet: lxmert-export verify runs it"),
     (Gpu((9, 0), "Some GPU", "1"), False, "built, not run (it is not for the GPU here: Some GPU, compute capability 9.0, "),
     (Gpu((8, 9), "Some GPU", "1"), True, "built, not run (it holds no weights): refit it first"),
     ("no NVIDIA GPU found here (there is no nvidia-smi)", False, NOT_RUN),
     ("nvidia-smi gave no answer within 20 seconds", False, "built, not run (nvidia-smi gave no answer within 20 seconds)")],
)  # fmt: skip
def test_an_engine_was_not_run_for_a_reason_that_was_asked_for(
    found: Gpu | str, strip: bool, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect() -> tuple[Gpu, ...]:
        if isinstance(found, str):
            raise ConversionError(f"{found}: {INSTEAD}")
        return (found,)

    monkeypatch.setattr("lxmert_export.exporting.engine.find_gpus", detect)
    assert status_of(replace(resolve("rtx"), options=lx.BuildOptions(strip=strip))).startswith(status)


class StandIn(OnnxRuntimeRunner):
    """What no GPU is needed for of an engine's runner: onnxruntime behind the engine's profiles."""

    profiles: tuple[Profile, ...] = ()

    def pieces(self, shapes: Any) -> list[int] | None:
        return pieces(self.profiles, call_sizes(shapes, self.signature))

    def compute(self, inputs: Any) -> Any:
        pick_profile(self.profiles, call_sizes({name: array.shape for name, array in inputs.items()}, self.signature))
        return super().compute(inputs)


def judged_by_stand_in(
    monkeypatch: pytest.MonkeyPatch, graph: Artifact, engine: Artifact, directory: Path, **ranges: Any
) -> lx.ParityReport:
    """``verify`` of an engine with the profiles of some ranges, as on a GPU that computed what onnxruntime does."""
    shutil.copytree(engine.path, directory)
    profiles = make_profiles(graph.manifest.config, graph.manifest.signature, **ranges)
    described = [profile.to_dict() for profile in profiles]
    edit_manifest(directory, options={**engine.manifest.options, "profiles": described})

    def opened(artifact: Artifact, providers: Any, threads: Any) -> StandIn:
        manifest = artifact.manifest
        runner = StandIn(graph.file(ONNX_FILE), manifest.signature, manifest.limits, precision="fp32", name="engine")
        runner.profiles = tuple(Profile.from_dict(values) for values in manifest.options["profiles"])
        return runner

    open_with(monkeypatch, "tensorrt", opened)
    return lx.verify(directory)


def test_an_engine_is_judged_inside_its_profiles(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are parted, held-out questions asked; families that no profile takes are told of, and nothing run fails."""
    graph = exports.demo("onnx", task="question-answering", attentions=True)
    engine = exports.engine(graph, compute_capability="8.9")
    report = judged_by_stand_in(monkeypatch, graph, engine, tmp_path / "default")
    assert report.passed and not report.families_not_run and report.decisions[0].total.questions == 1001
    report = judged_by_stand_in(monkeypatch, graph, engine, tmp_path / "narrow", batch=["1:2:4"], objects=["4:5:9"])
    assert report.passed and set(report.families_not_run) == {"one-object", "scenes"}
    assert {cell.samples for cell in report.cells if cell.output == ANSWER_OUTPUT and cell.kind == "reference"} == {16}
    report = judged_by_stand_in(monkeypatch, graph, engine, tmp_path / "nothing", objects=["50:50:60"])
    assert not report.passed and not report.cells


def test_precision_is_counted_not_believed(exports: Exports, tmp_path: Path) -> None:
    """An fp32 graph whose manifest says fp16 is caught twice over: by our reader, and by what TensorRT parsed."""
    shutil.copytree(exports.lively("onnx", "question-answering", TINY).path, tmp_path / "lying")
    edit_manifest(tmp_path / "lying", precision="fp16")
    with pytest.raises(ConversionError, match="its manifest says fp16 weights"):
        built(tmp_path / "lying", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_float32_matmul_outside_the_islands_is_refused(graph: Artifact, tmp_path: Path) -> None:
    """As the parsed network shows it: one node computes in float32 between two casts."""

    model = onnx.load(graph.file("model.onnx"))
    node = next(n for n in model.graph.node if n.op_type == "MatMul")
    place = list(model.graph.node).index(node)
    casts = [onnx.helper.make_node("Cast", [name], [f"{name}/wide"], to=onnx.TensorProto.FLOAT) for name in node.input]
    back = onnx.helper.make_node("Cast", [f"{node.output[0]}/wide"], [node.output[0]], to=onnx.TensorProto.FLOAT16)
    for number in range(2):
        node.input[number] = f"{node.input[number]}/wide"
    node.output[0] = f"{node.output[0]}/wide"
    model.graph.node.insert(place + 1, back)
    for cast in casts:
        model.graph.node.insert(place, cast)
    onnx.save(model, tmp_path / "planted.onnx")
    target = resolve("rtx", precision="fp16")
    open_library(target.runtime, target.install)
    from polygraphy.backend.trt import NetworkFromOnnxPath

    with as_one_error("planted"):
        _, network, _parser = NetworkFromOnnxPath(str(tmp_path / "planted.onnx"), strongly_typed=True)()
    facts = read_network(network)
    assert facts.float32_matmuls == (node.name,)
    with pytest.raises(ConversionError, match=f"in float32, which the graph's are not: {node.name}"):
        check_network(facts, "fp16", frozenset())
    check_network(facts, "fp16", frozenset({node.name}))


def test_islands_that_were_searched_may_be_float32_in_the_engine_and_nothing_else(tmp_path: Path) -> None:
    """Where a residual stream leaves fp16, the found islands hold matmuls: TensorRT shows just these in float32."""
    model = outlier_model("question-answering", TINY)
    rescale_residual_stream(model, 2.0**14)
    artifact = built(model, tmp_path / "out", precision="fp16", fp32_islands="auto")
    options = artifact.manifest.options
    assert artifact.report is not None and artifact.report.passed
    in_float32 = options["build"]["float32_matmuls"]
    assert in_float32 and set(in_float32) <= set(options["fp32_islands"])
    assert options["build"]["matmuls"] == {"fp16": options["build"]["matmuls"]["fp16"], "fp32": len(in_float32)}


def test_an_engine_of_wider_weights_than_it_says_is_too_large() -> None:
    """Sizes as TensorRT-RTX built them: 256 wide, fp16; the same kernels beside float32 weights; the published sizes."""
    half, weights = 18_121_060, 11_063_808
    rtx, classic = resolve("rtx", precision="fp16"), resolve("datacenter", precision="fp16")
    for target in (rtx, classic):
        check_size(half, weights, 71, 1, target)
        check_size(431_720_788, 413_856_882, 243, 1, target)
        with pytest.raises(
            ConversionError, match="845,577,670 bytes for 413,856,882 bytes of fp16 weights: it stores them"
        ):
            check_size(431_720_788 + 413_856_882, 413_856_882, 243, 1, target)
    with pytest.raises(ConversionError, match="of fp16 weights: it stores them in a wider precision"):
        check_size(half + weights, weights, 71, 1, rtx)
    check_size(23_614_548, 77_056, 35, 4, rtx)  # kernels for each of four profiles
    check_size(half + weights, weights, 71, 1, replace(rtx, options=lx.BuildOptions(strip=True)))


def test_layers_go_by_the_names_of_their_nodes() -> None:
    assert node_name("lxmert.pooler/MatMul [ONNX Layer: lxmert.pooler/MatMul]") == "lxmert.pooler/MatMul"
    assert node_name("plain") == "plain"
    assert node_name("a/Attention_AttentionOutput [ONNX Layer: a/Attention]") == node_name(
        "a/Attention_AttentionOutput"
    )
    assert node_name("a/Attention_AttentionOutput") == "a/Attention"
    assert count_precisions(["float16", "bfloat16", "float32"]) == {"fp16": 1, "bf16": 1, "fp32": 1}


@pytest.mark.parametrize("option", ["strip", "refit"])
def test_weightless_engines_are_refused_for_a_reason_that_still_holds(
    option: str, graph: Artifact, tmp_path: Path
) -> None:
    """Without a GPU this TensorRT-RTX cannot build one; the day it can, the refusal in ``engine_options`` has to go."""

    with pytest.raises(ConversionError, match=f"refuses --{option}: TensorRT-RTX builds such an engine only on a mach"):
        resolve("rtx", options=lx.BuildOptions(**{option: True}))
    target = replace(resolve("rtx", precision="fp16"), options=lx.BuildOptions(**{option: True}))
    signature = graph.manifest.signature
    profiles = make_profiles(graph.manifest.config, signature, batch=(), text=(), objects=())
    with pytest.raises(ConversionError, match="TensorRT cannot build the engine"):
        convert_to_tensorrt(graph.file("model.onnx"), signature, profiles, target, tmp_path, weights_size=1)


def test_the_command(graph: Artifact, tmp_path: Path) -> None:
    found = run(
        "tensorrt", str(graph.path), "-o", "out", "--compute-capability", "8.9", "--batch", "1:2:4", cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("wrote out (engine ") and found.stdout.rstrip().endswith(NOT_RUN)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    ((output, foretold),) = manifest["options"]["predicted_errors"].items()
    shown = f"{foretold['error_rms']:.2e} RMS, {foretold['error_max']:.2e} at most, on {foretold['inputs']} inputs (not measured)"
    assert f"predicted error on the GPU: {output} {shown}" in " ".join(found.stderr.split())
    inspected = run("inspect", "out", cwd=tmp_path)
    assert f"predicted error {output} {shown}" in " ".join(inspected.stdout.split())
    assert "[W]" not in found.stderr and "TRT" not in found.stderr
    verified = run("verify", "out", cwd=tmp_path)
    assert verified.returncode == 1 and NOT_RUN in verified.stderr and "passed" not in verified.stdout + verified.stderr
    as_json = run("verify", "out", "--json", cwd=tmp_path)
    told = json.loads(as_json.stdout)
    assert as_json.returncode == 1 and told["passed"] is False and NOT_RUN in told["summary"]
    assert [runner["status"] for runner in told["runners"]] == ["built-not-run"]


def copies_of_shared_weights(onnx_artifact: Artifact, engine: Artifact) -> dict[str, int]:
    """How often an engine holds the first row of each weight that the ONNX graph reads more than once."""
    model = onnx.load(onnx_artifact.file("model.onnx"))
    reads = Counter(name for node in model.graph.node if node.op_type == "MatMul" for name in node.input)
    stored = engine.file(ENGINE_FILE).read_bytes()
    return {
        weight.name: stored.count(onnx.numpy_helper.to_array(weight)[0].tobytes())
        for weight in model.graph.initializer
        if reads[weight.name] > 1
    }


def test_weights_that_two_matmuls_share_are_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT lays the weights of one input together: it stores them twice where two inputs read them in other orders."""
    model = lively_model("pretraining", TINY)

    def copies(name: str) -> dict[str, int]:
        graph = lx.export("onnx", model, tmp_path / name, precision="fp16", object_heads=True, parity=False)
        return copies_of_shared_weights(graph, built(graph.path, tmp_path / f"{name}-engine"))

    ordered = copies("ordered")
    assert len(ordered) >= 4 and set(ordered.values()) == {1}
    monkeypatch.setattr("converters.onnx.graph.order_shared_matmuls", lambda graph: None)
    assert 2 in copies("as-traced").values()
