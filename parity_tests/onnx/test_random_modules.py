"""A module that is random in eval mode has no reference: it is refused, and what makes it random is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lxmert_export as lx
from converters.to_onnx import _remove_dropout
from lxmert_export.errors import ConversionError
from lxmert_export.reference.determinism import check_deterministic
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import sample_inputs
from parity_tests.fixtures.random_models import TINY
from parity_tests.onnx.test_converter import RETRIEVAL, Glance

BATCH = sample_inputs(RETRIEVAL, TINY).families[0].batches[0]


class FunctionalDropout(Glance):
    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        output = super().forward(**inputs)
        return {**output, "match": functional.dropout(output["match"], 0.1)}


class FaintNoise(Glance):
    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        output = super().forward(**inputs)
        return {**output, "embedding": output["embedding"] + 1e-7 * torch.rand_like(output["embedding"])}


class SoundDropout(Glance):
    """Dropout as it should be: off in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        output = super().forward(**inputs)
        return {**output, "match": functional.dropout(self.drop(output["match"]), 0.5, training=self.training)}


@pytest.mark.parametrize(
    ("module", "output", "operator"), [(FunctionalDropout, "match", "dropout"), (FaintNoise, "embedding", "rand_like")]
)
def test_the_reference_names_the_output_and_the_operator(module: Any, output: str, operator: str) -> None:
    message = rf"{module.__name__} is random in eval mode: .* differ in {output} \(it calls {operator}\)"
    with pytest.raises(ConversionError, match=message):
        check_deterministic(module().eval(), RETRIEVAL, InputLimits.of(TINY), BATCH)


@pytest.mark.parametrize(
    ("module", "called", "operator"),
    [(FunctionalDropout, "dropout", "Dropout"), (FaintNoise, "rand_like", "RandomUniformLike")],
)
def test_no_export_holds_a_random_operator(module: Any, called: str, operator: str, tmp_path: Path) -> None:
    """With the gate it is run twice before anything is converted; without, its graph tells."""
    for parity, said in ((True, f"it calls {called}"), (False, f"its graph holds {operator}")):
        with pytest.raises(ConversionError, match=said):
            lx.export("onnx", module().eval(), tmp_path / "out", signature=RETRIEVAL, parity=parity)
    assert not any(tmp_path.iterdir())


class AlwaysDropout(nn.Dropout):
    """Dropout in eval mode too, as for estimates of uncertainty."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.dropout(input, self.p, training=True)


def test_dropout_that_is_not_off_in_eval_mode_is_not_taken_out_of_the_graph() -> None:
    module = nn.Sequential(nn.Dropout(0.5), AlwaysDropout(0.5), nn.Sequential(nn.Dropout(0.5))).eval()
    module[2][0].train()
    _remove_dropout(module)
    assert [type(part) for part in (module[0], module[1], module[2][0])] == [nn.Identity, AlwaysDropout, nn.Dropout]


def test_dropout_that_is_off_in_eval_mode_is_no_fault(tmp_path: Path) -> None:
    module = SoundDropout().eval()
    check_deterministic(module, RETRIEVAL, InputLimits.of(TINY), BATCH)
    artifact = lx.export("onnx", module, tmp_path / "out", signature=RETRIEVAL)
    assert artifact.report is not None and artifact.report.passed
