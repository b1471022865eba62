"""Split ONNX artifacts: two halves that compute what the whole graph does, an image once for all questions about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from torch import Tensor, nn

import lxmert_export as lx
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE, QUESTION_FILE, VISION_FILE, Artifact
from lxmert_export.artifact.flops import flops_of
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from lxmert_export.runners.opening import open_emulator, open_runner
from lxmert_export.runners.split import SplitRunner, distinct_images
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch
from lxmert_export.spec.signature import TASKS, Signature, TensorSpec
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest, list_files
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.onnx.test_fp32_islands import FEWER

TASK = "question-answering"
FILES = (ONNX_FILE, VISION_FILE, QUESTION_FILE, ONNX_DATA_FILE)


@pytest.fixture
def split(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY, split=True)


def opened(artifact: Artifact) -> SplitRunner:
    runner = open_runner(artifact)
    assert isinstance(runner, SplitRunner)
    return runner


def whole(artifact: Artifact, precision: lx.Precision = "fp32") -> OnnxRuntimeRunner:
    manifest = artifact.manifest
    return OnnxRuntimeRunner(artifact.file(ONNX_FILE), manifest.signature, manifest.limits, precision=precision)


def drawn(signature: Signature, batch: int, *, seed: int = 0) -> Arrays:
    """Random inputs with ragged masks, of 7 words and 5 objects unless the signature says otherwise."""
    sizes = {"batch": batch, "text": 7, "objects": 5} | signature.fixed_sizes
    return draw_batch(FamilyKind(ragged=True), signature, TINY, sizes, np.random.default_rng(seed))


def repeated(inputs: Arrays, images: list[int]) -> Arrays:
    """Rows of several questions about a few images: ``images`` are the numbers of the rows' images."""
    rows = {name: array[images] for name, array in inputs.items() if name.startswith("visual_")}
    return {**{name: array[: len(images)] for name, array in inputs.items()}, **rows}


@pytest.mark.parametrize(
    ("task", "options"),
    [
        *((task, {}) for task in TASKS),
        ("pretraining", {"object_heads": True, "hidden_states": True}),
        (TASK, {"attention": "operator"}),
        (TASK, {"optimize_for": "cpu"}),
    ],
)
def test_the_halves_compute_what_the_whole_does(task: Any, options: Any, exports: Exports) -> None:
    artifact = exports.lively("onnx", task, TINY, split=True, **options)
    assert artifact.report is not None and artifact.report.passed
    inputs = repeated(drawn(artifact.manifest.signature, 5), [0, 1, 0, 2, 1])
    with opened(artifact) as runner, whole(artifact) as one:
        for name, expected in one.run(inputs).items():
            np.testing.assert_allclose(runner.run(inputs)[name], expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert lx.verify(artifact.path).passed


@pytest.mark.parametrize(
    ("precision", "options"),
    [("fp16", {}), ("bf16", {}), ("fp16", {"io_dtype": "float16"}), ("fp16", {"fp32_islands": "auto", **FEWER})],
)
def test_half_precision_is_split_too(precision: Any, options: Any, exports: Exports) -> None:
    """numpy has no bf16, so such states go from one half to the other in float32, which holds them exactly."""
    artifact = exports.lively("onnx", TASK, TINY, split=True, precision=precision, **options)
    assert artifact.report is not None and artifact.report.passed and artifact.halves is not None
    if not options:
        assert artifact.halves.states.dtype == ("float16" if precision == "fp16" else "float32")
    assert lx.verify(f"{artifact.path}@openvino").passed
    plain = exports.lively("onnx", TASK, TINY, precision=precision, **options)
    inputs = drawn(artifact.manifest.signature, 2)
    with open_emulator(artifact) as one, open_emulator(plain) as other:
        for name, expected in other.run(inputs).items():
            np.testing.assert_array_equal(one.run(inputs)[name], expected)


def test_int8_is_split_too(exports: Exports, tmp_path: Path) -> None:
    """Of what was measured on the small network's own inputs; its halves multiply the very integers of the whole.

    The gate of such halves: test_int8.
    """
    plain = exports.lively("onnx", TASK, TINY)
    batches = [drawn(plain.manifest.signature, 64, seed=seed) for seed in range(4)]
    np.savez(tmp_path / "real.npz", **{n: np.concatenate([one[n] for one in batches]) for n in batches[0]})  # type: ignore[arg-type]
    artifact = lx.export(
        "onnx", lively_model(TASK, TINY), tmp_path / "out", precision="int8", int8_range="7bit", split=True,
        calibration=tmp_path / "real.npz", parity=False,
    )  # fmt: skip
    assert artifact.halves is not None
    inputs = repeated(drawn(artifact.manifest.signature, 5), [0, 1, 0, 2, 1])
    with opened(artifact) as runner, whole(artifact, "int8") as one:
        for name, expected in one.run(inputs).items():
            np.testing.assert_allclose(runner.run(inputs)[name], expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_an_image_is_computed_once(split: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(split.manifest.signature, 5)
    shared = repeated(inputs, [2, 0, 2, 2, 0])
    with opened(split) as runner:
        seen: list[int] = []
        compute = runner.vision.compute

        def counting(given: Arrays) -> Arrays:
            seen.append(len(given["visual_feats"]))
            return compute(given)

        monkeypatch.setattr(runner.vision, "compute", counting)
        together = runner.run(shared)
        assert seen == [2]
        alone = [runner.run({name: array[row : row + 1] for name, array in shared.items()}) for row in range(5)]
        assert seen == [2, 1, 1, 1, 1, 1]
        for name, output in together.items():
            np.testing.assert_allclose(output, np.concatenate([one[name] for one in alone]), rtol=0, atol=1e-5)
        runner.run(inputs)
        assert seen[-1] == 5


def test_the_halves_are_run_by_themselves(split: Artifact) -> None:
    inputs = drawn(split.manifest.signature, 3)
    with opened(split) as runner:
        seen = {name: array[:1] for name, array in inputs.items() if name.startswith("visual_")}
        states = runner.vision.run(seen)["object_states"]
        assert states.shape == (1, seen["visual_feats"].shape[1], TINY.hidden_size)
        asked = {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "token_type_ids": inputs["token_type_ids"],
            "visual_attention_mask": np.repeat(seen["visual_attention_mask"], 3, axis=0),
            "object_states": np.repeat(states, 3, axis=0),
        }
        answers = runner.question.run(asked)["question_answering_score"]
        expected = runner.run(repeated(inputs, [0, 0, 0]))["question_answering_score"]
        np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-6)
    assert runner.question.manifest == split.manifest
    for half in (runner, runner.vision, runner.question):
        with pytest.raises(ArtifactError, match="is closed"):
            half.run(inputs)


def test_rows_are_the_same_image_only_if_every_byte_is() -> None:
    feats = np.zeros((4, 2, 100), np.float32)
    feats[2, 1, 99] = 1e-30
    images = {"visual_feats": feats, "visual_pos": np.zeros((4, 2, 4), np.float32)}
    found = distinct_images(images)
    assert found is not None and found.tolist() == [0, 0, 2, 0]
    images["visual_pos"][3] = 1.0
    found = distinct_images(images)
    assert found is not None and found.tolist() == [0, 0, 2, 3]
    images["visual_pos"][1] = np.nan
    assert distinct_images(images) is None


def test_a_fixed_batch_and_extra_outputs_are_split_too(exports: Exports) -> None:
    artifact = exports.lively(
        "onnx",
        "model",
        TINY,
        split=True,
        fixed={"batch": 2, "text": 5, "objects": 3},
        hidden_states=True,
        attentions=True,
    )
    assert artifact.halves is not None and artifact.halves.states.name == f"vision_hidden_states.{TINY.r_layers - 1}"
    inputs = repeated(drawn(artifact.manifest.signature, 2), [0, 0])
    with opened(artifact) as runner, whole(artifact) as one:
        for name, expected in one.run(inputs).items():
            np.testing.assert_allclose(runner.run(inputs)[name], expected, rtol=0, atol=1e-5)


def test_threads_share_it(split: Artifact) -> None:
    calls = [drawn(split.manifest.signature, 1 + seed % 3, seed=seed) for seed in range(8)]
    with opened(split) as runner, ThreadPoolExecutor(4) as pool:
        expected = [runner.run(call) for call in calls]
        for number, found in enumerate(pool.map(runner.run, calls * 10)):
            for name, array in found.items():
                np.testing.assert_array_equal(array, expected[number % 8][name])


def test_the_halves_share_the_weights_and_their_operations_are_those_of_the_whole(split: Artifact) -> None:
    assert sorted(name for name in split.manifest.files if name.endswith((".onnx", ".data"))) == sorted(FILES)
    flops = flops_of(split)
    assert flops == split.manifest.flops and flops["vision"] + flops["question"] == flops["file"]
    assert "for the images" in run("inspect", str(split.path), cwd=split.path.parent).stdout


def changed(split: Artifact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(split.path, tmp_path / "changed"))


def _twice(place: Path, other: Path) -> None:
    model = onnx.load(place / VISION_FILE, load_external_data=False)
    model.graph.initializer.append(model.graph.initializer[0])
    (place / VISION_FILE).write_bytes(model.SerializeToString())


def _shadow_an_input(place: Path, other: Path) -> None:
    """onnxruntime would take the input for a constant, and run without what the user gives."""
    for file in (ONNX_FILE, VISION_FILE):
        model = onnx.load(place / file, load_external_data=False)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), "visual_pos"))
        (place / file).write_bytes(model.SerializeToString())


def _move_a_weight(place: Path, other: Path) -> None:
    model = onnx.load(place / VISION_FILE, load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.external_data)
    next(entry for entry in tensor.external_data if entry.key == "offset").value = "0"
    (place / VISION_FILE).write_bytes(model.SerializeToString())


def _swap(place: Path, other: Path) -> None:
    (place / VISION_FILE).rename(place / "kept")
    (place / QUESTION_FILE).rename(place / VISION_FILE)
    (place / "kept").rename(place / QUESTION_FILE)


def _take_foreign(place: Path, other: Path) -> None:
    shutil.copy(other / VISION_FILE, place / VISION_FILE)


def _lose_a_node(place: Path, other: Path) -> None:
    model = onnx.load(place / QUESTION_FILE, load_external_data=False)
    del model.graph.node[-1]
    (place / QUESTION_FILE).write_bytes(model.SerializeToString())


def _change_a_node(place: Path, other: Path) -> None:
    model = onnx.load(place / QUESTION_FILE, load_external_data=False)
    next(node for node in model.graph.node if node.op_type == "Add").op_type = "Sub"
    (place / QUESTION_FILE).write_bytes(model.SerializeToString())


def _change_a_weight(place: Path, other: Path) -> None:
    model = onnx.load(place / VISION_FILE, load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.raw_data)
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    (place / VISION_FILE).write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("fault", "file"),
    [
        (_swap, VISION_FILE),
        (_take_foreign, VISION_FILE),
        (_lose_a_node, f"{VISION_FILE} and {QUESTION_FILE} lack a part of"),
        (_change_a_node, QUESTION_FILE),
        (_change_a_weight, VISION_FILE),
        (_move_a_weight, VISION_FILE),
        (_twice, "holds names that are there twice"),
        (_shadow_an_input, "holds names that are there twice: visual_pos"),
    ],
)
def test_halves_that_do_not_belong_together_are_refused(
    fault: Any, file: str, split: Artifact, exports: Exports, tmp_path: Path
) -> None:
    """Even by one who writes their hashes into the manifest."""
    place = changed(split, tmp_path)
    fault(place, exports.lively("onnx", TASK, TINY, split=True, fixed={"batch": 2}).path)
    refused(
        run("verify", str(place), cwd=tmp_path),
        ".onnx has ",
    )
    list_files(place, ONNX_FILE, VISION_FILE, QUESTION_FILE)
    refused(
        run("verify", str(place), cwd=tmp_path), file if " " in file else f"{file} is not that half of its model.onnx"
    )


def test_a_half_that_the_manifest_does_not_list_is_refused(split: Artifact, exports: Exports, tmp_path: Path) -> None:
    place = changed(split, tmp_path)
    files = {name: dict(facts) for name, facts in split.manifest.files.items() if name != VISION_FILE}
    edit_manifest(place, files=files)
    refused(run("verify", str(place), cwd=tmp_path), "vision.onnx is not listed in its manifest")
    plain = Path(shutil.copytree(exports.lively("onnx", TASK, TINY).path, tmp_path / "plain"))
    shutil.copy(split.path / VISION_FILE, plain)
    refused(run("verify", str(plain), cwd=tmp_path), "vision.onnx is not listed in its manifest")


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"vision_inputs": ["visual_feats", "bogus"]}, "take or give what the signature does not name"),
        ({"question_inputs": ["input_ids", "bogus"]}, "take or give what the signature does not name"),
        ({"vision_outputs": ["bogus"]}, "take or give what the signature does not name"),
        ({"vision_inputs": []}, "split.vision_inputs"),
        (
            {"states": {"name": "visual_feats", "dtype": "float32", "axes": ["batch"]}},
            "is the name of the states and of",
        ),
    ],
)
def test_a_manifest_that_names_other_halves_is_refused(
    change: Any, saying: str, split: Artifact, tmp_path: Path
) -> None:
    place = changed(split, tmp_path)
    options = split.manifest.options
    edit_manifest(place, options={**options, "split": {**options["split"], **change}})
    refused(run("verify", str(place), cwd=tmp_path), saying)


def test_what_is_not_split_says_so(exports: Exports) -> None:
    with open_runner(exports.lively("onnx", TASK, TINY)) as runner:
        for half in ("vision", "question"):
            with pytest.raises(ArtifactError, match="is not split: export it again with split=True"):
                getattr(runner, half)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("target", "options", "saying"),
    [
        ("onnx", {"single_file": True}, "split: both halves read the weights from one file beside them"),
        ("tensorflow", {}, "split: not an option of fp32 tensorflow"),
        ("tflite", {}, "split: not an option of fp32 tflite"),
    ],
)
def test_what_does_not_fit_is_refused(target: str, options: Mapping[str, Any], saying: str) -> None:
    with pytest.raises(ConversionError, match=saying):
        lx.export(target, "demo", split=True, **options)


class Own(nn.Module):
    """Answers with a name of its own. ``again``: of the images, its last layer reads features and states."""

    def __init__(self, output: str, *, again: bool = False) -> None:
        super().__init__()
        self.model, self.output, self.again = lively_model("model", TINY), output, again

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor) -> dict[str, Tensor]:
        pooled = self.model(input_ids, visual_feats, visual_pos).pooled_output
        return {self.output: pooled * visual_feats.mean(dim=(1, 2))[:, None] if self.again else pooled}


def own_signature(output: str) -> Signature:
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "text")),
        TensorSpec("visual_feats", "float32", ("batch", "objects", TINY.visual_feat_dim)),
        TensorSpec("visual_pos", "float32", ("batch", "objects", 4)),
    )
    return Signature("own", inputs, (TensorSpec(output, "float32", ("batch", TINY.hidden_size)),))


def test_a_module_of_ones_own_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is computed: rows of a module that nobody knows may depend on one another."""
    artifact = lx.export(
        "onnx", Own("object_states"), tmp_path / "out", signature=own_signature("object_states"), split=True
    )
    assert artifact.report is not None and artifact.report.passed
    assert artifact.halves is not None and artifact.halves.states.name == "object_states_"
    inputs = repeated(drawn(artifact.manifest.signature, 3), [0, 0, 0])
    with opened(artifact) as runner, whole(artifact) as one:
        compute, seen = runner.vision.compute, []
        monkeypatch.setattr(
            runner.vision, "compute", lambda given: seen.append(len(given["visual_feats"])) or compute(given)
        )
        for name, expected in one.run(inputs).items():
            np.testing.assert_allclose(runner.run(inputs)[name], expected, rtol=0, atol=1e-5)
        assert seen == [3]


def test_a_module_that_reads_the_features_again_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"cannot be split: .* read of the images \(visual_feats, visual_pos\)"):
        lx.export("onnx", Own("answer", again=True), tmp_path / "out", signature=own_signature("answer"), split=True)
    assert not (tmp_path / "out").exists()
