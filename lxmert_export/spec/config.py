"""LxmertConfig: the sizes and switches of an LXMERT, as published in ``config.json``.

Field names and defaults are those of the published checkpoints (unc-nlp/lxmert-*) and of transformers' LxmertConfig.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from reprlib import repr as short  # a wrong value may be as long as its file
from typing import TYPE_CHECKING, Any

from lxmert_export.errors import ArtifactError, ConfigError
from lxmert_export.files import hub
from lxmert_export.files.appearing_together import directory_made
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.files.json_files import read_json

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG_FILE = "config.json"
# What the original code and transformers' PyTorch LXMERT compute with, whatever layer_norm_eps says. TFLxmert obeys the field.
PYTORCH_EPS = 1e-12

POSITIVE = frozenset(
    "vocab_size hidden_size num_attention_heads intermediate_size max_position_embeddings type_vocab_size x_layers "
    "num_qa_labels num_object_labels num_attr_labels visual_feat_dim visual_pos_dim layer_norm_eps "
    "visual_loss_normalizer initializer_range".split()
)
PROBABILITIES = frozenset(("hidden_dropout_prob", "attention_probs_dropout_prob"))
# A field of ours, true if nothing said how many heads there are when the config was made: hidden_size / 64 was taken.
GUESSED_HEADS = "num_attention_heads_guessed"
# Written only if they differ from the default, as transformers does.
WRITTEN_IF_CHANGED = frozenset(("output_attentions", "output_hidden_states", "return_dict", "tie_word_embeddings"))
# `num_hidden_layers` of a published config is a dict with these keys.
LAYER_COUNTS = {"language": "l_layers", "cross_encoder": "x_layers", "vision": "r_layers"}


@dataclass(frozen=True)
class LxmertConfig:
    """The sizes and switches of an LXMERT. Unknown fields of a ``config.json`` are kept in ``extra``.

    Errors: ``ConfigError``: a field has the wrong type or range; the message names the field.
    Source: transformers ``LxmertConfig`` and the ``config.json`` of unc-nlp/lxmert-*.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    l_layers: int = 9
    x_layers: int = 5
    r_layers: int = 5
    num_qa_labels: int = 9500
    num_object_labels: int = 1600
    num_attr_labels: int = 400
    visual_feat_dim: int = 2048
    visual_pos_dim: int = 4
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = PYTORCH_EPS
    visual_loss_normalizer: float = 6.67
    task_matched: bool = True
    task_mask_lm: bool = True
    task_obj_predict: bool = True
    task_qa: bool = True
    visual_obj_loss: bool = True
    visual_attr_loss: bool = True
    visual_feat_loss: bool = True
    tie_word_embeddings: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in FIELD_TYPES.items():
            _check_field(name, kind, getattr(self, name))
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act != "gelu":
            raise ConfigError(f"hidden_act is {short(self.hidden_act)}; LXMERT uses only 'gelu' (exact, by erf)")

    @property
    def head_size(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def heads_are_guessed(self) -> bool:
        """Whether num_attention_heads was guessed, by this run or by the one that wrote the config."""
        return self.extra.get(GUESSED_HEADS) is True

    def with_guess(self, guessed: bool) -> Self:
        """Returns a copy that says whether its num_attention_heads is a guess."""
        extra = {name: value for name, value in self.extra.items() if name != GUESSED_HEADS}
        return self.replace(extra={**extra, **({GUESSED_HEADS: True} if guessed else {})})

    @property
    def visual_losses(self) -> tuple[str, ...]:
        """The targets of the object head that are switched on (``obj``, ``attr``, ``feat``), in upstream's order."""
        switches = {"obj": self.visual_obj_loss, "attr": self.visual_attr_loss, "feat": self.visual_feat_loss}
        return tuple(name for name, on in switches.items() if on) if self.task_obj_predict else ()

    def visual_target_size(self, target: str) -> int:
        """Returns the width of one target of the object head: ``obj``, ``attr`` or ``feat``."""
        return {"obj": self.num_object_labels, "attr": self.num_attr_labels, "feat": self.visual_feat_dim}[target]

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed. ``ConfigError``: as for a new config."""
        return replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a config from what ``config.json`` holds. Layer counts may come from its ``num_hidden_layers`` dict."""
        if values.get("model_type", "lxmert") != "lxmert":
            raise ConfigError(
                f"model_type is {short(values['model_type'])}, not 'lxmert': this is another model's config"
            )
        known = {name: value for name, value in values.items() if name in FIELD_TYPES}
        extra = {name: value for name, value in values.items() if name not in FIELD_TYPES}
        derived = ("num_hidden_layers", "model_type")  # to_dict writes them again
        known |= _layer_counts(known, values.get("num_hidden_layers"))
        return cls(**known, extra={name: value for name, value in extra.items() if name not in derived})

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``config.json`` holds, with ``num_hidden_layers`` and the unknown fields."""
        defaults = {f.name: f.default for f in fields(self)}
        known = {
            name: getattr(self, name)
            for name in FIELD_TYPES
            if name not in WRITTEN_IF_CHANGED or getattr(self, name) != defaults[name]
        }
        counts = {key: getattr(self, name) for key, name in LAYER_COUNTS.items()}
        return dict(sorted({**self.extra, **known, "model_type": "lxmert", "num_hidden_layers": counts}.items()))

    @classmethod
    def from_json_file(cls, path: str | Path) -> Self:
        """Reads a ``config.json``. ``ConfigError`` names the file."""
        try:
            values = read_json(Path(path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must be a JSON object, not {type(values).__name__}")
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_json_file(self, path: str | Path) -> None:
        """Writes ``config.json``, with sorted keys. ``ArtifactError``: it cannot be written; an older one stays as it was."""
        file = Path(path).absolute()
        try:
            with directory_made(file.parent):
                replace_files(file.parent, {file.name: self.to_json()})
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be written: {error.strerror}; nothing was changed") from error

    def to_json(self) -> bytes:
        """Returns what ``to_json_file`` writes."""
        return (json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> Self:
        """Reads the ``config.json`` of a directory or of a hub repository."""
        return cls.from_json_file(hub.locate_file(name_or_path, CONFIG_FILE, revision=revision))

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes ``config.json`` into a directory, and creates the directory if needed."""
        self.to_json_file(Path(directory) / CONFIG_FILE)


FIELD_TYPES: dict[str, type] = {
    f.name: {"int": int, "float": float, "str": str, "bool": bool}[str(f.type)]
    for f in fields(LxmertConfig)
    if f.name != "extra"
}


def _check_field(name: str, kind: type, value: object) -> None:
    # In Python a bool is an int, but True is not a size. In JSON an int may stand for a float.
    right_type = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not right_type or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be {kind.__name__}, not {short(value)}")
    if isinstance(value, str | bool) or not isinstance(value, int | float):
        return
    if name in PROBABILITIES:
        if not 0 <= value < 1:
            raise ConfigError(f"{name} must be at least 0 and below 1, not {short(value)}")
    elif not 0 <= value < float("inf") or (name in POSITIVE and value == 0):
        raise ConfigError(f"{name} must be {'positive' if name in POSITIVE else 'zero or more'}, not {short(value)}")


def _layer_counts(known: Mapping[str, Any], counts: object) -> dict[str, Any]:
    """The layer counts of the ``num_hidden_layers`` dict. ``ConfigError``: they contradict the ``*_layers`` fields."""
    if not isinstance(counts, dict):  # absent, or the plain integer that generic tools add
        return {}
    found = {name: counts[key] for key, name in LAYER_COUNTS.items() if key in counts}
    for name, value in found.items():
        if known.get(name, value) != value:
            raise ConfigError(f"{name} is {short(known[name])}, but num_hidden_layers says {short(value)}")
    return found
