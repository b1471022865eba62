"""Where an engine is to run, and so which TensorRT builds it, in which version, for which GPUs, and where.

Needs no runtime: what cannot work is refused here, with the reason and what to do instead, before any work starts.

No run of ours has executed classic TensorRT, or run an engine of either: ``EngineDevice.unexecuted`` lists such things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lxmert_export.engines.device_kinds import (
    CAPABILITIES,
    DEVICES,
    ENGINE_PRECISIONS,
    HIGHEST_OPSETS,
    KINDS,
    ORIN,
    POLYGRAPHY,
    PORTABLE,
    RTX,
    THOR,
    TURING,
    DeviceName,
    Place,
    Runtime,
    Versions,
    dotted,
)
from lxmert_export.engines.gpus import Capability, Gpu, find_gpus, is_among, read_capability, reason_of, written
from lxmert_export.engines.options import OPTIONS, BuildOptions, check_options
from lxmert_export.errors import ConversionError
from lxmert_export.spec.signature import ATTENTION_OPSET, Attention, Precision


@dataclass(frozen=True)
class EngineDevice:
    """What ``resolve`` found: all that a build and its manifest need to know of the place where the engine runs.

    ``compute_capabilities`` are those on which the engine may run; ``and_later`` where it runs on later GPUs too.
    ``install`` is the line that brings the runtime, ``unexecuted`` are the steps (``build``, ``run``) and options that no run of
    ours has executed.
    """

    name: DeviceName
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
            "target": self.name,
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
) -> EngineDevice:
    """Chooses runtime, versions, compute capabilities and build place of a target; ``detect`` is asked for ``this-gpu`` only.

    ``compute_capability`` is a list such as ``8.6,8.9``; ``opset`` and ``attention`` the graph's, where known.
    ``ConversionError``: whatever cannot work, why, and what to do instead.
    """
    options = options or BuildOptions()
    known = next((name for name in DEVICES if name == target), None)
    if known is None:
        raise ConversionError(f"unknown target {target!r}; choose from {', '.join(DEVICES)}")
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
    return EngineDevice(
        name=known,
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


def check_local_gpu(device: EngineDevice, detect: Callable[[], tuple[Gpu, ...]] | None = None) -> None:
    """``ConversionError`` unless this machine has a GPU that an engine for the target may be built on."""
    wanted = ", ".join(map(written, device.compute_capabilities))
    instead = (
        f"build it there, or write here with --bundle what the device builds it from (compute capability {wanted})"
    )
    try:
        gpus = (detect or find_gpus)()
    except ConversionError as error:
        raise ConversionError(
            f"--target {device.name} is built on the device, and {reason_of(error)}: {instead}"
        ) from error
    if gpus[0].capability not in device.compute_capabilities:  # TensorRT builds on the first
        raise ConversionError(f"--target {device.name} is built on the device, and this one has {gpus[0]}: {instead}")


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
    brought = dotted(versions.spans[0][0]) if facts.packaged else None
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
    target: DeviceName, kind: str, capabilities: tuple[Capability, ...], options: BuildOptions, precision: Precision
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
    return facts.packaged or f"pip install '{facts.runtime}>={dotted(first)},<{dotted(end)}' '{POLYGRAPHY}'"
