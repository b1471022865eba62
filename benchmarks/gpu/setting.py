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
from lxmert_export.spec.signature import Precision, Task

if TYPE_CHECKING:
    from typing_extensions import Self

TEXT, OBJECTS = 20, 36  # what the published checkpoints were trained on
SMALL = {
    "vocab_size": 500, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "l_layers": 2, "x_layers": 2,
    "r_layers": 1, "num_qa_labels": 40, "visual_feat_dim": 64,
}  # fmt: skip


# The forms of our file: with dynamic axes; with fixed ones; fixed, and written for the CUDA provider (--optimize-for cuda).
DYNAMIC, FIXED, LEAN = "dynamic", "fixed", "lean"


@dataclass(frozen=True)
class Form:
    """One file: its precision, its form, and the batch of a fixed one (None: every batch). Its name is that of its steps."""

    precision: Precision
    kind: str
    batch: int | None = None

    def __str__(self) -> str:
        return "-".join(str(part) for part in (self.precision, self.kind, self.batch) if part is not None)

    @classmethod
    def named(cls, name: str) -> Self:
        """Reads a name."""
        precision, kind, *batch = name.split("-")
        return cls(cast(Precision, precision), kind, int(batch[0]) if batch else None)

    @property
    def fixed(self) -> dict[str, int] | None:
        """The fixed axes of its export."""
        return None if self.batch is None else {"batch": self.batch, "text": TEXT, "objects": OBJECTS}


@dataclass(frozen=True)
class Setting:
    """One check.

    ``work`` is the folder for checkpoints and engines; ``failed`` are failed steps and their reasons. ``no_engines`` says why the
    card or the installation has no TensorRT; None: it has one.
    """

    work: str
    task: Task
    small: bool
    device: str
    target: str
    precisions: tuple[Precision, ...]
    no_engines: str | None
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

    def judged_forms(self, precision: Precision) -> list[Form]:
        """Returns the files of a precision that are judged on the GPU: a fixed one in the smallest batch."""
        first = self.batches[0]
        return [Form(precision, DYNAMIC), Form(precision, FIXED, first), Form(precision, LEAN, first)]

    def timed_forms(self, precision: Precision, batch: int) -> list[Form]:
        """Returns the files of a precision that are timed in a batch."""
        return [Form(precision, DYNAMIC), Form(precision, FIXED, batch), Form(precision, LEAN, batch)]

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
