"""The figures of make gpu: turns, percentiles, the cost of a call by hand, floors, rates, predictions."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import floors
from benchmarks.gpu.floors import Rates, cost_of_call, measure_rates
from benchmarks.gpu.kernels import count_kernels, counted
from benchmarks.gpu.prune_library import prune
from benchmarks.gpu.timing import percentile, time_in_turn, warm_up
from lxmert_export.parity.prediction import beside_prediction
from lxmert_export.parity.report import Cell
from lxmert_export.spec.signature import Precision
from lxmert_export.spec.weight_names import WORD_EMBEDDING
from parity_tests.benchmarks.test_gpu_check import QA, SIZES
from parity_tests.fixtures.random_models import SMALL, lively_model


class Clock:
    """Time that passes only where work is done: a call takes its seconds, a wait a little, and both are written down."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        left: list[float] = []

        def call() -> None:
            left[:] = left or list(seconds)
            self.now += left.pop(0)
            self.order += name

        return call

    def wait(self) -> None:
        self.now += 1 / 1024
        self.order += "."


def test_contestants_take_turns_and_each_call_is_waited_for() -> None:
    clock = Clock()
    calls = {"a": clock.work("a", 1.0), "b": clock.work("b", 2.0, 4.0), "c": clock.work("c", 8.0)}
    found = time_in_turn(calls, rounds=3, calls_each=2, wait=clock.wait, clock=clock)
    one_round = {name: f".{name}.{name}.{name}{name}." for name in calls}  # two alone, two in a burst
    assert clock.order == "".join(one_round[name] for name in "abcbcacab")
    assert found["a"].latencies == [[1 + 1 / 1024] * 2] * 3
    assert found["b"].latencies == [[2 + 1 / 1024, 4 + 1 / 1024]] * 3
    assert found["b"].bursts == [3 + 1 / 2048] * 3  # one wait for both of a burst
    told = found["b"].to_dict(6)
    assert (told["calls"], told["p50_ms"], told["p99_ms"]) == (6, 2000 + 1000 / 1024, 4000 + 1000 / 1024)
    assert told["round_medians_ms"] == [3000 + 1000 / 1024] * 3
    assert told["samples_per_second"] == [6 / (3 + 1 / 2048)] * 3
    assert time_in_turn({}, rounds=2, calls_each=2, wait=clock.wait, clock=clock) == {}


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 1), (0.01, 1), (0.011, 2), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)]
)
def test_percentiles_are_values_that_were_measured(share: float, wanted: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == wanted


def test_warm_up_is_long_and_often_enough() -> None:
    clock = Clock()
    warm_up(clock.work("a", 1.0), wait=clock.wait, seconds=5.0, least=2, clock=clock)
    assert clock.order == "a." * 5
    warm_up(clock.work("b", 1.0), wait=clock.wait, seconds=0.0, least=2, clock=clock)
    assert clock.order.endswith("a.b.b.")


@pytest.mark.parametrize(("precision", "width"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_the_cost_of_a_call_is_what_a_count_by_hand_gives(precision: Precision, width: int) -> None:
    """Without what only the last layer's vision half needs, which no answer does; of the tables only what is looked up."""
    model = lively_model("question-answering")
    cost = cost_of_call(model, QA, SIZES, precision)
    dead = sum(
        p.numel() * (4 if "norm" in name else width)
        for name, p in model.named_parameters()
        if name.startswith(("lxmert.cross_modality_layers.1.vision_self", "lxmert.cross_modality_layers.1.vision_feed"))
    )
    tables = sum(p.numel() for name, p in model.named_parameters() if ".embeddings." in name and p.dim() == 2)
    weights = sum(p.numel() * (4 if "norm" in name else width) for name, p in model.named_parameters())
    rows, text, objects, wide = 3, 7, 5, SMALL.hidden_size
    looked_up = (2 * rows + 1) * text * wide * width  # positions are the same in every row
    inputs = rows * text * 3 * 8 + rows * objects * (SMALL.visual_feat_dim + 4 + 1) * 4
    outputs = rows * SMALL.num_qa_labels * width
    assert WORD_EMBEDDING in dict(model.named_parameters()) and dead > 0
    assert cost.bytes == weights - dead - tables * width + looked_up + inputs + outputs
    assert cost.flops == 2 * rows * products(text, objects)


def products(text: int, objects: int) -> int:
    """Multiplications of one row through SMALL: 2 language, 1 vision and 2 cross-modality layers, and the answer head."""
    wide, inner = SMALL.hidden_size, SMALL.intermediate_size

    def attention(queries: int, keys: int) -> int:
        return (2 * queries + 2 * keys) * wide**2 + 2 * queries * keys * wide

    def feed_forward(tokens: int) -> int:
        return 2 * tokens * wide * inner

    def layer(tokens: int) -> int:
        return attention(tokens, tokens) + feed_forward(tokens)

    cross = attention(text, objects) + attention(objects, text) + layer(text) + layer(objects)
    last = cross - attention(objects, text) - layer(objects)  # no answer needs its vision half
    boxes = objects * wide * (SMALL.visual_feat_dim + 4)
    answers = wide**2 + wide * 2 * wide + 2 * wide * SMALL.num_qa_labels
    return boxes + 2 * layer(text) + layer(objects) + cross + last + answers


def test_rates_are_read_and_written_bytes_and_two_operations_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def seconds(work: Callable[[], Any], wait: Callable[[], object]) -> float:
        done.append(work())
        return 0.5

    monkeypatch.setattr(floors, "_seconds", seconds)
    rates = measure_rates("cpu", ("fp32", "bf16"), wait=lambda: None, copied_bytes=1000, matrix=16)
    assert rates == Rates(4000, {"fp32": 4 * 16**3, "bf16": 4 * 16**3})
    assert [tensor.dtype for tensor in done] == [torch.uint8, torch.float32, torch.bfloat16]
    assert float(done[1][3, 4]) == 16  # it was multiplied
    monkeypatch.undo()
    assert measure_rates("cpu", ("fp32",), wait=lambda: None, copied_bytes=4096, matrix=8).bytes_per_second > 0


def cell(output: str, family: str, error: float | None) -> Cell:
    return Cell(
        runner="engine", against="float64", output=output, family=family, arithmetic="native",
        status="pass" if error else "FAIL", reason=None, score=1.0, threshold=8.0, error_rms=error, error_max=error,
        floor=0.1, reference_rms=1.0, samples=16, values=256,
    )  # fmt: skip


def test_what_was_predicted_stands_beside_what_was_measured() -> None:
    cells = [
        cell("good", "plain", 0.015),
        cell("good", "ragged", 9.0),
        cell("bad", "plain", 0.021),
        cell("nan", "plain", None),
    ]
    predicted = {name: {"inputs": "plain", "error_rms": 0.01} for name in ("good", "bad", "nan", "not run")}
    found = {row.output: row for row in beside_prediction("engine", cells, predicted)}
    assert found["good"].measured == 0.015 and found["good"].ratio == pytest.approx(1.5)
    assert {name: row.status.split(":")[0] for name, row in found.items()} == {
        "good": "validated", "bad": "not borne out", "nan": "unvalidated", "not run": "unvalidated",
    }  # fmt: skip
    assert "measured ÷ predicted RMS error 1.50 (1.50e-02 ÷ 1.00e-02)" in str(found["good"])
    assert beside_prediction("engine", cells, {}) == ()


def test_kernels_are_counted_apart_from_copies() -> None:
    names = ("gemm", "Memcpy HtoD", "softmax", "Memset (Device)", "gemm")
    assert counted([SimpleNamespace(name=name) for name in names]) == {"kernels": 3, "copies": 2}
    assert counted([]) is None and count_kernels(lambda: None, "cpu") is None


def library_of(*entries: tuple[int, int, bytes]) -> bytes:
    """A 64-bit ELF library whose section .nv_fatbin holds pieces of code: (kind, architecture, code)."""
    pieces = b"".join(
        struct.pack("<HHIQ", kind, 1, 64, len(code)).ljust(28, b"\0")
        + struct.pack("<I", architecture).ljust(36, b"\0")
        + code
        for kind, architecture, code in entries
    )
    fat = bytes(8) + struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(pieces)) + pieces
    names = b"\0.nv_fatbin\0.shstrtab\0"
    at = 64 + len(fat)
    table = at + len(names)
    sections = [(0, 0, 0), (1, 64, len(fat)), (12, at, len(names))]
    header = b"\x7fELF\x02".ljust(40, b"\0") + struct.pack("<Q", table).ljust(18, b"\0") + struct.pack("<HHH", 64, 3, 2)
    rows = b"".join(
        struct.pack("<IIQQQQ", name, 1, 0, 0, place, size).ljust(64, b"\0") for name, place, size in sections
    )
    return header + fat + names + rows


def test_a_library_keeps_the_code_of_the_gpus_that_are_named(tmp_path: Path) -> None:
    file = tmp_path / "library.so"
    whole = library_of((2, 80, b"a" * 16), (2, 90, b"b" * 24), (1, 90, b"c" * 32))
    file.write_bytes(whole)
    assert prune(file, {90}) == (24, 48)
    pruned = file.read_bytes()
    assert len(pruned) == len(whole) and b"b" * 24 in pruned and b"aa" not in pruned and b"cc" not in pruned
    with pytest.raises(SystemExit, match="holds no machine code for 75"):
        prune(file, {75})
    file.write_bytes(b"text")
    with pytest.raises(SystemExit, match="not a 64-bit ELF library"):
        prune(file, {90})
