"""Finds the module of each operator in a Keras graph by the operator's name. Handles strings only.

Example: ``tf_lxmert_for_pre_training_1/lxmert_1/0_3/self_attention_1/query_1/BiasAdd``. Keras appends a number to every layer's
name, and leaves out the list that holds the layer: the first language, vision and cross-modality layers are all called 0. They
are distinguished by Keras' numbers, which rise in the order in which the layers are used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lxmert_export.spec.config import LxmertConfig

NUMBERED = re.compile(r"(.*)_(\d+)")


@dataclass(frozen=True)
class Operation:
    """The place of one operator: its module's path, the number of the module's call (from 1), and its name in the module."""

    module: str
    call: int
    kind: str


@dataclass(frozen=True)
class _Scope:
    parts: tuple[str, ...]
    numbers: tuple[int, ...]


def read_names(names: Iterable[str], config: LxmertConfig) -> dict[str, Operation]:
    """Returns the place of each operator, by its name.

    Names without a module are left out, and so are names of layers that cannot be distinguished.
    """
    scopes = {name: scope for name in names if (scope := _scope(name)) is not None}
    lists = _lists(scopes.values(), config)
    uses: defaultdict[str, set[tuple[int, ...]]] = defaultdict(set)
    modules = {}
    for name, scope in scopes.items():
        if (module := _module(scope, lists)) is not None:
            modules[name] = module
            uses[module].add(scope.numbers)
    return {
        name: Operation(module, sorted(uses[module]).index(scopes[name].numbers) + 1, name.rpartition("/")[2])
        for name, module in modules.items()
    }


def _scope(name: str) -> _Scope | None:
    """The scopes between the model's name and the operator's, each split into a name and Keras' number."""
    found = [NUMBERED.fullmatch(part) for part in name.split("/")[1:-1]]
    if "/" not in name or not all(found):
        return None
    pairs = [(match[1], int(match[2])) for match in found if match is not None]
    return _Scope(tuple(part for part, _ in pairs), tuple(number for _, number in pairs))


def _lists(scopes: Iterable[_Scope], config: LxmertConfig) -> dict[tuple[str, int], str]:
    """The list that holds each layer of a list, by the layer's name and Keras' number."""
    crossing: defaultdict[tuple[str, int], bool] = defaultdict(bool)
    for scope in scopes:
        place = 1 if scope.parts[:1] == ("lxmert",) else 0
        if len(scope.parts) > place and scope.parts[place].isdigit():
            crossing[scope.parts[place], scope.numbers[place]] |= "cross_attention" in scope.parts
    lists = {key: "cross_modality_layers" for key, crosses in crossing.items() if crosses}
    for layer in {layer for layer, _ in crossing}:
        single = sorted(key for key, crosses in crossing.items() if key[0] == layer and not crosses)
        sides = [("language_layers", config.l_layers), ("vision_layers", config.r_layers)]
        wanted = [name for name, layers in sides if int(layer) < layers]
        if len(single) == len(wanted):  # else a layer is missing, and the other could be of either list
            lists |= dict(zip(single, wanted, strict=True))
    return lists


def _module(scope: _Scope, lists: Mapping[tuple[str, int], str]) -> str | None:
    parts: list[str] = []
    for part, number in zip(scope.parts, scope.numbers, strict=True):
        if part.isdigit():
            if (part, number) not in lists:
                return None
            parts.append(lists[part, number])
        elif part == "word":  # the backbone calls the word embedding itself, so its parent is not in the name
            parts.append("embeddings")
        parts.append(part)
    return ".".join(parts)
