"""Nothing is computed that no output needs, nothing twice, and no size that is fixed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto
from torch import Tensor, nn

import lxmert_export as lx
from converters.onnx.sizes import slice_positions
from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.runners.onnx.session import FAILURES
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import TASKS, Task, task_signature
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model
from parity_tests.onnx.test_converter import RETRIEVAL, Glance

SIZES = {"batch": 2, "text": 5, "objects": 3}
FIXED = {"dynamic": {}, "fixed text": {"text": 5}, "fixed": SIZES}
# Pairs have sizes of their own to compute; the other tasks compute the same ones.
GRAPHS = [
    *((task, "dynamic") for task in TASKS),
    *((t, name) for t in ("question-answering", "nlvr2") for name in FIXED),
]
# Operators that compute sizes, and positions from sizes.
OF_SIZES = ("Shape", "Size", "Range", "ConstantOfShape", "Squeeze", "Concat", "Where", "Equal")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Task, str], onnx.GraphProto]:
    """The written graph of every task with dynamic axes, and of two tasks with a fixed text, and with all fixed."""
    found = {}
    for task, name in dict.fromkeys(GRAPHS):
        directory = tmp_path_factory.mktemp("graph")
        config = TINY.replace(l_layers=2, x_layers=2) if task == "question-answering" else TINY
        signature = task_signature(config, task, fixed=FIXED[name])
        convert_to_onnx(lively_model(task, config), signature, InputLimits.of(config), directory, precision="fp32")
        found[task, name] = onnx.load(directory / ONNX_FILE, load_external_data=False).graph
    return found


def test_everything_that_is_computed_or_stored_is_read(graphs: dict[tuple[Task, str], onnx.GraphProto]) -> None:
    for key, graph in graphs.items():
        needed = {value.name for value in graph.output}
        for node in reversed(graph.node):
            assert needed & set(node.output), (key, node.name)
            needed |= set(node.input)
        assert {tensor.name for tensor in graph.initializer} <= needed, key
        assert {value.name for value in graph.input} <= needed, key


def test_nothing_is_computed_twice(graphs: dict[tuple[Task, str], onnx.GraphProto]) -> None:
    for key, graph in graphs.items():
        twice = [same for same, count in Counter(map(what_is_computed, graph.node)).items() if count > 1]
        assert twice == [], key


def what_is_computed(node: NodeProto) -> tuple[str, ...]:
    attributes = sorted(attribute.SerializeToString().hex() for attribute in node.attribute)
    return (node.domain, node.op_type, *node.input, *attributes)


def test_operators_of_sizes(graphs: dict[tuple[Task, str], onnx.GraphProto]) -> None:
    for (task, name), graph in graphs.items():
        operators = Counter(node.op_type for node in graph.node)
        counts = {kind: operators[kind] for kind in OF_SIZES if operators[kind]}
        if task == "nlvr2":  # pairs become twice the batch: one shape of text, four of objects
            wanted = {"dynamic": {"Shape": 2, "Concat": 5}, "fixed text": {"Shape": 1, "Concat": 3}, "fixed": {}}
        else:  # the end of the positions
            wanted = {"dynamic": {"Shape": 1}, "fixed text": {}, "fixed": {}}
        assert counts == wanted[name], (task, name)


def test_masks_and_biases_are_computed_once(graphs: dict[tuple[Task, str], onnx.GraphProto]) -> None:
    for key, graph in graphs.items():
        biases = {
            node.input[1]
            for node in graph.node
            if node.op_type == "Add" and node.name.split("/")[0].endswith("attention")
        }
        assert len([bias for bias in biases if "Unsqueeze" in bias]) == 2, key
        assert Counter(node.op_type for node in graph.node)["Sub"] == 2, key


def test_positions_are_looked_up_without_counting(graphs: dict[tuple[Task, str], onnx.GraphProto]) -> None:
    table = "lxmert.embeddings.position.weight"
    for name, rows, readers in (("dynamic", 32, ["Slice"]), ("fixed text", 5, ["Add"]), ("fixed", 5, ["Add"])):
        graph = graphs["question-answering", name]
        assert [node.op_type for node in graph.node if table in node.input] == readers
        (stored,) = [tensor for tensor in graph.initializer if tensor.name == table]
        assert list(stored.dims) == [rows, TINY.hidden_size]


class Counting(Glance):
    """Has positions of its own: a table for objects, a table of one row, and one that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rank = nn.Embedding(99, 16)
        self.only = nn.Embedding(1, 16)
        self.both = nn.Embedding(99, 16)

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        places = torch.arange(visual_feats.shape[1])
        feats = visual_feats + self.rank(places) + self.only(places * 0) + self.both(places)
        found = super().forward(input_ids, feats + self.both(places + 1), visual_pos, prior)
        return found


@pytest.mark.parametrize("objects", ["objects", 5])
def test_position_tables_of_your_own(objects: str | int, tmp_path: Path) -> None:
    specs = tuple(
        lx.TensorSpec(spec.name, spec.dtype, tuple(objects if axis == "objects" else axis for axis in spec.axes))
        for spec in RETRIEVAL.inputs
    )
    module = Counting().eval()
    signature = lx.Signature("counting", specs, RETRIEVAL.outputs)
    artifact = lx.export("onnx", module, tmp_path / "out", signature=signature)
    assert artifact.report is not None and artifact.report.passed
    graph = onnx.load(artifact.path / ONNX_FILE, load_external_data=False).graph
    readers = {
        tensor.name: [node.op_type for node in graph.node if tensor.name in node.input] for tensor in graph.initializer
    }
    dynamic = objects == "objects"
    assert readers["rank.weight"] == (["Slice"] if dynamic else ["Add"])
    assert readers["both.weight"] == (["Slice", "Gather"] if dynamic else ["Gather", "Gather"])
    assert readers["only.weight"] == ["Gather"]


class Against(nn.Module):
    """Multiplies by the first rows of a table, turned, and returns positions as they are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.rank = nn.Embedding(99, 16)
        self.place = nn.Embedding(99, 16)

    def forward(self, visual_feats: Tensor) -> dict[str, Tensor]:
        places = torch.arange(visual_feats.shape[1])
        return {"score": visual_feats @ self.rank(places).t(), "place": self.place(places)}


def test_first_rows_may_be_stored_turned_and_positions_may_be_an_output(tmp_path: Path) -> None:
    signature = lx.Signature(
        "against",
        (lx.TensorSpec("visual_feats", "float32", (2, 5, 16)),),
        (lx.TensorSpec("score", "float32", (2, 5, 5)), lx.TensorSpec("place", "float32", (5, 16))),
    )
    module = Against().eval()
    convert_to_onnx(module, signature, InputLimits.of(TINY), tmp_path, precision="fp32")
    feats = torch.rand(2, 5, 16)
    with torch.no_grad():
        wanted = module(feats)
    score, place = onnxruntime.InferenceSession(tmp_path / ONNX_FILE).run(
        ["score", "place"], {"visual_feats": feats.numpy()}
    )
    np.testing.assert_allclose(score, wanted["score"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(place, wanted["place"])
    graph = onnx.load(tmp_path / ONNX_FILE, load_external_data=False).graph
    assert [16, 5] in [list(tensor.dims) for tensor in graph.initializer]  # five rows, turned


ONE_ROW = """<ir_version: 8, opset_import: ["" : 18]> test (float[B, L] x) => (float[L, 2] y) <float[1, 2] table = {3, 4}> {
    s = Shape <start = 1, end = 2> (x) a = Constant <value = int64[1] {0}> () l = Squeeze (s, a)
    zero = Constant <value = int64 {0}> () one = Constant <value = int64 {1}> () r = Range (zero, l, one)
    y = Gather (table, r) }"""


@pytest.mark.quick
def test_a_table_of_one_row_stays_a_look_up() -> None:
    """A Slice would be broadcast to a text of any length, where a look-up fails."""
    import onnx_ir as ir

    model = ir.serde.deserialize_model(onnx.parser.parse_model(ONE_ROW))
    slice_positions(model.graph)
    assert "Gather" in [node.op_type for node in model.graph]


def test_a_text_that_is_longer_than_the_table_fails(tmp_path: Path) -> None:
    """In any runtime, not only in ours, which refuses it first."""
    convert_to_onnx(
        lively_model("model", TINY), task_signature(TINY, "model"), InputLimits.of(TINY), tmp_path, precision="fp32"
    )
    session = onnxruntime.InferenceSession(tmp_path / ONNX_FILE)
    inputs = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    long = {name: np.ones((3, 33), np.int64) for name in ("input_ids", "attention_mask")}
    with pytest.raises(FAILURES, match="32 by 33"):
        session.run(None, {**inputs, **long, "token_type_ids": np.zeros((3, 33), np.int64)})
