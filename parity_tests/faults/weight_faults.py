"""Faults that a conversion could commit, as other weights or other inputs: planted into a file of any target.

Each takes a sound checkpoint by its full names and gives the faulty one. What a wrong graph computes is often what the right
one computes with other weights: scores that are not scaled are those of a query that is larger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.weight_names import WORD_EMBEDDING
from parity_tests.fixtures.architectures import Architecture, State, drawn_state, tied

ChangeState = Callable[[State, Architecture], State]
Batch = Mapping[str, NDArray[np.generic]]
ChangeInputs = Callable[[Batch], Arrays]

BODY = "lxmert."
LANGUAGE = f"{BODY}language_layers.0."
CROSS = f"{BODY}cross_modality_layers.0."
CROSS_ATTENTION = f"{CROSS}cross_attention."
VISUAL = f"{BODY}visual_embeddings."
TABLES = f"{BODY}embeddings."


@dataclass(frozen=True)
class Fault:
    """What a fault does to a checkpoint, or to the inputs on their way into the graph."""

    name: str
    change_state: ChangeState | None = None
    change_inputs: ChangeInputs | None = None

    def faulty_state(self, state: State, architecture: Architecture) -> State:
        """The checkpoint that the faulty artifact holds."""
        if self.change_state is None:
            return state
        return tied({**state, **self.change_state(state, architecture)}, architecture.config)


def exchanged(one: str, other: str, state: State, architecture: Architecture) -> State:
    """Two parts hold one another's weights."""
    pairs = {name: name.replace(one, other, 1) for name in state if name.startswith(one)}
    return {
        **{name: state[twin] for name, twin in pairs.items()},
        **{twin: state[name] for name, twin in pairs.items()},
    }


def changed(prefixes: tuple[str, ...], change: Callable[[Tensor], Tensor], state: State, _: Architecture) -> State:
    """All weights of which the name begins or ends so."""
    return {n: change(t) for n, t in state.items() if n.startswith(prefixes) or n.endswith(prefixes)}


def scaled_query(power: float, state: State, architecture: Architecture) -> State:
    """Attention scores times a power of the head's size."""
    factor = architecture.config.head_size**power
    return {name: tensor * factor for name, tensor in state.items() if ".query." in name}


def scaled_by_hidden_size(state: State, architecture: Architecture) -> State:
    """1/sqrt(hidden size) in place of 1/sqrt(head size)."""
    factor = architecture.config.num_attention_heads**-0.5
    return {name: tensor * factor for name, tensor in state.items() if ".query." in name}


def heads_transposed(state: State, architecture: Architecture) -> State:
    """Rows split as [size, heads] in place of [heads, size], of all three projections."""
    config = architecture.config
    order = torch.arange(config.hidden_size).reshape(config.head_size, -1).t().flatten()
    return {n: t[order] for n, t in state.items() if any(f".{part}." in n for part in ("query", "key", "value"))}


def rounded(prefix: str, dtype: torch.dtype, state: State, architecture: Architecture) -> State:
    """Weights that went through a lower precision."""
    return changed((prefix,), lambda tensor: tensor.to(dtype).float(), state, architecture)


def int8_rounded(state: State, architecture: Architecture) -> State:
    """One layer's weights in 255 steps."""

    def steps(tensor: Tensor) -> Tensor:
        step = tensor.abs().max() / 127
        return (tensor / step).round() * step

    return changed((LANGUAGE,), steps, state, architecture)


def noisy(relative: float, state: State, architecture: Architecture) -> State:
    """Every weight off by a random part of itself."""
    generator = torch.Generator().manual_seed(1)
    return {n: t * (1 + relative * torch.randn(t.shape, generator=generator)) for n, t in state.items()}


def stale_layer(state: State, architecture: Architecture) -> State:
    """One layer's weights are another checkpoint's."""
    other = drawn_state(architecture, 10**6)
    return {name: other[name] for name in state if name.startswith(LANGUAGE)}


def fp16_overflow(state: State, architecture: Architecture) -> State:
    """The same function in float32; in fp16 an intermediate exceeds 65504: values grow by what the output shrinks."""
    part, factor = f"{LANGUAGE}self_attention.", 2.0**15
    grown = {f"{part}value.{kind}": state[f"{part}value.{kind}"] * factor for kind in ("weight", "bias")}
    return {**grown, f"{part}output.weight": state[f"{part}output.weight"] / factor}


def one_weight(change: Callable[[Tensor], Tensor], state: State, architecture: Architecture) -> State:
    """The largest number of one row of one matrix."""
    name = f"{LANGUAGE}feed_forward.contract.weight"
    weight = state[name].clone()
    place = weight[0].abs().argmax()
    weight[0, place] = change(weight[0, place])
    return {name: weight}


def columns_exchanged(state: State, architecture: Architecture) -> State:
    """Two columns of one matrix."""
    name = f"{LANGUAGE}feed_forward.expand.weight"
    order = torch.tensor([1, 0, *range(2, state[name].shape[1])])
    return {name: state[name][:, order]}


def boxes_by_axis(state: State, architecture: Architecture) -> State:
    """(x1, x2, y1, y2) in place of (x1, y1, x2, y2)."""
    name = f"{VISUAL}boxes.weight"
    return {name: state[name][:, torch.tensor([0, 2, 1, *range(3, state[name].shape[1])])]}


def last_feature_lost(state: State, architecture: Architecture) -> State:
    """The last visual feature counts for nothing."""
    name = f"{VISUAL}features.weight"
    return {name: torch.cat([state[name][:, :-1], torch.zeros_like(state[name][:, -1:])], dim=1)}


def gain_and_shift_exchanged(state: State, architecture: Architecture) -> State:
    """Of one LayerNorm."""
    norm = f"{LANGUAGE}feed_forward.layer_norm."
    return {f"{norm}weight": state[f"{norm}bias"], f"{norm}bias": state[f"{norm}weight"]}


def square_kernels_transposed(state: State, architecture: Architecture) -> State:
    """Of all attentions."""
    return {n: t.t().contiguous() for n, t in state.items() if "attention." in n and t.ndim == 2}


def transposed(state: State, architecture: Architecture) -> State:
    """One square kernel, which no shape gives away."""
    name = f"{CROSS_ATTENTION}output.weight"
    return {name: state[name].t().contiguous()}


def first_row_for_all(tensor: Tensor) -> Tensor:
    """Every row of a table is its first."""
    return tensor[:1].expand_as(tensor).contiguous()


def _ones(name: str, inputs: Batch) -> Arrays:
    return {**inputs, name: np.ones_like(inputs[name])}


def _inverted(name: str, inputs: Batch) -> Arrays:
    return {**inputs, name: np.subtract(1, inputs[name], dtype=inputs[name].dtype)}


def _rolled(name: str, axis: int, inputs: Batch) -> Arrays:
    return {**inputs, name: np.roll(inputs[name], 1, axis)}


def _as_bytes(inputs: Batch) -> Arrays:
    """Boxes through a byte, as some pipelines store them."""
    return {**inputs, "visual_pos": np.round(inputs["visual_pos"].astype(np.float32) * 255) / np.float32(255)}


FAULTS = (
    Fault("query and key exchanged", partial(exchanged, f"{CROSS_ATTENTION}query", f"{CROSS_ATTENTION}key")),
    Fault("query and value exchanged", partial(exchanged, f"{CROSS_ATTENTION}query", f"{CROSS_ATTENTION}value")),
    Fault("scores not scaled", partial(scaled_query, 0.5)),
    Fault("scores scaled twice", partial(scaled_query, -0.5)),
    Fault("scores scaled by the hidden size", scaled_by_hidden_size),
    Fault("heads and their size exchanged", heads_transposed),
    Fault("one square kernel transposed", transposed),
    Fault("every attention kernel transposed", square_kernels_transposed),
    Fault("missing bias of a layer's output", partial(changed, (f"{LANGUAGE}feed_forward.contract.bias",), torch.zeros_like)),
    Fault("missing bias of the pooler", partial(changed, (f"{BODY}pooler.bias",), torch.zeros_like)),
    Fault("missing bias of every key", partial(changed, ("key.bias",), torch.zeros_like)),
    Fault("visual sum not halved",
          partial(changed, (f"{VISUAL}features_layer_norm", f"{VISUAL}boxes_layer_norm"), lambda t: t * 2)),
    Fault("visual norms exchanged", partial(exchanged, f"{VISUAL}features_layer_norm", f"{VISUAL}boxes_layer_norm")),
    Fault("boxes as x, x, y, y", boxes_by_axis),
    Fault("boxes in pixels", partial(changed, (f"{VISUAL}boxes.weight",), lambda t: t * 224)),
    Fault("last visual feature lost", last_feature_lost),
    Fault("token types ignored", partial(changed, (f"{TABLES}token_type",), first_row_for_all)),
    Fault("positions off by one", partial(changed, (f"{TABLES}position",), lambda t: t.roll(-1, 0))),
    Fault("positions ignored", partial(changed, (f"{TABLES}position",), torch.zeros_like)),
    Fault("words off by one", partial(changed, (WORD_EMBEDDING,), lambda t: t.roll(1, 0))),
    Fault("gain and shift exchanged", gain_and_shift_exchanged),
    Fault("every LayerNorm without its shift", partial(changed, ("layer_norm.bias",), torch.zeros_like)),
    Fault("two columns of a kernel exchanged", columns_exchanged),
    Fault("one weight of the other sign", partial(one_weight, torch.neg)),
    Fault("one weight zero", partial(one_weight, torch.zeros_like)),
    Fault("one layer's weights of another checkpoint", stale_layer),
    Fault("self attentions of a cross layer exchanged",
          partial(exchanged, f"{CROSS}language_self_attention", f"{CROSS}vision_self_attention")),
    Fault("one layer's weights rounded to fp16", partial(rounded, LANGUAGE, torch.float16)),
    Fault("all weights rounded to fp16", partial(rounded, "", torch.float16)),
    Fault("all weights rounded to bf16", partial(rounded, "", torch.bfloat16)),
    Fault("one layer's weights rounded to int8", int8_rounded),
    Fault("an overflow in fp16", fp16_overflow),
    *(Fault(f"every weight off by {size:g}", partial(noisy, size)) for size in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
    Fault("words' mask ignored", change_inputs=partial(_ones, "attention_mask")),
    Fault("objects' mask ignored", change_inputs=partial(_ones, "visual_attention_mask")),
    Fault("words' mask of the other sign", change_inputs=partial(_inverted, "attention_mask")),
    Fault("objects' mask of the other sign", change_inputs=partial(_inverted, "visual_attention_mask")),
    Fault("boxes of the next object", change_inputs=partial(_rolled, "visual_pos", -2)),
    Fault("boxes in 255 steps", change_inputs=_as_bytes),
)  # fmt: skip
