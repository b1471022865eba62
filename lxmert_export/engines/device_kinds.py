"""The kinds of devices that engines are for. Each has a runtime and its versions, GPUs, and a place where engines are built.

Sources: NVIDIA's support matrices and migration pages (TensorRT 10.x to 11.4.1, TensorRT-RTX 1.0 to 1.5), and our own builds
with tensorrt_rtx 1.7.1.116 and Polygraphy 0.53.6 on a machine without a GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lxmert_export.engines.gpus import Capability
from lxmert_export.spec.signature import Precision

if TYPE_CHECKING:
    from typing_extensions import Self

DeviceName = Literal["rtx", "orin-jp6", "orin-jp7", "thor", "datacenter", "this-gpu"]
DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
Runtime = Literal["tensorrt-rtx", "tensorrt"]
Place = Literal["here", "on the device"]
Version = tuple[int, ...]

CAPABILITIES: dict[Capability, str] = {
    (7, 5): "Turing",
    (8, 0): "Ampere, A100",
    (8, 6): "Ampere, RTX 30",
    (8, 7): "Jetson Orin",
    (8, 9): "Ada, RTX 40",
    (9, 0): "Hopper",
    (10, 0): "Blackwell, B200",
    (10, 3): "Blackwell, B300",
    (11, 0): "Jetson Thor",
    (12, 0): "Blackwell, RTX 50",
    (12, 1): "Blackwell, GB10",
}
TURING, ORIN, THOR = (7, 5), (8, 7), (11, 0)
# The highest opset that the ONNX parser takes, for versions from the first to below the second. Sources:
#   10.0 to 10.13      onnx-tensorrt's operators.md of 10.0; NVIDIA/TensorRT issue 4336 says the same of 10.7
#   10.14 to 10.x      onnx-tensorrt's release notes (10.14 takes Attention, an operator of opset 23), operators.md of 10.15
#   11.x               NVIDIA's opset guide
#   TensorRT-RTX 1.x   TensorRT-RTX 1.7.1 built engines from every opset that we export
HIGHEST_OPSETS: dict[Runtime, tuple[tuple[Version, Version, int], ...]] = {
    "tensorrt": (((10,), (10, 14), 20), ((10, 14), (11,), 24), ((11,), (12,), 25)),
    "tensorrt-rtx": (((1,), (2,), 25),),
}
# RTX is `ComputeCapability` of tensorrt_rtx 1.7.1. Without a choice, it builds for PORTABLE and later GPUs.
RTX = (TURING, (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
PORTABLE = ((8, 0), (8, 6), (8, 9), (12, 0))
DATACENTER = tuple(capability for capability in CAPABILITIES if capability not in (ORIN, THOR))
ENGINE_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")

POLYGRAPHY = "polygraphy>=0.53"  # earlier versions fail with tensorrt_rtx 1.7


@dataclass(frozen=True)
class Versions:
    """Versions of a runtime, as spans from the first that works to the first that no longer works."""

    spans: tuple[tuple[Version, Version], ...]

    def __contains__(self, version: str) -> bool:
        numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)
        found = read_version(numbers[0]) if numbers else ()
        return any(first <= found < end for first, end in self.spans)

    def __str__(self) -> str:
        return " or ".join(f">={dotted(first)},<{dotted(end)}" for first, end in self.spans)

    @classmethod
    def read(cls, text: str) -> Self:
        """Reads what ``str`` writes, such as ``>=10.16,<11 or >=11.4.1,<12``."""
        spans = re.findall(r">=([0-9.]+),<([0-9.]+)", text)
        return cls(tuple((read_version(first), read_version(end)) for first, end in spans))

    def without(self, first: Version, end: Version) -> Versions:
        """Returns these versions without those from ``first`` to below ``end``."""
        pieces = [
            piece for a, b in self.spans for piece in ((a, min(b, first)), (max(a, end), b)) if piece[0] < piece[1]
        ]
        return Versions(tuple(pieces))


@dataclass(frozen=True)
class DeviceKind:
    """Facts that all engines of a target share. ``packaged`` is the install command of a runtime that pip cannot install."""

    runtime: Runtime
    versions: Versions
    capabilities: tuple[Capability, ...]
    built: Place
    notes: tuple[str, ...] = ()
    packaged: str | None = None


KINDS: dict[str, DeviceKind] = {
    "rtx": DeviceKind("tensorrt-rtx", Versions((((1, 7), (2,)),)), RTX, "here"),
    "orin-jp6": DeviceKind(
        "tensorrt",
        Versions((((10, 3), (11,)),)),
        (ORIN,),
        "on the device",
        (
            "use the TensorRT 10.3 that JetPack 6 installs; there is no pip package for it, and TensorRT 11 does not "
            "support JetPack 6",
        ),
        packaged="sudo apt-get install python3-libnvinfer",
    ),
    "orin-jp7": DeviceKind(
        "tensorrt",
        Versions((((10, 16), (11,)), ((11, 4, 1), (12,)))),
        (ORIN,),
        "on the device",
        ("TensorRT 11.4.1 and later need JetPack 7.2.2; 11.0 to 11.4.0 do not support Jetson",),
    ),
    "thor": DeviceKind(
        "tensorrt",
        Versions((((10, 13), (11,)), ((11, 4, 1), (12,)))),
        (THOR,),
        "on the device",
        (
            "TensorRT 11.4.1 and later need JetPack 7.2.2; 11.0 to 11.4.0 do not support Jetson",
            "that JetPack 7.0 and 7.1 have TensorRT 10.13 is inferred from IGX Thor, not documented",
        ),
    ),
    "datacenter": DeviceKind("tensorrt", Versions((((10, 13), (12,)),)), DATACENTER, "on the device"),
}


def read_version(dotted: str) -> Version:
    """Returns a version such as ``10.3`` as numbers that can be compared."""
    return tuple(map(int, dotted.split(".")))


def dotted(version: Version) -> str:
    """Returns a version's text, such as ``10.3``: the inverse of ``read_version``."""
    return ".".join(map(str, version))
