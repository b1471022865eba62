"""Floors, scores, verdicts and sample inputs: small arrays with answers that can be worked out by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from lxmert_export.parity.cells import Cell, judge, judge_pair
from lxmert_export.parity.pages.terminal import print_report
from lxmert_export.parity.recording import Recording, record
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import (
    EPS,
    PAIR_THRESHOLD,
    THRESHOLD,
    Floor,
    errors,
    int8_floor,
    measure_floor,
    pair_score,
)
from lxmert_export.spec.sample_inputs import (
    FAMILY_KINDS,
    LEAST_SAMPLES,
    LEAST_VALUES,
    Family,
    SampleInputs,
    sample_inputs,
)
from lxmert_export.spec.signature import ANSWER_OUTPUT, TASKS, Signature, Task, TensorSpec, task_signature
from parity_tests.fixtures.random_models import SMALL

pytestmark = pytest.mark.quick

SIGNATURE = Signature("custom", (), (TensorSpec("out", "float32", ("batch", 4)),))
NO_SAMPLES = SampleInputs((Family("plain", ()),), ())
MIXED = ("fp32", "fp16")
FLOORS = {("plain", "out"): Floor(rms=0.1, reference_rms=1000.0, samples=16, values=64)}


def chunks(shift: float, rows: int = 16) -> list[np.ndarray]:
    return [np.full((rows, 4), 1 + shift, dtype=np.float32)]


AT_ONE: Recording = {("plain", "out"): chunks(0)}


def cells_of(got: Recording, **options: object) -> list[Cell]:
    return judge("x", got, {("plain", "out"): chunks(0)}, FLOORS, SIGNATURE, "native", precision="fp32")


def test_errors_are_pooled_over_batches() -> None:
    found = errors([np.zeros((1, 4)), np.zeros((3, 4))], [np.full((1, 4), 2.0), np.zeros((3, 4))])
    assert (found.rms, found.maximum, found.values) == (1.0, 2.0, 16)


def test_half_precision_is_widened_before_it_is_subtracted() -> None:
    far = errors([np.full(4, -60000, np.float16)], [np.full(4, 60000, np.float16)])
    assert far.rms == far.maximum == 120000


def test_a_floor_is_the_canonical_models_own_error() -> None:
    floor = measure_floor([np.ones((16, 4))], [np.full((16, 4), 1.25)], "fp32")
    assert floor == Floor(rms=0.25, reference_rms=1.0, samples=16, values=64)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_floor_is_at_least_four_eps(precision: str) -> None:
    assert measure_floor([np.full((16, 4), 3.0)], [np.full((16, 4), 3.0)], precision).rms == 12 * EPS[precision]
    assert EPS["fp32"] == np.finfo(np.float32).eps and EPS["fp16"] == np.finfo(np.float16).eps


def test_a_constant_never_passes_as_int8() -> None:
    """Answers far from zero that differ little from one another, as a sigmoid-trained head gives them."""
    generator = np.random.default_rng(0)
    signature = task_signature(SMALL.replace(num_qa_labels=300), "question-answering")
    reference = {("plain", ANSWER_OUTPUT): [generator.normal(-9, 1.5, (16, 300))]}
    floors = {key: int8_floor(chunks) for key, chunks in reference.items()}
    for constant in (-9.0, -7.0, 0.0):
        got = {key: [np.full((16, 300), constant, np.float32)] for key in reference}
        (cell,) = judge("int8", got, reference, floors, signature, "native", precision="int8", samples=NO_SAMPLES)
        assert cell.status == "FAIL"
    noise = {
        key: [(chunks[0] + generator.normal(0, 0.05, (16, 300))).astype(np.float32)]
        for key, chunks in reference.items()
    }
    assert (
        judge("int8", noise, reference, floors, signature, "native", precision="int8", samples=NO_SAMPLES)[0].status
        == "pass"
    )


def test_what_int8_chooses_for_a_masked_word_does_not_count() -> None:
    """Padding has the scores of no word; an int8 artifact of the demo that answers all questions right differs there alone."""
    generator = np.random.default_rng(0)
    signature = task_signature(SMALL, "pretraining")
    wanted = generator.normal(0, 3, (16, 4, SMALL.vocab_size))
    mask = np.tile([1, 1, 0, 0], (16, 1))
    samples = SampleInputs((Family("plain", ({"input_ids": mask, "attention_mask": mask},)),), ())
    place = ("plain", "prediction_logits")
    reference, floors = {place: [wanted]}, {place: int8_floor([wanted])}

    def turned(word: int) -> str:
        found = wanted.copy()
        best, second = np.argsort(wanted[:, word], axis=-1)[:, [-1, -2]].T
        rows = np.arange(16)
        found[rows, word, best], found[rows, word, second] = wanted[rows, word, second], wanted[rows, word, best]
        got = {place: [found.astype(np.float32)]}
        return judge("int8", got, reference, floors, signature, "native", precision="int8", samples=samples)[0].status

    assert (turned(2), turned(3)) == ("pass", "pass")
    assert (turned(0), turned(1)) == ("FAIL", "FAIL")


def test_score_is_error_over_floor() -> None:
    (cell,) = cells_of({("plain", "out"): chunks(0.3)})
    assert cell.status == "pass" and cell.score == pytest.approx(3.0, rel=1e-5)
    (worse,) = cells_of({("plain", "out"): chunks(0.1 * THRESHOLD * 1.01)})
    assert worse.status == "FAIL" and worse.reason is None


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        ({}, "missing output"),
        ({("plain", "out"): chunks(0, rows=15)}, "shape [15, 4], expected [16, 4]"),
        ({("plain", "out"): chunks(0) * 2}, "shape [16, 4], expected []"),
        ({("plain", "out"): [chunks(0)[0].astype(np.float64)]}, "dtype float64, expected float32"),
        ({("plain", "out"): chunks(float("nan"))}, "NaN or infinity"),
        ({("plain", "out"): chunks(float("inf"))}, "NaN or infinity"),
    ],
    ids=["missing", "shape", "batches", "dtype", "nan", "inf"],
)
def test_structure_is_judged_before_values(got: Recording, reason: str) -> None:
    (cell,) = cells_of(got)
    assert (cell.status, cell.reason, cell.score) == ("FAIL", reason, None)


def test_a_floor_that_is_no_number_never_passes() -> None:
    broken = {("plain", "out"): replace(FLOORS["plain", "out"], rms=float("nan"))}
    (cell,) = judge("x", AT_ONE, AT_ONE, broken, SIGNATURE, "native", precision="fp32")
    assert cell.status == "FAIL"
    json.dumps(ParityReport((cell,)).to_dict(), allow_nan=False)


def test_nothing_passes_by_an_infinite_floor() -> None:
    endless = {place: replace(floor, rms=float("inf")) for place, floor in FLOORS.items()}
    (cell,) = judge("x", {("plain", "out"): chunks(9)}, AT_ONE, endless, SIGNATURE, "native", precision="fp16")
    (pair,) = judge_pair(("a", "b"), (AT_ONE, {("plain", "out"): chunks(9)}), (endless, FLOORS), MIXED)
    assert cell.status == pair.status == "FAIL" and cell.reason == pair.reason == "its noise floor is not finite"


def test_an_output_that_is_zero_everywhere_has_pairs_too() -> None:
    none = {place: replace(floor, rms=0.0) for place, floor in FLOORS.items()}
    (same,) = judge_pair(("a", "b"), (AT_ONE, AT_ONE), (none, none), MIXED)
    (other,) = judge_pair(("a", "b"), (AT_ONE, {("plain", "out"): chunks(1e-9)}), (none, none), MIXED)
    assert (same.status, other.status) == ("pass", "pass")  # 1e-9 is none of float32's
    (other,) = judge_pair(("a", "b"), (AT_ONE, {("plain", "out"): chunks(0.1)}), (none, none), MIXED)
    assert other.status == "FAIL"


def test_choices_of_int8_are_not_counted_over_a_family_of_another_shape() -> None:
    generator = np.random.default_rng(0)
    signature = task_signature(SMALL, "question-answering")
    reference = {(family, ANSWER_OUTPUT): [generator.normal(0, 3, (16, 7))] for family in ("plain", "ragged")}
    floors = {key: int8_floor(chunks) for key, chunks in reference.items()}
    got = {key: [chunks[0].astype(np.float32)] for key, chunks in reference.items()}
    got["ragged", ANSWER_OUTPUT] = [got["ragged", ANSWER_OUTPUT][0].T.copy()]
    cells = judge("x", got, reference, floors, signature, "native", precision="int8", samples=NO_SAMPLES)
    assert [cell.status for cell in cells] == ["pass", "FAIL"]


def test_pairs_need_no_reference() -> None:
    other = {("plain", "out"): Floor(rms=0.2, reference_rms=1000.0, samples=16, values=64)}
    one, two = {("plain", "out"): chunks(0)}, {("plain", "out"): chunks(0.5)}
    (cell,) = judge_pair(("a", "b"), (one, two), (FLOORS, other), MIXED)
    assert cell.score == pytest.approx(0.5 / np.hypot(0.1, 0.2), rel=1e-5)
    assert pair_score(errors(one["plain", "out"], two["plain", "out"]), *FLOORS.values(), *other.values()) == cell.score
    (missing,) = judge_pair(("a", "b"), (one, {}), (FLOORS, other), MIXED)
    assert (missing.status, missing.reason) == ("FAIL", "missing from b")
    far = {("plain", "out"): chunks(PAIR_THRESHOLD)}
    assert judge_pair(("a", "b"), (one, far), (FLOORS, other), MIXED)[0].status == "FAIL"
    assert judge_pair(("a", "b"), (one, {("plain", "out"): chunks(0, 8)}), (FLOORS, other), MIXED)[0].status == "FAIL"
    assert judge_pair(("a", "b"), (one, {("plain", "out"): chunks(np.nan)}), (FLOORS, other), MIXED)[0].status == "FAIL"
    assert judge_pair(("a", "b"), (one, two), ({}, {}), ("fp32", "fp32"))[0].status == "FAIL"


def test_nothing_compared_is_no_pass() -> None:
    assert not ParityReport(()).passed
    assert "nothing was compared" in ParityReport(()).summary()


def test_the_cpus_float32_arithmetic_never_passes_alone() -> None:
    (cell,) = cells_of({("plain", "out"): chunks(0)})
    alone = replace(cell, arithmetic="cpu-fp32-arithmetic")
    assert not ParityReport((alone,)).passed
    assert "does not count alone" in ParityReport((alone,)).summary()
    assert ParityReport((alone, replace(cell, arithmetic="emulated"))).passed
    failed = replace(alone, status="FAIL")
    assert not ParityReport((failed, replace(cell, arithmetic="emulated"))).passed


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_report(width: int) -> None:
    good = cells_of({("plain", "out"): chunks(0.3)})[0]
    bad = replace(cells_of({})[0], runner="y[bold]")
    written = io.StringIO()
    print_report(ParityReport((good, bad), ("ragged",)), Console(file=written, width=width), verbose=True)
    text = " ".join(written.getvalue().split())
    for part in (
        "x against float64",
        "y[bold] against float64",
        "3.00",
        "pass",
        "FAIL",
        "parity FAILED",
        "ragged inputs",
    ):
        assert part in text
    assert "noise floor" in text and ("limit ┃" in text) is (width == 200)
    assert all(len(line) <= width for line in written.getvalue().splitlines())


@pytest.mark.parametrize("task", TASKS)
def test_sample_inputs_are_many_enough_seeded_and_lively(task: Task) -> None:
    signature = task_signature(SMALL, task)
    samples, again = sample_inputs(signature, SMALL), sample_inputs(signature, SMALL)
    assert [family.name for family in samples.families] == list(FAMILY_KINDS) and samples.not_run == ()
    for family, same in zip(samples.families, again.families, strict=True):
        for one, other in zip(family.batches, same.batches, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in one)
        assert max(family.rows) > 1
        for output in signature.outputs:
            kept = [n for n in range(len(family.batches)) if family.pools(n, output)]
            rows = sum(family.rows[n] for n in kept)
            values = sum(int(np.prod(output.shape({"batch": family.rows[n], "text": 2, "objects": 1}))) for n in kept)
            assert rows >= LEAST_SAMPLES and values >= LEAST_VALUES
    assert not np.array_equal(sample_inputs(signature, SMALL, seed=1).families[0].batches[0]["visual_feats"],
                              samples.families[0].batches[0]["visual_feats"])  # fmt: skip


def test_each_family_is_what_its_name_says() -> None:
    samples = sample_inputs(task_signature(SMALL, "model"), SMALL)
    batches = {family.name: family.batches for family in samples.families}
    assert all(b["attention_mask"].all() and not b["token_type_ids"].any() for b in batches["plain"])
    for batch in batches["ragged"]:
        assert len(set(batch["attention_mask"].sum(1))) > 1 and len(set(batch["visual_attention_mask"].sum(1))) > 1
        assert not batch["input_ids"][batch["attention_mask"] == 0].any()
    assert all(b["token_type_ids"].any() and not b["token_type_ids"].all() for b in batches["token-types"])
    assert all(b["visual_feats"].shape[1] == 1 for b in batches["one-object"])
    assert [b["input_ids"].shape for b in batches["two-tokens"]] == [(8, 2), (8, 2)]
    assert [len(b["input_ids"]) for b in batches["plain"]] == [8, 7, 1]
    for batch in batches["masked-row"]:
        assert (batch["attention_mask"].sum(1) == 0).any() and (batch["visual_attention_mask"].sum(1) == 0).any()
        assert (batch["attention_mask"].sum(1) > 0).any() and (batch["visual_attention_mask"].sum(1) > 0).any()
    for batch in batches["zero-padded"]:
        seen = batch["visual_attention_mask"] == 1
        empty = ~batch["visual_feats"].any(-1) & ~batch["visual_pos"].any(-1)
        assert (empty & seen).any() and (empty & ~seen).any() and not (~empty & ~seen).any()
        assert (batch["input_ids"] == 0)[batch["attention_mask"] == 1].any()
    shapes = {(b["input_ids"].shape[1], b["visual_feats"].shape[1]) for b in batches["plain"]}
    assert len(shapes) > 1 and all(text != objects for text, objects in shapes)


def test_ids_boxes_and_features_are_what_models_take() -> None:
    for family in sample_inputs(task_signature(SMALL, "nlvr2"), SMALL).families:
        for batch in family.batches:
            assert batch["input_ids"].min() >= 0 and batch["input_ids"].max() < SMALL.vocab_size
            boxes = batch["visual_pos"]
            assert (boxes[..., :2] <= boxes[..., 2:]).all() and 0 <= boxes.min() and boxes.max() <= 1
            features = batch["visual_feats"]
            assert features.min() == 0 and np.array_equal(features.astype(np.float16).astype(np.float32), features)
            assert {array.dtype.name for array in batch.values()} == {"int64", "float32"}


def test_fixed_axes_pad_or_leave_out_families() -> None:
    samples = sample_inputs(task_signature(SMALL, "model", fixed={"text": 20, "objects": 1, "batch": 3}), SMALL)
    assert samples.not_run == ("ragged", "zero-padded")
    two_tokens = next(family for family in samples.families if family.name == "two-tokens")
    assert all(
        b["attention_mask"].shape == (3, 20) and (b["attention_mask"].sum(1) == 2).all() for b in two_tokens.batches
    )


def test_recording_keeps_what_is_pooled() -> None:
    signature = task_signature(SMALL, "pretraining")
    samples = sample_inputs(signature, SMALL)
    calls = []

    def run(batch: object) -> dict[str, np.ndarray]:
        rows = len(batch["input_ids"])  # type: ignore[index]
        calls.append(rows)
        return {spec.name: np.zeros(spec.shape({"batch": rows, "text": 8, "objects": 5})) for spec in signature.outputs}

    recording = record(run, samples, signature)
    assert sum(len(chunk) for chunk in recording["plain", "cross_relationship_score"]) == 128
    assert sum(len(chunk) for chunk in recording["plain", "prediction_logits"]) == 16
    assert sum(calls) == 128 * len(FAMILY_KINDS)


@pytest.mark.parametrize(
    ("family", "precision", "share", "passes"),
    [
        ("plain", "fp32", 2e-6, True),  # as of correct checkpoints: benchmarks/floor_shares.md
        ("plain", "fp32", 1e-3, False),  # as of a module that adds noise of 0.1 % in eval mode
        ("masked-row", "fp32", 3e-4, True),
        ("own", "fp32", 3e-4, True),  # a user's rows may be masked as a whole
        ("own", "fp32", 1e-2, False),
        ("plain", "fp16", 5e-3, True),
        ("plain", "fp16", 0.3, False),
        ("plain", "bf16", 0.04, True),
    ],
)
def test_a_floor_of_too_large_a_share_is_no_proof(family: str, precision: str, share: float, passes: bool) -> None:
    recording: Recording = {(family, "out"): chunks(0)}
    floors = {(family, "out"): Floor(rms=share, reference_rms=1.0, samples=16, values=64)}
    (cell,) = judge("x", recording, recording, floors, SIGNATURE, "native", precision=precision)
    pairs = judge_pair(("x", "y"), (recording, recording), (floors, floors), (precision, precision))
    assert [found.status for found in (cell, *pairs)] == ["pass" if passes else "FAIL"] * 2
    assert passes or "so much noise hides every fault" in (cell.reason or "")
