"""What is checked, in which sizes, and where. The program gives the same setting to each step that it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.full_size_checkpoint import full_size_config
from lxmert_export.errors import ConversionError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import ATTENTIONS, Attention, Precision, Task

if TYPE_CHECKING:
    from typing_extensions import Self

TEXT, OBJECTS = 20, 36  # what the published checkpoints were trained on
SMALL = {
    "vocab_size": 500, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "l_layers": 2, "x_layers": 2,
    "r_layers": 1, "num_qa_labels": 40, "visual_feat_dim": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One check. ``work`` is the folder for checkpoints and engines; ``failed`` are failed steps and their reasons."""

    work: str
    task: Task
    small: bool
    device: str
    target: str
    precisions: tuple[Precision, ...]
    attentions: tuple[Attention, ...]
    batches: tuple[int, ...]
    rounds: int
    calls: int
    warm_seconds: float
    failed: Mapping[str, str]

    @property
    def config(self) -> LxmertConfig:
        """The network: the published sizes, or a small one to try the check."""
        config = full_size_config(self.task)
        return config.replace(**SMALL) if self.small else config

    @property
    def batch_ranges(self) -> list[str]:
        """A profile (min:opt:max) for each timed batch; together they take all batches from 1 to the largest."""
        ends = [*self.batches[:-1], max(self.batches[-1], 8)]
        starts = [1, *(batch + 1 for batch in self.batches[:-1])]
        return [f"{low}:{best}:{high}" for low, best, high in zip(starts, self.batches, ends, strict=True)]

    def forms(self, precision: str) -> list[str]:
        """Returns the forms of a precision's graph: ``fp16``, and ``fp16-operator`` with ONNX's Attention operator."""
        return [
            precision if attention == ATTENTIONS[0] else f"{precision}-{attention}" for attention in self.attentions
        ]

    def path(self, *parts: str) -> Path:
        """Returns a path in the work directory."""
        return Path(self.work, *parts)

    def without_places(self, text: str) -> str:
        """Returns a message without the path of the work directory, which is private."""
        return text.replace(f"{self.work}/", "")

    def need(self, step: str) -> None:
        """Raises ``ConversionError`` if a step that is needed has failed."""
        if step in self.failed:
            raise ConversionError(f"{step} failed: {self.failed[step]}")

    def without(self, failed: Mapping[str, str]) -> Self:
        """Returns the same setting, with these failed steps."""
        return replace(self, failed=dict(failed))

    def to_json(self) -> str:
        """Returns one line of JSON, for the command of a step."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what ``to_json`` wrote."""
        values: Any = {
            name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
        }
        return cls(**values)


def precision_of(form: str) -> Precision:
    """Returns the precision of a form."""
    return cast(Precision, form.partition("-")[0])


def attention_of(form: str) -> Attention:
    """Returns how a form spells attention."""
    return cast(Attention, form.partition("-")[2] or ATTENTIONS[0])
