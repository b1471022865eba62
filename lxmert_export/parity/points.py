"""Points of a network at which runners can be compared: its intermediate tensors, in execution order.

The list is the same for every target: the canonical model and a file are compared at points of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import ANSWER_OUTPUT, OBJECT_OUTPUTS, Signature
from lxmert_export.spec.weight_names import BACKBONE

MASKS = "masks"  # the "layer" of the two mask biases, which all other layers read
# Points that are the output of one linear layer.
LINEAR = frozenset((
    "query projection", "key projection", "value projection", "attention output", "expand", "contract", "projection",
    "pooler", "head",
))  # fmt: skip


@dataclass(frozen=True)
class Point:
    """An intermediate tensor of ``module``: its output or, with ``read_by``, the input of that submodule.

    layer     the layer that reports name
    family    the kind of operator that computes the tensor
    call      which call, for a module that is called twice (cross attention)
    output    the signature's output that equals the tensor, if any
    """

    layer: str
    module: str
    family: str
    call: int = 1
    read_by: str | None = None
    output: str | None = None

    @property
    def name(self) -> str:
        """Its unique name, such as ``lxmert.cross_modality_layers.0.cross_attention/softmax/2``."""
        return f"{self.module}/{self.family}/{self.call}"


def network_points(config: LxmertConfig, signature: Signature) -> tuple[Point, ...]:
    """Returns every point of a task's network, in execution order, without heads whose outputs the signature lacks."""
    prefix = "" if signature.task == "model" else BACKBONE
    return (*_backbone(config, prefix), *_heads(config, signature))


def _backbone(config: LxmertConfig, prefix: str) -> Iterator[Point]:
    sides = ("language", config.l_layers), ("vision", config.r_layers)
    for call, (side, layers) in enumerate(sides, start=1):
        if layers:
            attention = f"{prefix}{side}_layers.0.self_attention"
            yield Point(MASKS, prefix.rstrip("."), "mask", call, read_by=attention)
    yield from _embeddings(prefix)
    for side, layers in sides:
        for number in range(layers):
            layer = f"{side}_layers.{number}"
            yield from _attention(layer, f"{prefix}{layer}.self_attention")
            yield from _feed_forward(layer, f"{prefix}{layer}.feed_forward")
    for number in range(config.x_layers):
        layer = f"cross_modality_layers.{number}"
        path = prefix + layer
        for call in (1, 2):  # language reads vision, vision reads language
            yield from _attention(layer, f"{path}.cross_attention", call)
        for side, _ in sides:
            yield from _attention(layer, f"{path}.{side}_self_attention")
        for side, _ in sides:
            yield from _feed_forward(layer, f"{path}.{side}_feed_forward")
    yield Point("pooler", f"{prefix}pooler", "pooler")
    yield Point("pooler", prefix.rstrip("."), "tanh")


def _embeddings(prefix: str) -> Iterator[Point]:
    for table in ("word", "position", "token_type"):
        yield Point("embeddings", f"{prefix}embeddings.{table}", "embedding")
    yield from _layer_norm("embeddings", f"{prefix}embeddings.layer_norm")
    for name in ("features", "boxes"):
        yield Point("visual_embeddings", f"{prefix}visual_embeddings.{name}", "projection")
        yield from _layer_norm("visual_embeddings", f"{prefix}visual_embeddings.{name}_layer_norm")
    yield Point("visual_embeddings", f"{prefix}visual_embeddings", "mean")


def _attention(layer: str, path: str, call: int = 1) -> Iterator[Point]:
    for name in ("query", "key", "value"):
        yield Point(layer, f"{path}.{name}", f"{name} projection", call)
    yield Point(layer, path, "softmax", call)  # includes the scale and the mask
    yield Point(layer, path, "context", call, read_by=f"{path}.output")
    yield Point(layer, f"{path}.output", "attention output", call)
    yield from _layer_norm(layer, f"{path}.layer_norm", call)


def _feed_forward(layer: str, path: str) -> Iterator[Point]:
    yield Point(layer, f"{path}.expand", "expand")
    yield Point(layer, path, "GELU", read_by=f"{path}.contract")
    yield Point(layer, f"{path}.contract", "contract")
    yield from _layer_norm(layer, f"{path}.layer_norm")


def _layer_norm(layer: str, path: str, call: int = 1) -> Iterator[Point]:
    yield Point(layer, path, "normalisation", call)  # includes the residual sum, but not gain and shift
    yield Point(layer, path, "layer norm", call)


def _heads(config: LxmertConfig, signature: Signature) -> Iterator[Point]:
    outputs = {spec.name for spec in signature.outputs}
    if "prediction_logits" in outputs:
        yield from _transform("masked_language_head")
        yield Point("masked_language_head", "masked_language_head", "head", output="prediction_logits")
    if "cross_relationship_score" in outputs:
        yield Point("match_head", "match_head", "head", output="cross_relationship_score")
    for head, output in (("answer_head", ANSWER_OUTPUT), ("pair_head", "logits")):
        if output in outputs:
            yield Point(head, f"{head}.expand", "expand")
            yield Point(head, head, "GELU", read_by=f"{head}.layer_norm")
            yield from _layer_norm(head, f"{head}.layer_norm")
            yield Point(head, f"{head}.answers", "head", output=output)
    if objects := [target for target in config.visual_losses if OBJECT_OUTPUTS[target] in outputs]:
        yield from _transform("object_head")
        for target in objects:
            point = Point("object_head", f"object_head.targets.{target}", "head")
            yield replace(point, output=OBJECT_OUTPUTS[target])


def _transform(head: str) -> Iterator[Point]:
    yield Point(head, f"{head}.transform.dense", "projection")
    yield Point(head, f"{head}.transform", "GELU", read_by=f"{head}.transform.layer_norm")
    yield from _layer_norm(head, f"{head}.transform.layer_norm")
