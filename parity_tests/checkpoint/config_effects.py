"""What a field of a config changes in a program, measured on it: the same weights and inputs, one field another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from lxmert_export.errors import ConfigError
from lxmert_export.spec.config import LxmertConfig
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_labels
from parity_tests.fixtures.their_models import enliven

# Another value for each field of TINY.
OTHER_VALUES: dict[str, Any] = {
    "hidden_act": "relu", "hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "initializer_range": 0.2,
    "layer_norm_eps": 1.0, "visual_loss_normalizer": 2.0, "num_attention_heads": 2, "hidden_size": 64,
}  # fmt: skip


def other_value(name: str) -> Any:
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    value = getattr(TINY, name)
    return not value if isinstance(value, bool) else value + 1


def effect(build: Callable[[Mapping[str, Any]], Any], name: str) -> str:
    """Returns what changes if one field of a pre-training model's config is another.

    ``sizes`` (parameters), ``outputs`` (their values), ``form`` (which are returned), ``loss``, ``training`` (dropout),
    ``initial weights``, ``nothing``, or ``refused``.
    """
    values = {
        field: value for field, value in TINY.to_dict().items() if field not in ("model_type", "num_hidden_layers")
    }
    torch.manual_seed(0)
    one = build(values)
    torch.manual_seed(0)
    try:
        other = build({**values, name: other_value(name)})
    except ConfigError:
        return "refused"
    shapes = [{key: tuple(tensor.shape) for key, tensor in model.named_parameters()} for model in (one, other)]
    if shapes[0] != shapes[1]:
        return "sizes"
    starts = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (one, other)]
    enliven(one)
    other.load_state_dict(one.state_dict())
    found = [_outputs(model.eval()) for model in (one, other)]
    if found[0].keys() != found[1].keys():
        return "form"
    # float32 rounds otherwise where attention is computed step by step, for its probabilities
    changed = {key for key in found[0] if not torch.allclose(found[0][key], found[1][key], rtol=1e-4, atol=1e-4)}
    if changed:
        return "loss" if changed == {"loss"} else "outputs"
    trained = [_outputs(model.train()) for model in (one, other)]
    if any(not torch.equal(trained[0][key], trained[1][key]) for key in trained[0]):
        return "training"
    return "nothing" if torch.equal(*starts) else "initial weights"


def _outputs(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        returned = model(**lively_inputs(TINY), **lively_labels("pretraining", TINY))
    named = returned.items() if hasattr(returned, "items") else enumerate(returned)
    tensors = {str(name): value for name, value in named if value is not None}
    return {name: value if isinstance(value, torch.Tensor) else torch.zeros(()) for name, value in tensors.items()}


def known_fields() -> list[str]:
    return [name for name in LxmertConfig.__dataclass_fields__ if name != "extra"]
