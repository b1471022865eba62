"""Weights that do not stand under their own names are told in one line, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from lxmert_export.checkpoint.altered_weights import check_weights_are_plain
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.model.lxmert import LxmertModel
from lxmert_export.spec.weight_names import weight_names
from parity_tests.fixtures.random_models import TINY, lively_state

pytestmark = pytest.mark.quick


def prunes(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.5)  # type: ignore[no-untyped-call]


def normalises(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)


def normalises_as_before(layer: nn.Module) -> None:
    """The older spectral_norm, which leaves weight_orig, as pruning does, and weight_u and weight_v."""
    nn.utils.spectral_norm(layer)


def adapts(layer: nn.Module) -> None:
    """Puts LoRA adapters beside a layer's weight, as peft names them."""
    layer.base_layer = nn.Linear(2, 2)
    layer.lora_A = nn.ModuleDict({"default": nn.Linear(2, 1, bias=False)})
    layer.lora_B = nn.ModuleDict({"default": nn.Linear(1, 2, bias=False)})


def loads_in_8_bits(layer: nn.Module) -> None:
    """Adds the scales that bitsandbytes keeps beside a weight."""
    layer.register_buffer("SCB", torch.ones(2))


CHANGES: dict[str, tuple[Callable[[nn.Module], None], str]] = {
    "pruned": (prunes, "prune.remove"),
    "parametrised": (normalises, "remove_parametrizations"),
    "parametrised weights \\(.*weight_u": (normalises_as_before, "remove_spectral_norm"),
    "quantised": (loads_in_8_bits, "give the checkpoint before that"),
    "LoRA adapters": (adapts, r"merge_and_unload\(\)"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_with_altered_weights(kind: str, tmp_path: Path) -> None:
    change, mend = CHANGES[kind]
    model = LxmertModel(TINY)
    change(model.pooler)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=f"model.pth: holds .*{kind}.*pooler.*\\): .*{mend}") as caught:
        read_checkpoint(tmp_path / "model.pth")
    assert "\n" not in str(caught.value)


def test_names_of_every_dialect_are_plain() -> None:
    rows = weight_names(TINY, "pretraining")
    check_weights_are_plain(name for row in rows for name in (row.ours, row.upstream, row.tensorflow))
    check_weights_are_plain(("decoder.causal_mask", "detector.base_layer.0.weight", "head.weight_v", "x.zero_point"))
    state: dict[str, Tensor] = lively_state(TINY, "pretraining")
    check_weights_are_plain(state)
