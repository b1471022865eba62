"""Decisions: a runner must answer the held-out questions as float64 does, and the report says how many answers are right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lxmert_export as lx
from lxmert_export.demo.words import WORLD, WORLD_FIELD
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.files import hub
from lxmert_export.files.hashing import sha256
from lxmert_export.judging.held_out import HELD_OUT_FILE, HeldOut, read_held_out, write_held_out
from lxmert_export.judging.own_inputs import decide_by_labels, read_own_inputs
from lxmert_export.parity.decisions import AnswerKey, decide, near_tie_margin, percent
from lxmert_export.parity.pages.junit import junit_xml
from lxmert_export.parity.pages.markdown import markdown_page
from lxmert_export.parity.pages.overview import failures_beside_cells
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import Floor
from lxmert_export.reference.gate import answer_held_out
from lxmert_export.spec.sample_inputs import Family, SampleInputs
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model

FLOOR = 0.01
MARGIN = near_tie_margin(FLOOR)
GENERATOR = np.random.default_rng(0)
# Rows whose two best scores are far apart, but for the last two: near-ties.
REFERENCE = GENERATOR.permuted(np.tile(np.arange(6.0), (20, 1)), axis=1)
REFERENCE[-2:] = [[0, 0, 0, 1, 1 + MARGIN / 2, 0], [0, 2, 2 - MARGIN / 3, 0, 0, 0]]
TRUE = REFERENCE.argmax(axis=1)
KEY = AnswerKey([REFERENCE[:12], REFERENCE[12:]], TRUE, np.arange(20) % 2, ("even", "odd"))


def decided(scores: NDArray[np.float64] | None) -> lx.Decisions:
    return decide("one", "native", None if scores is None else [scores[:12], scores[12:]], KEY, FLOOR)


def test_float64_s_own_answers_pass() -> None:
    found = decided(REFERENCE)
    assert found.passed and found.reason is None
    assert (found.total.questions, found.total.near_ties, found.total.agreed, found.total.correct) == (20, 2, 18, 20)
    assert {name: tally.questions for name, tally in found.families.items()} == {"even": 10, "odd": 10}


def test_a_flip_of_a_near_tie_is_counted_and_forgiven() -> None:
    scores = REFERENCE.copy()
    scores[-2, 3] += MARGIN
    found = decided(scores)
    assert found.passed and found.total.tied_flips == 1 and found.total.correct == 19


def test_a_near_tie_is_no_licence_for_a_third_answer() -> None:
    scores = REFERENCE.copy()
    scores[-2, 0] = 5
    assert not decided(scores).passed


def test_one_confident_flip_fails() -> None:
    scores = REFERENCE.copy()
    scores[0] = -scores[0]
    found = decided(scores)
    assert not found.passed and found.total.flips == 1 and "1 of 20 answers differ from float64's" in str(found.reason)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (None, "missing output"),
        (REFERENCE[:, :5], "another shape"),
        (np.where(np.arange(20)[:, None] == 4, np.nan, REFERENCE), "NaN or infinity"),
        (np.where(np.arange(20)[:, None] == 4, np.inf, REFERENCE), "NaN or infinity"),
    ],
    ids=["missing", "shape", "NaN", "infinity"],
)
def test_what_cannot_be_compared_fails(scores: NDArray[np.float64] | None, reason: str) -> None:
    found = decided(scores)
    assert not found.passed and reason in str(found.reason)
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_nothing_but_near_ties_is_no_pass() -> None:
    key = AnswerKey([REFERENCE[-2:]], TRUE[-2:], np.zeros(2, np.int64), ("only",))
    assert "nothing was compared" in str(decide("one", "native", [REFERENCE[-2:]], key, FLOOR).reason)


def test_only_all_of_them_are_100_percent() -> None:
    assert [percent(n, 10_000) for n in (10_000, 9_999, 0)] == ["100 %", "99.9 %", "0 %"]
    assert percent(0, 0) == "-"


def questions(checkpoint: Path) -> HeldOut:
    generator = np.random.default_rng(1)
    counts = generator.integers(2, 6, 12)
    ids = generator.integers(1, TINY.vocab_size, (60, 9))
    ids[np.arange(9) >= generator.integers(3, 10, (60, 1))] = 0
    return HeldOut(
        checkpoint_sha256=sha256(checkpoint / "model.safetensors"),
        families=("color", "count"),
        precisions=("fp32", "fp16", "bf16"),
        features=generator.integers(0, 256, (12, 5, TINY.visual_feat_dim)).astype(np.uint8),
        boxes=generator.integers(0, 257, (12, 5, 4)).astype(np.uint16),
        object_counts=counts,
        scene=generator.integers(0, 12, 60),
        input_ids=ids,
        family=np.arange(60) % 2,
        answer=generator.integers(0, TINY.num_qa_labels, 60),
    )


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that stands in for the built-in one, with held-out questions of its own."""
    place = tmp_path / "built-in"
    model = lively_model("pretraining", TINY)
    lx.save_checkpoint(model, place)
    write_held_out(place / HELD_OUT_FILE, answer_held_out(model, model.config, questions(place)))
    monkeypatch.setattr(hub, "DEMO_DIRECTORY", place)
    return place


def exported(checkpoint: Path, **options: object) -> ParityReport:
    task = {"task": "question-answering", **options}
    report = lx.export("onnx", checkpoint, checkpoint.parent / "artifact", overwrite=True, **task).report  # type: ignore[arg-type]
    assert report is not None
    return report


@pytest.mark.parametrize(("precision", "ways"), [("fp32", 1), ("fp16", 2), ("bf16", 1)])
def test_every_way_of_running_is_asked(precision: str, ways: int, checkpoint: Path) -> None:
    report = exported(checkpoint, precision=precision)
    assert report.passed and len(report.decisions) == ways
    assert all(found.passed and found.total.questions == 60 for found in report.decisions)
    assert {"scenes"} < {cell.family for cell in report.cells}
    assert "60 held-out questions: accuracy" in report.summary()
    told = report.to_dict()["decisions"]
    assert [one["agreement"] for one in told] == [1.0] * ways
    again = lx.verify(checkpoint.parent / "artifact")
    assert again.passed and len(again.decisions) == ways
    manifest = json.loads((checkpoint.parent / "artifact" / "manifest.json").read_text())
    assert manifest["parity"]["decisions"].keys() == {found.arithmetic for found in report.decisions}


@pytest.mark.parametrize("fixed", [{"batch": 7}, {"text": 12, "objects": 8}])
def test_fixed_axes_are_padded(fixed: dict[str, int], checkpoint: Path) -> None:
    report = exported(checkpoint, fixed=fixed)
    assert report.passed and report.decisions[0].total.questions == 60


def test_what_fixed_axes_have_no_room_for_is_told(checkpoint: Path) -> None:
    report = exported(checkpoint, fixed={"text": 4})
    assert report.passed and not report.decisions and "scenes" in report.families_not_run


def test_other_weights_and_other_tasks_are_not_asked(checkpoint: Path) -> None:
    assert not exported(checkpoint, task="model").decisions
    held_out = read_held_out(checkpoint / HELD_OUT_FILE)
    write_held_out(checkpoint / HELD_OUT_FILE, replace(held_out, checkpoint_sha256="0" * 64))
    assert not exported(checkpoint).decisions
    (checkpoint / HELD_OUT_FILE).unlink()
    assert not exported(checkpoint).decisions


def test_answers_in_another_order_fail_the_gate(checkpoint: Path) -> None:
    """The held-out file says what float64 answered: an artifact that answers otherwise is refused, and not written."""
    held_out = read_held_out(checkpoint / HELD_OUT_FILE)
    turned = replace(held_out, reference=np.roll(held_out.reference, 1, axis=1))
    write_held_out(checkpoint / HELD_OUT_FILE, turned)
    with pytest.raises(lx.ParityError) as caught:
        exported(checkpoint)
    report = caught.value.report
    assert not report.passed and not report.decisions[0].passed and "scenes" in {c.family for c in report.failures}
    # Without the score's own alarm the decisions alone would still refuse it.
    assert not replace(report, cells=tuple(c for c in report.cells if c.family != "scenes")).passed
    assert not (checkpoint.parent / "artifact").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda h: replace(h, scene=h.scene + 100),
        lambda h: replace(h, answer=h.answer[:-1]),
        lambda h: replace(h, reference=h.reference.astype(np.float32)),
        lambda h: replace(h, floors=h.floors * 0),
        lambda h: replace(h, input_ids=h.input_ids * 0),
        lambda h: replace(h, reference=h.reference * np.nan),
    ],
    ids=["scene", "answer", "dtype", "floor", "no words", "NaN"],
)
def test_parts_that_do_not_fit_are_not_written(change: object, checkpoint: Path, tmp_path: Path) -> None:
    held_out = read_held_out(checkpoint / HELD_OUT_FILE)
    with pytest.raises(ArtifactError, match="not held-out questions"):
        write_held_out(tmp_path / "file", change(held_out))  # type: ignore[operator]


def test_a_damaged_file_is_one_line(checkpoint: Path) -> None:
    exported(checkpoint)
    file = checkpoint / HELD_OUT_FILE
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ArtifactError, match="damaged held-out questions: .*install lxmert-export again") as caught:
        lx.verify(checkpoint.parent / "artifact")
    assert "\n" not in str(caught.value)


def test_a_demo_artifact_without_its_questions_says_so(checkpoint: Path) -> None:
    """A proof that went missing, because the package carries the questions of other weights by now, is told of."""
    model = lively_model("pretraining", TINY.replace(extra={WORLD_FIELD: WORLD}))
    report = lx.export("onnx", model, checkpoint.parent / "artifact").report
    assert report is not None and not report.decisions and report.families_not_run == ("scenes",)


# --- a user's own inputs, with labels


def labelled(directory: Path, labels: Any, **inputs: Any) -> Path:
    drawn = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    np.savez(directory / "val.npz", **{**drawn, **inputs}, labels=labels)
    return directory / "val.npz"


def test_own_inputs_with_labels_have_accuracy_and_flips(exports: Exports, tmp_path: Path) -> None:
    artifact, model = exports.lively("onnx", "question-answering", TINY), lively_model("question-answering", TINY)
    with torch.inference_mode():
        scores = model(**lively_inputs(TINY))["question_answering_score"]
    labels = scores.argmax(1).numpy()
    labels[0] = (labels[0] + 1) % scores.shape[1]  # the model errs here
    report = check_here([artifact.path, "canonical-fp32"], checkpoint=model, inputs=labelled(tmp_path, labels))
    assert report.passed, report.summary()
    assert [(one.runner, one.inputs, one.total.correct, one.total.flips) for one in report.decisions] == [
        ("out", "own", 2, 0), ("canonical-fp32", "own", 2, 0)
    ]  # fmt: skip
    assert "; 3 labelled own inputs: accuracy 66.6 % (float64 66.6 %), agreement 100 %" in report.summary()
    (tmp_path / "report.json").write_text(json.dumps(report.to_dict()))
    assert lx.judge_report(tmp_path / "report.json").to_dict() == report.to_dict()
    for page in (markdown_page(report.to_dict()), junit_xml(report.to_dict())):
        assert "labelled own inputs" in page


def test_own_answers_that_flip_fail() -> None:
    family = Family("own", ({"input_ids": np.ones((2, 2), np.int64)},), whole=True, labels=np.array([0, 1]))
    reference = {("own", "logits"): [np.array([[3.0, 0.0], [0.0, 3.0]])]}
    recording = {("own", "logits"): [np.array([[0.0, 3.0], [0.0, 3.0]], np.float32)]}
    floors = {("own", "logits"): Floor(1e-6, 1.0, 2, 4)}
    (decided,) = decide_by_labels(
        "x", "native", recording, reference, floors, SampleInputs((family,), ()), precision="fp32"
    )
    assert not decided.passed and (decided.total.flips, decided.total.correct, decided.total.reference_correct) == (
        1,
        1,
        2,
    )
    report = ParityReport((), decisions=(decided,))
    assert failures_beside_cells(report.to_dict())[0].startswith("x, labelled own inputs: 1 of 2 answers differ")


@pytest.mark.parametrize(
    ("labels", "saying"),
    [
        (np.zeros(2, np.int64), r"labels must hold .* each of 3 rows, not int64 \[2\]"),
        (np.zeros(3), r"not float64 \[3\]"),
        (np.array([0, 1, 99]), "labels holds 0 to 99; answers are numbered 0 to"),
    ],
)
def test_labels_that_do_not_fit_are_told(labels: Any, saying: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=saying):
        read_own_inputs(labelled(tmp_path, labels), task_signature(TINY, "question-answering"))
    with pytest.raises(InputError, match="the artifact gives no answers"):
        read_own_inputs(labelled(tmp_path, labels), task_signature(TINY, "model"))


def test_labels_alone_are_no_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "val.npz", labels=np.zeros(2, np.int64))
    with pytest.raises(InputError, match=r"val\.npz: missing input input_ids, visual_feats, visual_pos$"):
        read_own_inputs(tmp_path / "val.npz", task_signature(TINY, "question-answering"))
