"""Finds the LXMERT in a file, whatever its tensors are nested in, whatever stands before their names, whatever lies beside it.

Every LXMERT has cross-modality layers. What stands before the names of those is stripped from all names:

    model.module.net.lxmert.encoder.x_layers.0.….query.weight    in the file: keys of nested dictionaries, then the name
                     lxmert.encoder.x_layers.0.….query.weight    as read; ``model.module.net.`` is stripped
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lxmert_export.checkpoint.altered_weights import check_weights_are_plain
from lxmert_export.errors import CheckpointError, shortened
from lxmert_export.files.limits import MOST_NESTED_DICTIONARIES
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.weight_names import BACKBONE, weight_names

# What DataParallel, DDP and DeepSpeed, torch.compile, FSDP and activation checkpointing add to names, at any place in them.
WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
ORIGINAL_BACKBONES = ("lxrt_encoder.model.bert.", "bert.")
BACKBONES = (*ORIGINAL_BACKBONES, BACKBONE)
OPTIMIZER_KEY = "param_groups"  # every optimizer's state_dict has it
# Buffers that some files hold beside the embeddings, and the values that say nothing new.
KNOWN_BUFFERS: dict[str, Callable[[int], Tensor]] = {
    "embeddings.position_ids": torch.arange,
    "embeddings.token_type_ids": torch.zeros,
}


@dataclass(frozen=True)
class _Naming:
    """A way to name the weights: how names of cross-modality layers end, and how those of backbone and heads begin."""

    cross_modality: re.Pattern[str]
    backbone: tuple[str, ...]
    heads: tuple[str, ...]

    @classmethod
    def of(cls, names: list[str], layers: str, heads: tuple[str, ...]) -> _Naming:
        """From the names of a backbone, without its prefix, and the beginning of its cross-modality layers' names."""
        first = f"{layers}.0."
        ends = "|".join(re.escape(name.removeprefix(first)) for name in names if name.startswith(first))
        return cls(
            re.compile(rf"(?P<prefix>(?:.*\.)?){re.escape(layers)}\.\d+\.(?:{ends})"),
            tuple(dict.fromkeys(f"{name.split('.')[0]}." for name in names)),
            heads,
        )


_ROWS = weight_names(LxmertConfig(), "model")
UPSTREAM = _Naming.of(
    [row.upstream.removeprefix(BACKBONE) for row in _ROWS],
    "encoder.x_layers",
    ("cls.predictions.", "cls.seq_relationship.", "obj_predict_head.", "answer_head.", "logit_fc."),
)
OURS = _Naming.of(
    [row.ours.removeprefix(BACKBONE) for row in _ROWS],
    "cross_modality_layers",
    ("masked_language_head.", "match_head.", "object_head.", "answer_head.", "pair_head."),
)


@dataclass
class LxmertInside:
    """The LXMERT that was found in a file.

    | field | |
    |---|---|
    | ``names`` | its tensors: the name in the file → the name as read; the backbone's begin with ``lxmert.`` |
    | ``stripped`` | what stood before the names, wrappers among them |
    | ``other_parts`` | what else the file holds: parts of a larger model, and the number of tensors of each |
    | ``is_ours`` | the names are those of our own ``state_dict()`` |
    | ``is_original`` | the names are those of airsplay/lxmert |
    """

    is_ours: bool
    is_original: bool
    names: dict[str, str] = field(default_factory=dict)
    stripped: str = ""
    other_parts: Counter[str] = field(default_factory=Counter)


def nested_tensors(stored: Mapping[object, object]) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a dictionary and of those inside it, by their keys joined with dots; optimizers are left out.

    ``CheckpointError``: dictionaries are nested too deep.
    """
    waiting = deque[tuple[str, int, Mapping[object, object]]]([("", 0, stored)])
    seen = set()
    while waiting:
        path, depth, mapping = waiting.popleft()
        if id(mapping) in seen or OPTIMIZER_KEY in mapping:
            continue
        if depth > MOST_NESTED_DICTIONARIES:
            raise CheckpointError(f"dictionaries are nested more than {MOST_NESTED_DICTIONARIES} deep")
        seen.add(id(mapping))
        for key, value in mapping.items():
            if isinstance(value, Tensor):
                yield f"{path}{key}", value
            elif isinstance(value, Mapping):
                waiting.append((f"{path}{key}.", depth + 1, value))


def find_lxmert(tensors: Mapping[str, Tensor], *, is_tensorflow: bool) -> LxmertInside:
    """Finds the one LXMERT among the tensors of a file.

    ``CheckpointError``: there is none, there are several (the message lists them), it counts positions in its own way, or
    its weights are pruned, parametrised, quantised or adapted.
    """
    check_weights_are_plain(tensors)
    plain = {name: _plain_name(name, is_tensorflow=is_tensorflow) for name in tensors}
    prefix, naming = _only_lxmert(list(plain.values()))
    backbone = next((name for name in BACKBONES if f".{prefix}".endswith(f".{name}")), "")
    inside = LxmertInside(naming is OURS, backbone in ORIGINAL_BACKBONES)
    # A head stands beside the backbone, or beside anything that the backbone is nested in.
    places = [
        prefix[:end] for end in range(len(prefix), -1, -1) if prefix[:end] in ("", prefix) or prefix[end - 1] == "."
    ]
    for name, short in plain.items():
        rest = short.removeprefix(prefix) if short.startswith(prefix) else ""
        head = next((found for place in places if (found := _after(place, short)).startswith(naming.heads)), "")
        if rest in KNOWN_BUFFERS:
            _check_buffer(name, tensors[name], KNOWN_BUFFERS[rest])
        elif rest.startswith(naming.backbone) or (rest and backbone):
            inside.names[name] = BACKBONE + rest
            stripped = _stripped(short if is_tensorflow else name, backbone + rest)
            inside.stripped = max(inside.stripped, stripped, key=len)
        elif head:
            inside.names[name] = head
        elif tensors[name].is_floating_point() and tensors[name].dim():  # no counter, no state of a random generator
            inside.other_parts[_part(short, prefix)] += 1
    return inside


def _plain_name(name: str, *, is_tensorflow: bool) -> str:
    """Returns a name without wrappers, spelled as PyTorch spells it today."""
    if is_tensorflow:
        name = name.removesuffix(":0").replace("/", ".").replace("_._", ".")
        name = re.sub(r"\.(kernel|embeddings)$", ".weight", name)
    # Early files have BERT's old TensorFlow names for LayerNorm.
    name = re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _only_lxmert(names: list[str]) -> tuple[str, _Naming]:
    """Returns what stands before the backbone's names, and how they are named."""
    found: Counter[tuple[str, _Naming]] = Counter()
    for name in names:
        for naming in (UPSTREAM, OURS):
            if match := naming.cross_modality.fullmatch(name):
                found[match["prefix"], naming] += 1
    if not found:
        some = shortened(names, most=3) or "nothing"
        raise CheckpointError(f"not an LXMERT checkpoint: it has no cross-modality layers (it holds {some})")
    if len(found) > 1:
        listed = shortened([prefix or "(no prefix)" for prefix, _ in found])
        raise CheckpointError(
            f"holds {len(found)} LXMERTs: {listed}; save the state_dict of one of them in a file of its own, and name that"
        )
    return next(iter(found))


def _after(place: str, name: str) -> str:
    return name[len(place) :] if name.startswith(place) else ""


def _check_buffer(name: str, stored: Tensor, values: Callable[[int], Tensor]) -> None:
    if stored.is_meta or not torch.equal(stored.flatten().double(), values(stored.numel()).double()):
        raise CheckpointError(
            f"{name}: an LXMERT counts positions from 0, and its default token type is 0; this one differs"
        )


def _stripped(name: str, read: str) -> str:
    """Returns the parts of a name that are not in the name as read: prefixes and wrappers."""
    kept, stripped = read.split(".")[:-1], []
    for part in reversed(name.split(".")[:-1]):
        if kept and part == kept[-1]:
            kept.pop()
        else:
            stripped.append(f"{part}.")
    return "".join(reversed(stripped))


def _part(name: str, prefix: str) -> str:
    """Returns the beginning of a name up to where it leaves the way to the LXMERT."""
    own, way = name.split("."), prefix.split(".")
    shared = next((n for n, (one, other) in enumerate(zip(own, way, strict=False)) if one != other), len(way) - 1)
    return ".".join(own[: shared + 1])
