"""Where an engine is to run, and so which TensorRT builds it, in which version, for which GPUs, and where.

Needs no runtime: what cannot work is refused here, with the reason and what to do instead, before any work starts.

Facts: NVIDIA's support matrices and migration pages (TensorRT 10.x to 11.4.1, TensorRT-RTX 1.0 to 1.5), and builds of ours by
tensorrt_rtx 1.7.1.116 and Polygraphy 0.53.6 on a machine without a GPU. No run of ours has executed classic TensorRT, or run an
engine of either: ``EngineTarget.unexecuted`` lists such things.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from lxmert_export.engines.gpus import Capability, Gpu, find_gpus, is_among, read_capability, reason_of, written
from lxmert_export.engines.options import OPTIONS, BuildOptions, check_options
from lxmert_export.errors import ConversionError
from lxmert_export.spec.signature import ATTENTION_OPSET, Attention, Precision

Target = Literal["rtx", "orin-jp6", "orin-jp7", "thor", "datacenter", "this-gpu"]
TARGETS: tuple[Target, ...] = get_args(Target)
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
# The highest opset that an ONNX parser takes, by versions. Classic: onnx-tensorrt's operators.md of 10.0 (of 10.7 still, says
# NVIDIA/TensorRT issue 4336) and 10.15, its release notes (10.14 takes Attention, which is opset 23's), NVIDIA's opset guide of
# 11.x. TensorRT-RTX 1.7.1 built from all that we export.
HIGHEST_OPSETS: dict[Runtime, tuple[tuple[Version, Version, int], ...]] = {
    "tensorrt": (((10,), (10, 14), 20), ((10, 14), (11,), 24), ((11,), (12,), 25)),
    "tensorrt-rtx": (((1,), (2,), 25),),
}
# `ComputeCapability` of tensorrt_rtx 1.7.1; without a choice it targets PORTABLE and whatever comes later.
RTX = (TURING, (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
PORTABLE = ((8, 0), (8, 6), (8, 9), (12, 0))
DATACENTER = tuple(capability for capability in CAPABILITIES if capability not in (ORIN, THOR))
ENGINE_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

POLYGRAPHY = "polygraphy>=0.53"  # earlier ones fail on tensorrt_rtx 1.7


@dataclass(frozen=True)
class Versions:
    """Versions of a runtime: spans from one that works to one that no longer does."""

    spans: tuple[tuple[Version, Version], ...]

    def __contains__(self, version: str) -> bool:
        numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)
        found = _numbers(numbers[0]) if numbers else ()
        return any(first <= found < end for first, end in self.spans)

    def __str__(self) -> str:
        return " or ".join(f">={_dotted(first)},<{_dotted(end)}" for first, end in self.spans)

    @classmethod
    def read(cls, text: str) -> Self:
        """What ``str`` wrote."""
        spans = re.findall(r">=([0-9.]+),<([0-9.]+)", text)
        return cls(tuple((_numbers(first), _numbers(end)) for first, end in spans))

    def without(self, first: Version, end: Version) -> Versions:
        """These versions less one span of them."""
        pieces = [
            piece for a, b in self.spans for piece in ((a, min(b, first)), (max(a, end), b)) if piece[0] < piece[1]
        ]
        return Versions(tuple(pieces))


@dataclass(frozen=True)
class Kind:
    """What is the same for all engines of a named target; ``packaged`` is the line that brings a runtime that pip cannot."""

    runtime: Runtime
    versions: Versions
    capabilities: tuple[Capability, ...]
    built: Place
    notes: tuple[str, ...] = ()
    packaged: str | None = None


KINDS: dict[str, Kind] = {
    "rtx": Kind("tensorrt-rtx", Versions((((1, 7), (2,)),)), RTX, "here"),
    "orin-jp6": Kind(
        "tensorrt",
        Versions((((10, 3), (11,)),)),
        (ORIN,),
        "on the device",
        ("JetPack 6 brings TensorRT 10.3 of its own; PyPI has none for it, and TensorRT 11 does not support it",),
        packaged="sudo apt-get install python3-libnvinfer",
    ),
    "orin-jp7": Kind(
        "tensorrt",
        Versions((((10, 16), (11,)), ((11, 4, 1), (12,)))),
        (ORIN,),
        "on the device",
        ("TensorRT 11.4.1 and later ask for JetPack 7.2.2; 11.0 to 11.4.0 do not support Jetson",),
    ),
    "thor": Kind(
        "tensorrt",
        Versions((((10, 13), (11,)), ((11, 4, 1), (12,)))),
        (THOR,),
        "on the device",
        (
            "TensorRT 11.4.1 and later ask for JetPack 7.2.2; 11.0 to 11.4.0 do not support Jetson",
            "TensorRT 10.13 for JetPack 7.0 and 7.1 is inferred from IGX Thor, not documented",
        ),
    ),
    "datacenter": Kind("tensorrt", Versions((((10, 13), (12,)),)), DATACENTER, "on the device"),
}


@dataclass(frozen=True)
class EngineTarget:
    """What ``resolve`` found: all that a build and its manifest need to know of the place where the engine runs.

    ``compute_capabilities`` are those on which the engine may run; ``and_later`` where it runs on later GPUs too.
    ``install`` is the line that brings the runtime, ``unexecuted`` are the steps (``build``, ``run``) and options that no run of
    ours has executed.
    """

    target: Target
    kind: str
    runtime: Runtime
    versions: Versions
    compute_capabilities: tuple[Capability, ...]
    and_later: bool
    built: Place
    precision: Precision
    options: BuildOptions
    install: str
    notes: tuple[str, ...]
    unexecuted: tuple[str, ...]

    @property
    def builder_capabilities(self) -> list[Capability] | None:
        """What Polygraphy's ``CreateConfigRTX`` takes: None leaves TensorRT-RTX its portable default, or is classic's."""
        return None if self.and_later or self.runtime == "tensorrt" else list(self.compute_capabilities)

    def to_dict(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {
            "target": self.target,
            "runtime": self.runtime,
            "versions": str(self.versions),
            "compute_capabilities": [written(capability) for capability in self.compute_capabilities],
            "and_later": self.and_later,
            "built": self.built,
            "options": self.options.chosen,
            "install": self.install,
            "notes": list(self.notes),
            "unexecuted": list(self.unexecuted),
        }


def resolve(
    target: str,
    *,
    precision: Precision = "fp32",
    compute_capability: str | None = None,
    options: BuildOptions | None = None,
    opset: int | None = None,
    attention: Attention = "decomposed",
    detect: Callable[[], tuple[Gpu, ...]] = find_gpus,
) -> EngineTarget:
    """Chooses runtime, versions, compute capabilities and build place of a target; ``detect`` is asked for ``this-gpu`` only.

    ``compute_capability`` is a list such as ``8.6,8.9``; ``opset`` and ``attention`` the graph's, where known.
    ``ConversionError``: whatever cannot work, why, and what to do instead.
    """
    options = options or BuildOptions()
    known = next((name for name in TARGETS if name == target), None)
    if known is None:
        raise ConversionError(f"unknown target {target!r}; choose from {', '.join(TARGETS)}")
    asked = None if compute_capability is None else parse_capabilities(compute_capability)
    if known == "this-gpu":
        kind, asked = _of_this_machine(asked, detect)
    else:
        kind = known
    _check_capabilities(kind, asked or (), options)
    _check_precision(kind, asked or (), precision)
    check_options(kind, precision, options)
    facts = KINDS[kind]
    versions = _parsing(kind, _versions(facts.versions, options), opset or 0, attention)
    capabilities = asked or _default_capabilities(kind, precision, options)
    return EngineTarget(
        target=known,
        kind=kind,
        runtime=facts.runtime,
        versions=versions,
        compute_capabilities=capabilities,
        and_later=kind == "rtx" and asked is None,
        built=facts.built,
        precision=precision,
        options=options,
        install=install_line(kind, versions),
        notes=facts.notes + _notes(known, kind, capabilities, options, precision),
        unexecuted=_unexecuted(kind, options),
    )


def check_local_gpu(target: EngineTarget, detect: Callable[[], tuple[Gpu, ...]] | None = None) -> None:
    """``ConversionError`` unless this machine has a GPU that an engine for the target may be built on."""
    wanted = ", ".join(map(written, target.compute_capabilities))
    instead = (
        f"build it there, or write here with --bundle what the device builds it from (compute capability {wanted})"
    )
    try:
        gpus = (detect or find_gpus)()
    except ConversionError as error:
        raise ConversionError(
            f"--target {target.target} is built on the device, and {reason_of(error)}: {instead}"
        ) from error
    if gpus[0].capability not in target.compute_capabilities:  # TensorRT builds on the first
        raise ConversionError(f"--target {target.target} is built on the device, and this one has {gpus[0]}: {instead}")


def parse_capabilities(text: str) -> tuple[Capability, ...]:
    """The compute capabilities of a list such as ``8.6,8.9``: in order, each once; ``ConversionError`` names what is none."""
    found = set()
    for part in text.split(","):
        capability = read_capability(part.strip())
        if capability is None:
            raise ConversionError(f"--compute-capability {text!r}: {part.strip()!r} is not major.minor, as in 8.6,8.9")
        if capability == (10, 1):
            raise ConversionError("--compute-capability 10.1 was Thor's before CUDA 13: it is 11.0 now, --target thor")
        if capability not in CAPABILITIES:
            known = ", ".join(f"{written(capability)} ({name})" for capability, name in CAPABILITIES.items())
            raise ConversionError(f"unknown compute capability {written(capability)}; known are {known}")
        found.add(capability)
    return tuple(sorted(found))


def _of_this_machine(
    asked: tuple[Capability, ...] | None, detect: Callable[[], tuple[Gpu, ...]]
) -> tuple[str, tuple[Capability, ...]]:
    """The kind of target that this machine's GPU is, and its compute capability."""
    if asked is not None:
        raise ConversionError(
            "--target this-gpu takes the GPU's own compute capability: leave --compute-capability out"
        )
    gpus = detect()
    if not gpus:
        raise ConversionError("--target this-gpu: no NVIDIA GPU found here; name the target instead")
    if untold := [gpu for gpu in gpus if gpu.capability is None]:
        raise ConversionError(
            f"--target this-gpu: nvidia-smi tells no compute capability of {untold[0].name}; name the target instead"
        )
    found = sorted({gpu.capability for gpu in gpus if gpu.capability is not None})
    if len(found) > 1:
        listed = ", ".join(written(capability) for capability in found)
        raise ConversionError(
            f"--target this-gpu: the GPUs here differ ({listed}); name the target, and one with --compute-capability"
        )
    capability = found[0]
    if capability not in CAPABILITIES:
        later = is_among(capability, PORTABLE, and_later=True)
        instead = "--target rtx builds for later GPUs too" if later else "name the target instead"
        raise ConversionError(f"--target this-gpu: {gpus[0]} is unknown here; {instead}")
    if capability == ORIN:
        raise ConversionError(f"--target this-gpu: {gpus[0]} is an Orin; name its JetPack: {_home(ORIN)}")
    kind = "thor" if capability == THOR else "rtx" if capability in RTX else "datacenter"
    return kind, (capability,)


def _check_capabilities(kind: str, asked: tuple[Capability, ...], options: BuildOptions) -> None:
    possible = KINDS[kind].capabilities
    if wrong := [capability for capability in asked if capability not in possible]:
        runtime = "TensorRT-RTX" if kind == "rtx" else f"--target {kind}"
        raise ConversionError(
            f"{runtime} cannot target compute capability {written(wrong[0])} ({CAPABILITIES[wrong[0]]}), "
            f"only {', '.join(map(written, possible))}: {_home(wrong[0])}"
        )
    if kind != "rtx" and len(asked) > 1 and not options.hardware_compatible:
        raise ConversionError(
            f"--target {kind}: an engine of classic TensorRT runs on one compute capability, not on "
            f"{', '.join(map(written, asked))}: choose one, or --hardware-compatible, or --target rtx"
        )
    if kind != "rtx" and TURING in asked and options.hardware_compatible:
        raise ConversionError("--hardware-compatible begins with compute capability 8.0: leave 7.5 out, or the option")


def _default_capabilities(kind: str, precision: Precision, options: BuildOptions) -> tuple[Capability, ...]:
    """Where the engine may run if nobody said: classic TensorRT's is for the GPU that builds it, one of these."""
    if kind == "rtx":
        return PORTABLE
    turing_too = precision != "bf16" and not options.hardware_compatible
    return tuple(capability for capability in KINDS[kind].capabilities if turing_too or capability != TURING)


def _home(capability: Capability) -> str:
    """The target that a compute capability belongs to."""
    if capability == ORIN:
        return "use --target orin-jp6 or --target orin-jp7"
    if capability == THOR:
        return "use --target thor"
    if capability in RTX:
        return f"use --target rtx --compute-capability {written(capability)}"
    return f"use --target datacenter --compute-capability {written(capability)}"


def _precisions(kind: str, asked: tuple[Capability, ...]) -> tuple[Precision, ...]:
    """What each of the GPUs that were asked for can do."""
    if TURING not in asked:
        return ENGINE_PRECISIONS
    return ("fp16",) if kind == "rtx" else ("fp32", "fp16")


def _check_precision(kind: str, asked: tuple[Capability, ...], precision: Precision) -> None:
    if precision in _precisions(kind, asked):
        return
    if precision not in ENGINE_PRECISIONS:
        raise ConversionError(f"no engine is built in {precision}; choose from {', '.join(ENGINE_PRECISIONS)}")
    reason = "has no bf16" if precision == "bf16" else "builds no fp32 matrix product ('FP32 GEMM is not supported')"
    who = "TensorRT-RTX for compute capability 7.5" if kind == "rtx" else "compute capability 7.5 (Turing)"
    others = ", leave 7.5 out" if len(asked) > 1 else ""
    classic = ", or --target datacenter" if precision == "fp32" else ""
    raise ConversionError(f"{who} {reason}: use --fp16{others}{classic}")


def _versions(versions: Versions, options: BuildOptions) -> Versions:
    """Less the versions that cannot do what was asked for, or do it wrongly."""
    if options.dla:
        versions = versions.without((0,), (11, 4, 1))
    if options.refit:
        versions = versions.without((11, 3), (11, 4))
    return versions


def _parsing(kind: str, versions: Versions, opset: int, attention: Attention) -> Versions:
    """Those versions whose parser takes a graph; ``ConversionError`` where none does, or not the one that a device brings."""
    facts, parsers = KINDS[kind], HIGHEST_OPSETS[KINDS[kind].runtime]
    left = versions
    for first, end, highest in parsers:
        left = left.without(first, end) if opset > highest else left
    brought = _dotted(versions.spans[0][0]) if facts.packaged else None
    if left.spans and (brought is None or brought in left):
        return left
    possible = max(top for first, end, top in parsers if brought is None or brought in Versions(((first, end),)))
    without = attention == "operator" and possible < ATTENTION_OPSET  # no lower opset has the operator
    mend = "--attention decomposed" if without else f"--opset {possible} or a lower one"
    raise ConversionError(
        f"--target {kind}: the ONNX parser of {facts.runtime} {brought or versions} takes opset {possible} at most, and the "
        f"graph is of {opset}: export it with {mend} (the Attention operator is {ATTENTION_OPSET}'s)"
    )


def _notes(
    target: Target, kind: str, capabilities: tuple[Capability, ...], options: BuildOptions, precision: Precision
) -> tuple[str, ...]:
    found = []
    if target == "this-gpu" and kind != "rtx":
        found.append("the device that builds it is this machine")
    if target == "this-gpu" and kind == "rtx":
        found.append("--target datacenter builds for this GPU with classic TensorRT instead")
    if kind == "rtx" and TURING in capabilities and precision == "fp16":
        found.append("a matrix product that stays in float32 does not build for compute capability 7.5")
    if kind == "datacenter" and not options.hardware_compatible:
        found.append("the engine runs on GPUs like the one that builds it")
    if kind != "rtx" and not options.version_compatible:
        found.append("the engine runs in the version of TensorRT that builds it")
    if options.refit and kind == "datacenter":
        found.append("TensorRT 11.3 can drop a bias from a refittable engine (NVIDIA's known issue), so it is left out")
    if options.dla:
        found.append("the DLA is for convolutions: most layers of LXMERT fall back to the GPU; needs JetPack 7.2.2")
    return tuple(found)


def _unexecuted(kind: str, options: BuildOptions) -> tuple[str, ...]:
    steps = ("run",) if kind == "rtx" else ("build", "run")
    return steps + tuple(OPTIONS[name].flag for name in options.chosen)


def install_line(kind: str, versions: Versions | None = None) -> str:
    """The line that installs a kind's runtime: its oldest versions that work, as later ones may ask for a newer driver."""
    facts = KINDS[kind]
    first, end = (versions or facts.versions).spans[0]
    return facts.packaged or f"pip install '{facts.runtime}>={_dotted(first)},<{_dotted(end)}' '{POLYGRAPHY}'"


def _numbers(dotted: str) -> Version:
    return tuple(map(int, dotted.split(".")))


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
