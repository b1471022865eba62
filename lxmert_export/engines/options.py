"""The options of an engine's build besides its precision, and the targets that refuse them, in one table.

Refusals for TensorRT-RTX were tried with tensorrt_rtx 1.7.1.116 on a machine without a GPU. The others follow NVIDIA's
documents (support matrices, migration pages and DLA pages of TensorRT 10.x to 11.4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lxmert_export.errors import ConversionError
from lxmert_export.spec.signature import DYNAMIC_AXES, Precision, Signature


@dataclass(frozen=True)
class BuildOptions:
    """The options of a build besides its precision; ``OPTIONS`` says which targets refuse them."""

    version_compatible: bool = False
    hardware_compatible: bool = False
    strip: bool = False
    refit: bool = False
    weight_streaming: bool = False
    timing_cache: str | None = None
    builder_level: int | None = None
    dla: bool = False

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are given, by name; level 0 and an empty path count as given."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}


@dataclass(frozen=True)
class Option:
    """One option: its flag, Polygraphy's argument for it, and the reason of each kind of target that refuses it.

    We have run none of the options. With weight streaming we have built an engine on TensorRT-RTX, but the option has an effect
    only when the engine is run.
    """

    flag: str
    argument: str
    refused: Mapping[str, str] = field(default_factory=dict)


JETSON = ("orin-jp6", "orin-jp7", "thor")

_WEIGHTLESS = (
    "TensorRT-RTX builds such an engine only on a machine with a GPU, and for one compute capability (NVIDIA's documentation; "
    "without a GPU 1.7.1 failed): leave it out"
)
_ON_JETPACK = (
    "NVIDIA supports hardware compatibility neither on JetPack nor on DRIVE OS: leave it out, and build on each device"
)
# The only place that says which kind of target refuses which option.
OPTIONS: dict[str, Option] = {
    "version_compatible": Option(
        "--version-compatible",
        "version_compatible",
        {
            "rtx": "TensorRT-RTX 1.7 lacks the lean runtime that such an engine contains: build an engine for each version"
        },
    ),
    "hardware_compatible": Option(
        "--hardware-compatible",
        "hardware_compatibility_level",
        {
            "rtx": "it changes no byte of a TensorRT-RTX engine, which is portable anyway: use --compute-capability",
            **dict.fromkeys(JETSON, _ON_JETPACK),
        },
    ),
    "strip": Option("--strip", "strip_plan", {"rtx": _WEIGHTLESS}),
    "refit": Option("--refit", "refittable", {"rtx": _WEIGHTLESS}),
    "weight_streaming": Option("--weight-streaming", "weight_streaming"),
    "timing_cache": Option(
        "--timing-cache",
        "load_timing_cache",
        {"rtx": "TensorRT-RTX times nothing during a build; its cache is made when the engine is loaded: leave it out"},
    ),
    "builder_level": Option(
        "--builder-level",
        "builder_optimization_level",
        {"rtx": "levels 0 to 5 give the same TensorRT-RTX engine, byte for byte: leave it out"},
    ),
    "dla": Option(
        "--dla",
        "use_dla",
        {
            "rtx": "TensorRT-RTX does not build for a DLA; use --target orin-jp7",
            "orin-jp6": "TensorRT 10 builds no strongly typed network for a DLA, and ours always are; use --target orin-jp7",
            "thor": "Thor has no DLA: leave it out, the engine runs on the GPU",
            "datacenter": "only Jetson AGX Orin has a DLA: leave it out",
        },
    ),
}
BUILDER_LEVELS = range(6)


def check_options(kind: str, precision: Precision, options: BuildOptions) -> None:
    """Raises one ``ConversionError`` that names every given option that the kind of target refuses."""
    level = options.builder_level
    if level is not None and level not in BUILDER_LEVELS:
        raise ConversionError(f"--builder-level must be 0 to {BUILDER_LEVELS[-1]}, not {level}")
    refused = [f"{OPTIONS[name].flag}: {why}" for name in options.chosen if (why := OPTIONS[name].refused.get(kind))]
    if refused:
        raise ConversionError(f"--target {kind} refuses {'; '.join(refused)}")
    if options.dla and precision != "fp16":
        raise ConversionError(f"--dla: a DLA computes in fp16, not in {precision}: add --fp16, or leave --dla out")


def check_dla(options: BuildOptions, signature: Signature) -> None:
    """Raises ``ConversionError`` if a DLA is asked for and the graph has dynamic axes: a DLA takes one size of each axis."""
    if options.dla and (dynamic := [axis for axis in DYNAMIC_AXES if axis not in signature.fixed_sizes]):
        listed = ", ".join(f"--{axis}" for axis in dynamic)
        raise ConversionError(
            f"--dla: a DLA takes one size of each axis: give {listed} one size each, or leave --dla out"
        )
