"""Faults that a conversion could commit, each planted into a model in place, so that a traced graph has it too."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lxmert_export.model.lxmert import (
    Attention,
    CrossModalityLayer,
    FeedForward,
    LayerNorm,
    LxmertModel,
    MaskedLanguageHead,
    VisualEmbeddings,
)

Plant = Callable[[nn.Module], None]


def parts(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """The model's parts of one class, in order."""
    return [part for part in model.modules() if isinstance(part, kind)]


def patch(part: nn.Module, forward: Callable[..., Any]) -> None:
    """Gives one part another forward; a deep copy of it keeps the fault."""
    part.forward = MethodType(forward, part)


def gelu_tanh(model: nn.Module) -> None:
    def forward(self: Any, hidden: Tensor) -> Any:
        inner = F.gelu(self.expand(hidden), approximate="tanh")
        return self.layer_norm(self.contract(inner) + hidden)

    for part in parts(model, FeedForward):
        patch(part, forward)


def swapped_query_and_key(model: nn.Module) -> None:
    attention = parts(model, CrossModalityLayer)[0].cross_attention
    attention.query, attention.key = attention.key, attention.query


def transposed_weight(model: nn.Module) -> None:
    _replace_weight(parts(model, Attention)[1].output, lambda weight: weight.t())


def layer_norm_eps(model: nn.Module) -> None:
    for part in parts(model, LayerNorm):
        part.eps = 1e-5  # PyTorch's default


def ignored_language_mask(model: nn.Module) -> None:
    _without_mask(model, "attention_mask")


def ignored_vision_mask(model: nn.Module) -> None:
    _without_mask(model, "visual_attention_mask")


def sequential_cross_attention(model: nn.Module) -> None:
    def forward(
        self: Any, language: Tensor, vision: Tensor, language_bias: Tensor, vision_bias: Tensor, want: bool
    ) -> tuple[Any, ...]:
        seeing, attention = self.cross_attention(language, vision, vision_bias, want)
        reading, _ = self.cross_attention(vision, seeing, language_bias, want)  # reads what was just written
        language, _ = self.language_self_attention(seeing, seeing, language_bias, want)
        vision, _ = self.vision_self_attention(reading, reading, vision_bias, want)
        return self.language_feed_forward(language), self.vision_feed_forward(vision), attention

    for part in parts(model, CrossModalityLayer):
        patch(part, forward)


def missing_half(model: nn.Module) -> None:
    def forward(self: Any, visual_feats: Tensor, visual_pos: Tensor) -> Any:
        return self.features_layer_norm(self.features(visual_feats)) + self.boxes_layer_norm(self.boxes(visual_pos))

    patch(parts(model, VisualEmbeddings)[0], forward)


def dropped_token_types(model: nn.Module) -> None:
    embeddings = parts(model, LxmertModel)[0].embeddings
    _replace_weight(embeddings.token_type, lambda weight: weight[:1].expand_as(weight).clone())


def positions_off_by_one(model: nn.Module) -> None:
    embeddings = parts(model, LxmertModel)[0].embeddings
    _replace_weight(embeddings.position, lambda weight: weight.roll(-1, 0))


def wrong_head_count(model: nn.Module) -> None:
    for part in parts(model, Attention):
        part.heads, part.head_size = part.heads // 2, part.head_size * 2


def last_token_pooled(model: nn.Module) -> None:
    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        output: Any = LxmertModel.forward(self, *arguments, **{**options, "return_dict": True})
        output.pooled_output = torch.tanh(self.pooler(output.language_output[:, -1]))
        return output

    patch(parts(model, LxmertModel)[0], forward)


def untied_decoder(model: nn.Module) -> None:
    head = parts(model, MaskedLanguageHead)[0]
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(head.decoder.weight.shape, generator=generator)
    head.decoder.weight = nn.Parameter(head.decoder.weight.detach() + 0.1 * noise, requires_grad=False)


def one_weight_changed(model: nn.Module) -> None:
    """One number of one matrix, the largest of its row's, gets the other sign."""

    def flip(weight: Tensor) -> Tensor:
        changed = weight.clone()
        changed[0, changed[0].abs().argmax()] *= -1
        return changed

    _replace_weight(parts(model, FeedForward)[0].contract, flip)


def fp16_overflow(model: nn.Module) -> None:
    """The same function in float32; in fp16 an intermediate exceeds 65504.

    The value projection grows by a factor by which the output projection shrinks: attention mixes values linearly.
    """
    attention, factor = parts(model, Attention)[0], 2.0**15
    _replace_weight(attention.value, lambda weight: weight * factor)
    attention.value.bias = nn.Parameter(attention.value.bias.detach() * factor, requires_grad=False)
    _replace_weight(attention.output, lambda weight: weight / factor)


def _replace_weight(part: Any, change: Callable[[Tensor], Tensor]) -> None:
    part.weight = nn.Parameter(change(part.weight.detach()).contiguous(), requires_grad=False)


def _without_mask(model: nn.Module, name: str) -> None:
    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        order = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "visual_attention_mask", "token_type_ids",
                 "inputs_embeds", "output_attentions", "output_hidden_states")  # fmt: skip
        named = {**dict(zip(order, arguments, strict=False)), **options}
        if named.get(name) is not None:
            named[name] = named[name] * 0 + 1
        return LxmertModel.forward(self, **named)

    patch(parts(model, LxmertModel)[0], forward)


FAULTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        gelu_tanh,
        swapped_query_and_key,
        transposed_weight,
        layer_norm_eps,
        ignored_language_mask,
        ignored_vision_mask,
        sequential_cross_attention,
        missing_half,
        dropped_token_types,
        positions_off_by_one,
        wrong_head_count,
        last_token_pooled,
        untied_decoder,
        one_weight_changed,
        fp16_overflow,
    )
}
# These change no more than weights: the faulty module's graph is the sound one's.
WEIGHTS_ALONE = frozenset((
    "one_weight_changed", "transposed_weight", "swapped_query_and_key", "dropped_token_types", "positions_off_by_one",
    "fp16_overflow",
))  # fmt: skip
