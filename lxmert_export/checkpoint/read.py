"""Reads a checkpoint and checks it: every tensor is there once, has the right shape, and is finite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lxmert_export.checkpoint.dialects import (
    Named,
    StoredDialect,
    held_task,
    infer_config,
    our_tensors,
    upstream_names,
)
from lxmert_export.checkpoint.files import find_weight_file, read_weights
from lxmert_export.checkpoint.mapped_memory import MappedFiles
from lxmert_export.checkpoint.weight_sets import compare_sets
from lxmert_export.errors import CheckpointError, ConfigError, shortened
from lxmert_export.files import hub
from lxmert_export.files.beside_weights import Companions
from lxmert_export.files.hashing import sha256
from lxmert_export.files.json_files import read_json
from lxmert_export.files.limits import MOST_MISSING_LAYERS
from lxmert_export.option_names import option
from lxmert_export.spec.config import CONFIG_FILE, LAYER_COUNTS, PYTORCH_EPS, LxmertConfig
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING, Weight, weight_names

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a checkpoint came from: its dialect, the name or path that was asked for, and its weight files.

    ``stripped``: what stood before the names of its tensors. ``other_parts``: the parts of a larger model in the same files,
    which ``ignore_other_parts`` left out.
    """

    dialect: StoredDialect
    name: str
    paths: tuple[Path, ...]
    stripped: str = ""
    other_parts: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the bytes of all weight files, one file after the other, in hex."""
        return sha256(*self.paths)


@dataclass(frozen=True)
class Checkpoint:
    """Checked weights by our names (the backbone's begin with ``lxmert.``), in the stored dtypes, memory-mapped if possible.

    ``unused`` are the heads that the file holds and the task does not use. ``fresh`` are the parameters of missing heads, which
    ``fresh_heads`` allows. A tied decoder is the same tensor as the word embedding. ``guessed_heads``: nothing says how many
    attention heads there are, so hidden_size / 64 was taken; the config records it, and every file that is written.
    ``ignored_eps``: the layer_norm_eps of a ``config.json`` beside PyTorch weights, which the code of that dialect ignores; None
    if it is what that code computes with.
    """

    config: LxmertConfig
    task: Task
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]
    fresh: tuple[str, ...]
    source: Source
    guessed_heads: bool = False
    ignored_eps: float | None = None

    @property
    def companions(self) -> Companions:
        """The tokenizer and label files beside the weights."""
        return Companions.beside(
            self.source.paths[0], self.config.num_qa_labels, named_in_config=self.config.extra.get("id2label")
        )


def read_checkpoint(
    name_or_path: str | Path,
    *,
    task: Task | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    fresh_heads: bool = False,
    ignore_other_parts: bool = False,
) -> Checkpoint:
    """Reads a checkpoint of any dialect. ``task`` defaults to the task of the fullest head that the file holds.

    The config is read from ``config.json`` beside the weights; without that file it is inferred from names and shapes.
    ``num_attention_heads`` overrides either. PyTorch dialects get the layer_norm_eps that their code computes with.

    Raises ``CheckpointError``, which names at once all tensors that are missing, unexpected, stored twice, mis-shaped or not
    finite; and if a directory holds two sets of weights that differ. A missing head is an error unless ``fresh_heads``; other
    parts of a larger model are one unless ``ignore_other_parts``.
    """
    if task is not None and task not in TASKS:
        raise CheckpointError(f"unknown task {task!r}; choose from {', '.join(TASKS)}")
    located = hub.locate_checkpoint(name_or_path, revision=revision)
    try:
        path = find_weight_file(located)
    except OSError as error:
        raise _unreadable(located, error) from error
    try:
        raw = read_weights(path)
        named = upstream_names(raw)
        if named.other_parts and not ignore_other_parts:
            raise _other_parts_error(named)
        inferred = infer_config(named, num_attention_heads)
        written = _written_config(path, num_attention_heads)
        _check_layer_counts(written, inferred)
        config, ignored_eps = _as_computed(written or inferred, named.dialect)
        config = config.with_guess((written is None or config.heads_are_guessed) and num_attention_heads is None)
        ours, unexpected = our_tensors(named, config)
        chosen = task or held_task(ours)
        _check_heads(ours, config, chosen, fresh_heads)
        tensors, unused, fresh = _checked(ours, unexpected, named, config, chosen, fresh_heads, raw.paths)
        if located.is_dir():
            compare_sets(located, path, raw, config)
    except OSError as error:
        raise _unreadable(path, error) from error
    except CheckpointError as error:
        if str(error).startswith(str(path)) or f"{path.parent}/" in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error
    source = Source(named.dialect, str(name_or_path), raw.paths, named.stripped, tuple(named.other_parts))
    if named.other_parts:
        LOGGER.warning("%s: left out beside the LXMERT: %s", name_or_path, _listed_parts(named))
    if named.stripped:
        LOGGER.warning("%s: '%s' was stripped from the names of its tensors", name_or_path, named.stripped)
    guessed = config.heads_are_guessed
    if num_attention_heads is None:
        try:
            _say_heads(name_or_path, path.parent / CONFIG_FILE if written else None, config)
        except OSError as error:
            raise _unreadable(path, error) from error
    if ignored_eps is not None:
        LOGGER.warning(
            "%s: layer_norm_eps %g of its %s is not used: PyTorch's LXMERT computes with %g (only TensorFlow's obeys it)",
            name_or_path, ignored_eps, CONFIG_FILE, PYTORCH_EPS,
        )  # fmt: skip
    return Checkpoint(config, chosen, tensors, unused, fresh, source, guessed, ignored_eps)


def _say_heads(name: str | Path, file: Path | None, config: LxmertConfig) -> None:
    """Says that the number of attention heads is a guess, an earlier one or this one, or transformers' default."""
    heads, setter = config.num_attention_heads, option("num_attention_heads")
    counted = f"{heads} attention head{'s' * (heads > 1)}"
    if file is not None and "num_attention_heads" not in read_json(file):
        LOGGER.warning(
            "%s: %s, taken as transformers does, because its %s has no num_attention_heads; %s sets it",
            name, counted, CONFIG_FILE, setter,
        )  # fmt: skip
    elif config.heads_are_guessed:
        origin = f" when its {CONFIG_FILE} was written" if file else ""
        LOGGER.warning("%s: %s, guessed from hidden size / 64%s; %s sets it", name, counted, origin, setter)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    """What the system says of a file, or of the directory that was named."""
    return CheckpointError(f"{error.filename or path}: cannot be read: {error.strerror or error}")


def _check_layer_counts(written: LxmertConfig | None, inferred: LxmertConfig) -> None:
    """``CheckpointError``: a config asks for so many layers that listing the names that are missing would fill the memory."""
    for field in LAYER_COUNTS.values() if written else ():
        asked, held = getattr(written, field), getattr(inferred, field)
        if asked > held + MOST_MISSING_LAYERS:
            raise CheckpointError(f"its {CONFIG_FILE} says {field} {asked}, and the weights hold {held}")


def _as_computed(config: LxmertConfig, dialect: StoredDialect) -> tuple[LxmertConfig, float | None]:
    """Returns a config as the dialect's own code computes with it, and the layer_norm_eps that this code ignores, if any."""
    if dialect not in ("hf", "original") or config.layer_norm_eps == PYTORCH_EPS:
        return config, None
    return config.replace(layer_norm_eps=PYTORCH_EPS), config.layer_norm_eps


def _other_parts_error(named: Named) -> CheckpointError:
    return CheckpointError(
        f"holds other parts beside the LXMERT: {_listed_parts(named)}; {option('ignore_other_parts', True)} "
        "goes on without them"
    )


def _listed_parts(named: Named) -> str:
    return shortened([f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in named.other_parts.items()])


def _written_config(path: Path, num_attention_heads: int | None) -> LxmertConfig | None:
    file = path.parent / CONFIG_FILE
    if not file.is_file():
        return None
    config = LxmertConfig.from_json_file(file)
    if num_attention_heads is None or num_attention_heads == config.num_attention_heads:
        return config
    try:
        return config.replace(num_attention_heads=num_attention_heads)
    except ConfigError as error:
        raise CheckpointError(f"{option('num_attention_heads')}: {error}") from error


def _check_heads(ours: dict[str, Tensor], config: LxmertConfig, task: Task, fresh_heads: bool) -> None:
    lacking = [] if fresh_heads else _lacking_heads(ours, config, task)
    if lacking:
        served = [other for other in TASKS if not _lacking_heads(ours, config, other)]
        raise CheckpointError(
            f"lacks {shortened(lacking)}, which task {task!r} needs; tasks that it can serve: {', '.join(served)}"
        )


def _lacking_heads(ours: dict[str, Tensor], config: LxmertConfig, task: Task) -> list[str]:
    held = {_head(name) for name in ours}
    return [head for head in dict.fromkeys(_head(row.ours) for row in weight_names(config, task)) if head not in held]


def _head(name: str) -> str:
    """Returns ``answer_head`` for ``answer_head.expand.weight``, and ``lxmert`` for any parameter of the backbone."""
    return name.split(".")[0]


def _checked(
    ours: dict[str, Tensor],
    unexpected: list[str],
    named: Named,
    config: LxmertConfig,
    task: Task,
    fresh_heads: bool,
    paths: tuple[Path, ...],
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """Returns the task's tensors in the table's order, the unused heads and the fresh names.

    Raises one ``CheckpointError`` that names every fault.
    """
    rows = {row.ours: row for row in weight_names(config, task)}
    held = {_head(name) for name in ours}
    missing = [name for name in rows if name not in ours]
    fresh = [name for name in missing if fresh_heads and _head(name) not in held and _head(name) != "lxmert"]
    if config.tie_word_embeddings and WORD_EMBEDDING in ours:
        missing = [name for name in missing if name != TIED_DECODER]
    faults = {
        "missing": [name for name in missing if name not in fresh],
        "unexpected": unexpected,
        "stored twice": [name for name, agree in named.repeated.items() if not agree],
        "mis-shaped": list(_misshapen(ours, rows)),
    }
    if not any(faults.values()):
        faults["not finite"] = list(_not_finite({name: ours[name] for name in rows if name in ours}, paths))
        faults["untied"] = _untied(ours, rows, config)
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {shortened(names)}" for kind, names in faults.items() if names)
        raise CheckpointError(f"does not fit its config as an LXMERT for task {task!r}: {listed}")
    if TIED_DECODER in rows and config.tie_word_embeddings:
        ours = {**ours, TIED_DECODER: ours[WORD_EMBEDDING]}
    unused = tuple(dict.fromkeys(_head(name) for name in ours if name not in rows))
    return {name: ours[name] for name in rows if name in ours}, unused, tuple(fresh)


def _misshapen(ours: dict[str, Tensor], rows: dict[str, Weight]) -> Iterator[str]:
    for name, row in rows.items():
        if name in ours and tuple(ours[name].shape) != row.shape:
            yield f"{name} is {list(ours[name].shape)}, the config says {list(row.shape)}"


def _untied(ours: dict[str, Tensor], rows: dict[str, Weight], config: LxmertConfig) -> list[str]:
    """Returns a fault if the decoder's weight differs from the word embedding although the config ties them."""
    copy = ours.get(TIED_DECODER)
    if copy is None or TIED_DECODER not in rows or not config.tie_word_embeddings:
        return []
    words = ours[WORD_EMBEDDING]
    if copy.data_ptr() == words.data_ptr() or torch.equal(copy, words):
        return []
    return [f"{TIED_DECODER} differs from {WORD_EMBEDDING} (if they should differ, set tie_word_embeddings to false)"]


def _not_finite(tensors: dict[str, Tensor], paths: tuple[Path, ...]) -> Iterator[str]:
    mapped = MappedFiles(paths)
    for name, tensor in tensors.items():
        # aminmax returns NaN if there is one and, unlike isfinite(), needs no copy of the tensor.
        low, high = torch.aminmax(tensor)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            yield name
        mapped.forget()
