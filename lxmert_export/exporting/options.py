"""All options of ``lx.export`` in one value, which refuses options that do not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from lxmert_export.artifact.targets import TARGETS, Target
from lxmert_export.errors import ConversionError, as_given
from lxmert_export.option_names import option
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.sample_inputs import FAMILY_KINDS
from lxmert_export.spec.signature import ATTENTION_OPSET, ATTENTIONS, Attention, Precision, Signature, Task

CHOICES = {
    "io_dtype": ("float32", "float16"),
    "fp32_islands": ("standard", "auto", "standard+"),
    "attention": ATTENTIONS,
    "optimize_for": (None, "cpu", "cuda"),
    "int8_range": ("8bit", "7bit"),
    "file_format": ("saved-model", "keras"),
}
# Options that apply to some precisions only.
OF_PRECISION = {
    "fp32_islands": ("fp16",), "full_integer": ("int8",), "calibration": ("int8",), "questions": ("int8",),
    "int8_range": ("int8",), "int8_keep": ("int8",),
}  # fmt: skip
# Options that must be left out if the user gives a signature, which contains their values.
SAID_BY_SIGNATURE = ("fixed", "hidden_states", "attentions", "object_heads", "io_dtype")


@dataclass(frozen=True)
class ExportOptions:
    """The options of ``lx.export``, named as its keywords and documented there.

    Raises ``ConversionError`` for an unknown choice, for an option that the target or the precision does not have, and for
    options that contradict each other.
    """

    target: str
    precision: Precision = "fp32"
    task: Task | None = None
    signature: Signature | None = None
    config: LxmertConfig | None = None
    fixed: Mapping[str, int] | None = None
    hidden_states: bool = False
    attentions: bool = False
    object_heads: bool = False
    io_dtype: str = "float32"
    opset: int | None = None
    fp32_islands: str = "standard"
    attention: Attention = "decomposed"
    optimize_for: str | None = None
    single_file: bool = False
    split: bool = False
    without_families: tuple[str, ...] = ()
    file_format: str = "saved-model"
    full_integer: bool = False
    calibration: str | Path | None = None
    questions: str | Path | None = None
    int8_range: str = "8bit"
    int8_keep: str | Sequence[str] = ()
    revision: str | None = None
    num_attention_heads: int | None = None
    ignore_other_parts: bool = False
    parity: bool = True
    keep_failed: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.fixed:
            object.__setattr__(self, "fixed", None)
        if not isinstance(self.without_families, str):  # which is refused below
            object.__setattr__(self, "without_families", tuple(self.without_families or ()))
        names = (self.int8_keep,) if isinstance(self.int8_keep, str) else tuple(self.int8_keep or ())
        object.__setattr__(self, "int8_keep", names)
        self._check_choices()
        if wrong := list(self._misplaced()):
            raise ConversionError(f"{_names(wrong)}: not an option of {self.precision} {self.target}; leave it out")
        if self.calibration is not None and not self.calibrates:
            given, needed = option("calibration"), option("full_integer")
            raise ConversionError(f"{given}: only {needed} uses it; leave {given} out, or add {needed}")
        if self.questions is not None and self.calibration is None:
            raise ConversionError(
                f"{option('questions')}: needs features to ask about: give {option('calibration')}, too"
            )
        self._check_gate()
        self._check_attention()
        self._check_int8()
        self._check_device()
        if self.split and self.single_file:
            raise ConversionError(
                f"{option('split')}: both halves read the weights from one file beside them; leave {option('single_file')} out"
            )
        if self.signature is not None and (repeated := [name for name in SAID_BY_SIGNATURE if self._is_given(name)]):
            raise ConversionError(f"{_names(repeated)}: the given signature contains this already; leave it out")

    @property
    def row(self) -> Target:
        """The target's row in ``TARGETS``."""
        return TARGETS[self.target]

    @property
    def variant(self) -> str:
        """The last parts of the output's default name: ``-full-integer``, ``-keras``, ``-cpu``, ``-split`` or nothing."""
        chosen = {
            f"-{self.optimize_for}": self.optimize_for is not None,
            "-full-integer": self.full_integer,
            "-keras": self.file_format == "keras",
            "-split": self.split,
        }
        return "".join(name for name, is_chosen in chosen.items() if is_chosen)

    @property
    def calibrates(self) -> bool:
        """Whether ranges of activations are measured on real inputs."""
        return self.full_integer or (self.target == "onnx" and self.precision == "int8")

    @property
    def searches_islands(self) -> bool:
        """Whether float32 islands are searched."""
        return self.fp32_islands != "standard"

    def _is_given(self, name: str) -> bool:
        default = next(field.default for field in fields(self) if field.name == name)
        return bool(getattr(self, name) != default)

    def _check_choices(self) -> None:
        convertible = tuple(name for name, row in TARGETS.items() if row.converter is not None)
        if self.target not in convertible:
            engines = "; lx.build_engine builds engines" if self.target in TARGETS else ""
            raise ConversionError(
                f"unknown target {as_given(self.target)}; choose from {', '.join(convertible)}{engines}"
            )
        if self.precision not in self.row.precisions:
            raise ConversionError(
                f"target {self.target} has no precision {as_given(self.precision)}; choose from {', '.join(self.row.precisions)}"
            )
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                known = ", ".join(choice for choice in choices if choice is not None)
                raise ConversionError(f"unknown {option(name)} {as_given(value)}; choose from {known}")

        named = option("without_families", self.without_families)
        if isinstance(self.without_families, str) or not all(
            name in tuple(FAMILY_KINDS) for name in self.without_families
        ):
            raise ConversionError(f"{named}: not names of families of inputs; choose from {', '.join(FAMILY_KINDS)}")
        if set(self.without_families) == FAMILY_KINDS.keys():
            raise ConversionError(f"{named}: leaves nothing to judge on; leave {option('parity', False)} to say so")

    def _misplaced(self) -> Iterator[str]:
        """Yields the given options that this target does not have, or not in this precision."""
        for name in (field.name for field in fields(self)):
            is_some_targets = any(name in row.options for row in TARGETS.values())
            fits = name in self.row.options and self.precision in OF_PRECISION.get(name, (self.precision,))
            if is_some_targets and not fits and self._is_given(name):
                yield name

    def _check_gate(self) -> None:
        """Refuses what needs the gate if it is skipped."""
        if self.parity:
            return
        if self.searches_islands:
            raise ConversionError(
                f"{option('fp32_islands', self.fp32_islands)}: searches what passes the parity gate; leave "
                f"{option('parity', False)} out"
            )
        if self.keep_failed is not None:
            raise ConversionError(
                f"{option('keep_failed')}: only the parity gate refuses artifacts; leave {option('parity', False)} out"
            )

    def _check_int8(self) -> None:
        if self.target != "onnx" or self.precision != "int8":
            return
        chosen = option("precision", "int8")
        if self.attention != "decomposed":
            raise ConversionError(
                f"{chosen}: an attention operator holds no matmul that could compute in int8; leave {option('attention')} out"
            )
        if self.io_dtype != "float32":
            raise ConversionError(f"{chosen}: inputs and outputs are float32; leave {option('io_dtype')} out")

    def _check_attention(self) -> None:
        if self.attention == "decomposed":
            return
        chosen, instead = option("attention", "operator"), option("attention", "decomposed")
        if self.opset is not None and self.opset < ATTENTION_OPSET:
            raise ConversionError(
                f"{chosen}: needs opset {ATTENTION_OPSET} or later, not {self.opset}; leave {option('opset')} out"
            )
        if self.attentions:
            raise ConversionError(
                f"{chosen}: gives no attention probabilities; leave {option('attentions')} out, or choose {instead}"
            )
        if self.searches_islands:
            raise ConversionError(
                f"{option('fp32_islands', self.fp32_islands)}: an attention operator is one node, so no part of it can be an "
                f"island; choose {instead}"
            )

    def _check_device(self) -> None:
        if self.optimize_for == "cpu" and self.precision in ("fp16", "bf16"):
            raise ConversionError(
                f"{option('optimize_for')}: not an option of {self.precision} {self.target}, except for cuda; leave it out"
            )
        if self.optimize_for != "cuda":
            return
        chosen = option("optimize_for", self.optimize_for)
        if self.precision == "int8":
            raise ConversionError(
                f"{chosen}: its fused operators compute in floating point, and onnxruntime's CUDA provider has none in int8: "
                f"leave {option('optimize_for')} out, or choose fp16"
            )
        if self.attentions:
            raise ConversionError(
                f"{chosen}: a fused attention gives no probabilities; leave {option('attentions')} or "
                f"{option('optimize_for')} out"
            )
        if self.attention != "decomposed":
            raise ConversionError(
                f"{chosen}: writes attentions in the form that its kernels take; leave {option('attention')} out"
            )
        if self.searches_islands:
            raise ConversionError(
                f"{option('fp32_islands', self.fp32_islands)}: a fused operator is one node, so no part of it can be an island; "
                f"leave {option('optimize_for')} out"
            )
        if self.precision == "fp32" and self.opset is not None and self.opset < ATTENTION_OPSET:
            raise ConversionError(
                f"{chosen}: fp32 needs opset {ATTENTION_OPSET} or later, not {self.opset}; leave {option('opset')} out"
            )


def _names(keywords: Iterable[str]) -> str:
    return ", ".join(map(option, keywords))
