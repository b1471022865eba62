"""Finds out for a target which TensorRT builds its engine, in which versions, for which GPUs, and where.

No runtime is needed. What cannot work is refused here before any work starts, with the reason and what to do instead.

We have never run classic TensorRT, and never an engine of either runtime: ``EngineDevice.unexecuted`` lists such steps.
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
from lxmert_export.errors import ConversionError, as_given
from lxmert_export.spec.signature import ATTENTION_OPSET, Attention, Precision


@dataclass(frozen=True)
class EngineDevice:
    """The result of ``resolve``: all that a build and its manifest need to know about the device that runs the engine.

    | field | meaning |
    |---|---|
    | ``compute_capabilities`` | those on which the engine may run |
    | ``and_later`` | whether it also runs on compute capabilities above all of these |
    | ``built`` | where the engine is built |
    | ``install`` | the command that installs the runtime |
    | ``unexecuted`` | the steps (``build``, ``run``) and options that we have never run |
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
        """The GPUs to name to Polygraphy's ``CreateConfigRTX``; None for its portable default and for classic TensorRT."""
        return None if self.and_later or self.runtime == "tensorrt" else list(self.compute_capabilities)

    def to_dict(self) -> dict[str, Any]:
        """Returns the manifest's entry."""
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
    """Chooses the runtime, its versions, the compute capabilities and the place of the build for a target.

    ``compute_capability`` is a list such as ``8.6,8.9``. ``opset`` and ``attention`` are those of the ONNX graph, if known.
    ``detect`` is called for ``this-gpu`` only. Raises ``ConversionError`` for whatever cannot work, with the reason and what to
    do instead.
    """
    options = options or BuildOptions()
    known = next((name for name in DEVICES if name == target), None)
    if known is None:
        raise ConversionError(f"unknown target {as_given(target)}; choose from {', '.join(DEVICES)}")
    asked = None if compute_capability is None else parse_capabilities(compute_capability)
    if known == "this-gpu":
        kind, asked = _of_this_machine(asked, detect)
    else:
        kind = known
    _check_capabilities(kind, asked or (), options)
    _check_precision(kind, asked or (), precision)
    check_options(kind, precision, options)
    facts = KINDS[kind]
    versions = _that_parse(kind, _that_build(facts.versions, options), opset or 0, attention)
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
    """Raises ``ConversionError`` unless an engine for the target can be built on this machine's first GPU."""
    wanted = ", ".join(map(written, device.compute_capabilities))
    instead = f"build it on a device of compute capability {wanted}, or write a bundle for one here with --bundle"
    try:
        gpus = (detect or find_gpus)()
    except ConversionError as error:
        raise ConversionError(
            f"--target {device.name} is built on the device, and {reason_of(error)}: {instead}"
        ) from error
    if gpus[0].capability not in device.compute_capabilities:  # TensorRT builds on the first GPU
        raise ConversionError(
            f"--target {device.name} is built on the device, and this machine has {gpus[0]}: {instead}"
        )


def parse_capabilities(text: str) -> tuple[Capability, ...]:
    """Reads a list of compute capabilities such as ``8.6,8.9``; returns each once, sorted.

    Raises ``ConversionError`` for a part that is not a known compute capability.
    """
    found = set()
    for part in text.split(","):
        capability = read_capability(part.strip())
        if capability is None:
            raise ConversionError(f"--compute-capability {text!r}: {part.strip()!r} is not major.minor, as in 8.6,8.9")
        if capability == (10, 1):
            raise ConversionError("--compute-capability 10.1: Thor has had 11.0 since CUDA 13; use --target thor")
        if capability not in CAPABILITIES:
            known = ", ".join(f"{written(capability)} ({name})" for capability, name in CAPABILITIES.items())
            raise ConversionError(f"unknown compute capability {written(capability)}; known are {known}")
        found.add(capability)
    return tuple(sorted(found))


def _of_this_machine(
    asked: tuple[Capability, ...] | None, detect: Callable[[], tuple[Gpu, ...]]
) -> tuple[str, tuple[Capability, ...]]:
    """Returns the kind of device that this machine is, and the compute capability of its GPUs."""
    if asked is not None:
        raise ConversionError(
            "--target this-gpu uses the compute capability of the GPU here: leave --compute-capability out"
        )
    gpus = detect()
    if not gpus:
        raise ConversionError("--target this-gpu: no NVIDIA GPU found here; name the target instead")
    if unknown := [gpu for gpu in gpus if gpu.capability is None]:
        raise ConversionError(
            f"--target this-gpu: nvidia-smi does not report the compute capability of {unknown[0].name}; "
            "name the target instead"
        )
    found = sorted({gpu.capability for gpu in gpus if gpu.capability is not None})
    if len(found) > 1:
        listed = ", ".join(written(capability) for capability in found)
        raise ConversionError(
            f"--target this-gpu: the GPUs here have different compute capabilities ({listed}); name the target, and one "
            "of these with --compute-capability"
        )
    capability = found[0]
    if capability not in CAPABILITIES:
        later = is_among(capability, PORTABLE, and_later=True)
        instead = "--target rtx builds for later GPUs too" if later else "name the target instead"
        raise ConversionError(f"--target this-gpu: {gpus[0]} is not a known GPU; {instead}")
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
        raise ConversionError(
            "--hardware-compatible needs compute capability 8.0 or above: leave out 7.5, or leave out the option"
        )


def _default_capabilities(kind: str, precision: Precision, options: BuildOptions) -> tuple[Capability, ...]:
    """The compute capabilities if none are given. A classic engine then runs on that one of them which builds it."""
    if kind == "rtx":
        return PORTABLE
    turing_too = precision != "bf16" and not options.hardware_compatible
    return tuple(capability for capability in KINDS[kind].capabilities if turing_too or capability != TURING)


def _home(capability: Capability) -> str:
    """The advice which target to use for a compute capability."""
    if capability == ORIN:
        return "use --target orin-jp6 or --target orin-jp7"
    if capability == THOR:
        return "use --target thor"
    if capability in RTX:
        return f"use --target rtx --compute-capability {written(capability)}"
    return f"use --target datacenter --compute-capability {written(capability)}"


def _precisions(kind: str, asked: tuple[Capability, ...]) -> tuple[Precision, ...]:
    """The precisions that all of the given GPUs support."""
    if TURING not in asked:
        return ENGINE_PRECISIONS
    return ("fp16",) if kind == "rtx" else ("fp32", "fp16", "int8")


def _check_precision(kind: str, asked: tuple[Capability, ...], precision: Precision) -> None:
    if precision in _precisions(kind, asked):
        return
    if precision not in ENGINE_PRECISIONS:
        raise ConversionError(f"no engine can be built in {precision}; choose from {', '.join(ENGINE_PRECISIONS)}")
    reason = (
        "has no bf16" if precision == "bf16" else "cannot build an fp32 matrix product ('FP32 GEMM is not supported')"
    )
    who = "TensorRT-RTX for compute capability 7.5" if kind == "rtx" else "compute capability 7.5 (Turing)"
    others = ", leave 7.5 out" if len(asked) > 1 else ""
    classic = ", or --target datacenter" if precision in ("fp32", "int8") else ""
    raise ConversionError(f"{who} {reason}: use --fp16{others}{classic}")


def _that_build(versions: Versions, options: BuildOptions) -> Versions:
    """Removes the versions that cannot do what the options ask for, or that do it wrongly."""
    if options.dla:
        versions = versions.without((0,), (11, 4, 1))
    if options.refit:
        versions = versions.without((11, 3), (11, 4))
    return versions


def _that_parse(kind: str, versions: Versions, opset: int, attention: Attention) -> Versions:
    """Removes the versions whose ONNX parser does not take the graph.

    Raises ``ConversionError`` if none is left, or if the version that the device comes with is not left.
    """
    facts, parsers = KINDS[kind], HIGHEST_OPSETS[KINDS[kind].runtime]
    left = versions
    for first, end, highest in parsers:
        left = left.without(first, end) if opset > highest else left
    preinstalled = dotted(versions.spans[0][0]) if facts.packaged else None
    if left.spans and (preinstalled is None or preinstalled in left):
        return left
    possible = max(
        highest for first, end, highest in parsers if preinstalled is None or preinstalled in Versions(((first, end),))
    )
    without = attention == "operator" and possible < ATTENTION_OPSET  # no lower opset has the operator
    mend = "--attention decomposed" if without else f"--opset {possible} or a lower one"
    raise ConversionError(
        f"--target {kind}: the ONNX parser of {facts.runtime} {preinstalled or versions} takes at most opset {possible}, and "
        f"the graph has opset {opset}: export it with {mend} (the Attention operator needs opset {ATTENTION_OPSET})"
    )


def _notes(
    target: DeviceName, kind: str, capabilities: tuple[Capability, ...], options: BuildOptions, precision: Precision
) -> tuple[str, ...]:
    notes = []
    if target == "this-gpu" and kind != "rtx":
        notes.append("the engine is built on this machine")
    if target == "this-gpu" and kind == "rtx":
        notes.append("--target datacenter builds for this GPU with classic TensorRT instead")
    if kind == "rtx" and TURING in capabilities and precision == "fp16":
        notes.append("a matrix product that stays in float32 cannot be built for compute capability 7.5")
    if kind == "datacenter" and not options.hardware_compatible:
        notes.append("the engine runs only on GPUs like the one that builds it")
    if kind != "rtx" and not options.version_compatible:
        notes.append("the engine runs only with the version of TensorRT that builds it")
    if options.refit and kind == "datacenter":
        notes.append(
            "TensorRT 11.3 can drop a bias from a refittable engine (NVIDIA's known issue), so 11.3 is excluded"
        )
    if options.dla:
        notes.append(
            "a DLA computes convolutions: most layers of LXMERT fall back to the GPU; --dla needs JetPack 7.2.2"
        )
    return tuple(notes)


def _unexecuted(kind: str, options: BuildOptions) -> tuple[str, ...]:
    steps = ("run",) if kind == "rtx" else ("build", "run")
    return steps + tuple(OPTIONS[name].flag for name in options.chosen)


def install_line(kind: str, versions: Versions | None = None) -> str:
    """Returns the command that installs a kind's runtime.

    It asks for the first span of versions that work, because later versions may need a newer driver.
    """
    facts = KINDS[kind]
    first, end = (versions or facts.versions).spans[0]
    return facts.packaged or f"pip install '{facts.runtime}>={dotted(first)},<{dotted(end)}' '{POLYGRAPHY}'"
