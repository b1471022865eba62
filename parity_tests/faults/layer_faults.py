"""Faults planted into one layer of a written file, drawn by seed: weights and operators changed where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from lxmert_export.spec.weight_names import BACKBONE, TIED_DECODER

Edit = Callable[[np.ndarray], np.ndarray]
HEADS = ("masked_language_head", "match_head", "answer_head", "pair_head")


class UnplantableError(Exception):
    """The file has no such thing: what computed it was folded into something else, or nothing reads it."""


class Planter(Protocol):
    """A written file in the course of being made faulty; kernels are given and taken [outputs, inputs]."""

    def edit(self, parameter: str, change: Edit) -> None: ...
    def swap_query_and_key(self, attention: str) -> None: ...
    def scale_scores(self, attention: str) -> None: ...
    def drop_mask(self, attention: str) -> None: ...
    def change_gelu(self, module: str) -> None: ...
    def change_epsilon(self, norm: str) -> None: ...
    def save(self, directory: Path) -> None: ...


@dataclass(frozen=True)
class LayerFault:
    """A fault, the layer that it is in, and the operator families that may be told of it."""

    kind: str
    layer: str
    module: str
    families: tuple[str, ...]
    plant: Callable[[Planter], None]


def draw_fault(module: nn.Module, generator: np.random.Generator) -> LayerFault:
    """One layer of all, one fault of those that it has room for."""
    faults = layer_faults(module, generator)
    layers = sorted({fault.layer for fault in faults})
    layer = layers[generator.integers(len(layers))]
    kinds = sorted({fault.kind for fault in faults if fault.layer == layer})
    kind = kinds[generator.integers(len(kinds))]
    some = [fault for fault in faults if (fault.layer, fault.kind) == (layer, kind)]
    return some[generator.integers(len(some))]


def layer_of(path: str) -> str:
    """The layer that a parameter or a module is in, read off its name."""
    parts = path.removeprefix(BACKBONE).split(".")
    return ".".join(parts[:2]) if parts[0].endswith("_layers") else parts[0]


def layer_faults(module: nn.Module, generator: np.random.Generator) -> list[LayerFault]:
    """Every fault that a network has room for."""
    faults = []
    for name, parameter in module.named_parameters():
        if name != TIED_DECODER:
            faults += weight_faults(name, parameter.ndim, tuple(parameter.shape), generator)
    for path, _ in module.named_modules():
        end = path.rpartition(".")[2]
        if end.endswith("attention"):
            faults += [
                _operator_fault("swapped query and key", path, ("query projection",), "swap_query_and_key"),
                _operator_fault("wrong head scale", path, ("softmax", "query projection"), "scale_scores"),
                _operator_fault("dropped mask", path, ("softmax",), "drop_mask"),
            ]
        if end.endswith("feed_forward") or end in ("answer_head", "transform"):
            faults.append(_operator_fault("wrong GELU", path, ("GELU",), "change_gelu"))
        if end.endswith("layer_norm"):
            faults.append(_operator_fault("wrong epsilon", path, ("normalisation", "layer norm"), "change_epsilon"))
    return faults


def weight_faults(name: str, axes: int, shape: tuple[int, ...], generator: np.random.Generator) -> list[LayerFault]:
    """The faults of one parameter."""
    edits: dict[str, Edit] = {
        "scaled": lambda array: array * np.asarray(1.5, array.dtype),
        "noisy": lambda array: array + 0.3 * array.std() * generator.standard_normal(array.shape).astype(array.dtype),
        "shifted": lambda array: array + np.asarray(0.3, array.dtype),
        "rolled": lambda array: np.roll(array, 1, axis=0),
    }
    if axes == 2 and shape[0] == shape[1]:
        edits["transposed"] = lambda array: array.T
    module = name.rpartition(".")[0]
    kind = "bias" if name.endswith("bias") else "gain" if axes == 1 else "weight"

    def fault(kind_of_edit: str, edit: Edit) -> LayerFault:
        def plant(planter: Planter) -> None:
            planter.edit(name, edit)

        return LayerFault(f"{kind_of_edit} {kind}", layer_of(name), module, (family_of(module),), plant)

    return [fault(*entry) for entry in edits.items()]


def family_of(module: str) -> str:
    """The operator family of a module that has weights."""
    end = module.rpartition(".")[2]
    if end.endswith("layer_norm"):
        return "layer norm"
    if end in ("query", "key", "value"):
        return f"{end} projection"
    if end == "output":
        return "attention output"
    if end in ("word", "position", "token_type"):
        return "embedding"
    if end in ("answers", *HEADS):
        return "head"
    return "projection" if end in ("features", "boxes", "dense") else end


def _operator_fault(kind: str, path: str, families: tuple[str, ...], method: str) -> LayerFault:
    return LayerFault(kind, layer_of(path), path, families, lambda planter: getattr(planter, method)(path))
