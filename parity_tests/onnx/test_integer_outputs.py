"""A module with outputs of two dtypes: each keeps its own, and integers are exact wherever the reference is not near a tie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lxmert_export as lx
from converters.to_onnx import lean_graph
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.golden import golden_of
from lxmert_export.errors import ConversionError
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Signature, TensorSpec
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.onnx.test_converter import RETRIEVAL

ANSWERS = 12
SCORES = TensorSpec("scores", "float32", ("batch", ANSWERS))
BEST = TensorSpec("best", "int64", ("batch",))
TOP = TensorSpec("top", "int64", ("batch", 3))
ALIKE = TensorSpec("most_alike", "int64", ("batch",))
INPUTS = RETRIEVAL.inputs[:3]


class Ranked(nn.Module):
    """Scores of answers, the best one, the three best, and the object that is most like all of them together.

    Small: its LXMERT says which ids it takes, and is not called, because tracing one takes most of an export's time.
    """

    def __init__(self, *, shift: int = 0) -> None:
        super().__init__()
        self.body = lively_model("model", TINY)
        self.words = nn.Embedding(TINY.vocab_size, 24)
        self.objects = nn.Linear(16, 24)
        self.boxes = nn.Linear(4, 24)
        self.score = nn.Linear(24, ANSWERS)
        self.shift = shift

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor) -> dict[str, Tensor]:
        objects = torch.tanh(self.objects(visual_feats) + self.boxes(visual_pos))
        whole = objects.mean(dim=1)
        scores = self.score(whole * self.words(input_ids).mean(dim=1))
        return {
            "scores": scores,
            "best": scores.argmax(dim=-1) + self.shift,
            "top": scores.topk(3, dim=-1).indices,
            "most_alike": (objects * whole.unsqueeze(1)).sum(dim=-1).argmax(dim=-1),
        }


def ranked(*, shift: int = 0) -> nn.Module:
    torch.manual_seed(0)
    return Ranked(shift=shift).eval()


def signature(*outputs: TensorSpec) -> Signature:
    return Signature("ranking", INPUTS, outputs)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """In fp16, where ties are many; the integers come first, and in another width than the module's."""
    out = tmp_path_factory.mktemp("ranked") / "out"
    outputs = (BEST, replace(TOP, dtype="int32"), ALIKE, SCORES)
    return lx.export("onnx", ranked(), out, precision="fp16", signature=signature(*outputs))


def test_each_output_keeps_its_own_dtype(artifact: Artifact) -> None:
    assert artifact.report is not None and artifact.report.passed
    assert {cell.output for cell in artifact.report.cells} == {"scores", "best", "top", "most_alike"}
    assert artifact.manifest.options["io_dtype"] == "float32"
    with lx.load_artifact(artifact.path) as runner:
        outputs = runner.run(golden_of(artifact).samples.families[0].batches[0])
    assert {name: str(array.dtype) for name, array in outputs.items()} == {
        "best": "int64", "top": "int32", "most_alike": "int64", "scores": "float32",
    }  # fmt: skip
    assert (outputs["scores"].argmax(axis=-1) == outputs["best"]).mean() > 0.9 and outputs["scores"].std() > 0.1


def test_floats_first(tmp_path: Path) -> None:
    graph = lean_graph(ranked(), signature(SCORES, BEST), InputLimits.of(TINY), precision="fp32").graph
    assert [(value.name, str(value.dtype)) for value in graph.outputs] == [("scores", "FLOAT"), ("best", "INT64")]


def test_integers_are_judged_where_the_reference_is_not_near_a_tie(artifact: Artifact) -> None:
    golden = golden_of(artifact)
    assert golden.floors["plain", "scores"].ties is None
    ties = {name: np.concatenate(golden.floors["plain", name].ties or ()).mean() for name in ("best", "top")}
    assert ties["best"] < 0.5 and 0 < ties["top"] < 0.9
    assert lx.verify(artifact.path).passed
    assert check_here([artifact.path, "canonical-fp32"], checkpoint=ranked()).passed
    report = check_here([artifact.path], checkpoint=ranked(shift=1))
    assert {cell.output for cell in report.failures} == {"best"}
    assert "integers differ that are not near a tie" in report.summary()


def test_laws_hold_for_integers_too(artifact: Artifact) -> None:
    report = lx.check_laws(artifact.path)
    assert report.passed and {cell.output for cell in report.cells} == {"scores", "best", "top", "most_alike"}


def test_a_dtype_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    integers, floats = (
        signature(replace(SCORES, dtype="int64"), BEST),
        signature(SCORES, replace(BEST, dtype="float32")),
    )
    with pytest.raises(ConversionError, match="output scores is floating-point, but its signature says int64"):
        lx.export("onnx", ranked(), tmp_path / "out", signature=integers)
    with pytest.raises(ConversionError, match="output best is int64, but its signature says float32"):
        lx.export("onnx", ranked(), tmp_path / "out", signature=floats)
    assert not any(tmp_path.iterdir())
