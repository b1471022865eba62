"""What may be asked of an engine's build beside its precision, and which kind of target refuses what: one table.

What is refused for TensorRT-RTX was tried with tensorrt_rtx 1.7.1.116 on a machine without a GPU; the rest is NVIDIA's word
(support matrices, migration pages and DLA pages of TensorRT 10.x to 11.4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lxmert_export.errors import ConversionError
from lxmert_export.spec.signature import DYNAMIC_AXES, Precision, Signature


@dataclass(frozen=True)
class BuildOptions:
    """What may be asked of a build beside its precision; ``OPTIONS`` says which target can do what."""

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
        """Those that were asked for, by name; level 0 and an empty path are choices too."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}


@dataclass(frozen=True)
class Option:
    """One option: its flag, Polygraphy's argument for it, and why a kind of target refuses it.

    No run of ours has executed any of them: weight streaming was built with, on TensorRT-RTX, and is of use only where it runs.
    """

    flag: str
    argument: str
    refused: Mapping[str, str] = field(default_factory=dict)


JETSON = ("orin-jp6", "orin-jp7", "thor")

_WEIGHTLESS = (
    "TensorRT-RTX builds such an engine only on a machine with a GPU, and for one compute capability (NVIDIA's documentation); "
    "without one 1.7.1 fails (tried): leave it out"
)
_ON_JETPACK = (
    "NVIDIA supports hardware compatibility neither on JetPack nor on DRIVE OS: build on each device, without it"
)
# Each option, and which kind of target refuses it: the one place that says so.
OPTIONS: dict[str, Option] = {
    "version_compatible": Option(
        "--version-compatible",
        "version_compatible",
        {"rtx": "TensorRT-RTX 1.7 lacks the lean runtime that goes into such an engine: build anew for each version"},
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
        {"rtx": "TensorRT-RTX times nothing while it builds; its cache is made where the engine is loaded"},
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
            "rtx": "TensorRT-RTX builds for no DLA; --target orin-jp7 does",
            "orin-jp6": "the DLA of TensorRT 10 takes no strongly typed network, and ours always are; --target orin-jp7 does",
            "thor": "Thor has no DLA: leave it out, the engine runs on the GPU",
            "datacenter": "only Jetson AGX Orin has a DLA: leave it out",
        },
    ),
}
BUILDER_LEVELS = range(6)


def check_options(kind: str, precision: Precision, options: BuildOptions) -> None:
    """Every option that was asked for and cannot be had, all of them named at once."""
    level = options.builder_level
    if level is not None and level not in BUILDER_LEVELS:
        raise ConversionError(f"--builder-level must be 0 to {BUILDER_LEVELS[-1]}, not {level}")
    refused = [f"{OPTIONS[name].flag}: {why}" for name in options.chosen if (why := OPTIONS[name].refused.get(kind))]
    if refused:
        raise ConversionError(f"--target {kind} cannot have {'; '.join(refused)}")
    if options.dla and precision != "fp16":
        raise ConversionError(f"--dla: a DLA computes in fp16, not in {precision}: add --fp16, or leave --dla out")


def check_dla(options: BuildOptions, signature: Signature) -> None:
    """``ConversionError`` where a DLA is asked for and a graph has dynamic axes: NVIDIA's lets no profile be a range."""
    if options.dla and (dynamic := [axis for axis in DYNAMIC_AXES if axis not in signature.fixed_sizes]):
        listed = ", ".join(f"--{axis}" for axis in dynamic)
        raise ConversionError(
            f"--dla: a DLA takes one size of each axis: give {listed} one size each, or leave --dla out"
        )
