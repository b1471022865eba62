"""Builds a TensorRT engine from an ONNX file through Polygraphy.

The precision of every matmul is read from the network that TensorRT parsed; it is not assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxmert_export.artifact.directory import ENGINE_FILE
from lxmert_export.artifact.facts import GraphFacts, count_precisions
from lxmert_export.engines.devices import EngineDevice
from lxmert_export.engines.library import as_one_error, interrupt_kept, library_version, open_builder
from lxmert_export.engines.on_device.build_and_verify import (
    MATMULS,
    allow_decomposition,
    multiplies_int8,
    node_name,
    read_layers,
)
from lxmert_export.engines.options import OPTIONS
from lxmert_export.engines.plan_text import products_of
from lxmert_export.engines.profiles import Profile
from lxmert_export.errors import ConversionError
from lxmert_export.spec.signature import Signature

# TensorRT's dtype names → ours; other names differ in case only.
MOVES = ("cast", "shuffle", "dequantize")  # layers whose result of a constant is a constant
TYPE_NAMES = {"HALF": "float16", "BF16": "bfloat16", "FLOAT": "float32"}
# An engine larger than 1.1 × weights + 200 kB × matmuls × profiles is refused: its weights are wider than its
# precision. Kernels measured 73 to 78 kB per matmul and profile at full size (benchmarks/engines.md), and about twice
# that in small models. Classic TensorRT was not measured and may add a lean runtime, so it is allowed 64 MiB more.
LARGEST_SHARE, LARGEST_OF_A_MATMUL, UNMEASURED = 1.1, 200_000, 64 << 20


@dataclass(frozen=True)
class NetworkFacts(GraphFacts):
    """What TensorRT parsed: layers by type and precision, and the ONNX node names of the matmuls in float32."""

    layers: dict[str, dict[str, int]]
    float32_matmuls: tuple[str, ...]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that was written: facts of its network, the runtime's version, the builder flags, the size in bytes.

    ``plan``: its products by precision, as the text of its file tells them; empty if it tells none.
    """

    network: NetworkFacts
    runtime_version: str
    flags: tuple[str, ...]
    size: int
    plan: dict[str, int] = field(default_factory=dict)


def convert_to_tensorrt(
    onnx_file: Path,
    signature: Signature,
    profiles: Sequence[Profile],
    device: EngineDevice,
    directory: Path,
    *,
    weights_size: int,
    islands: frozenset[str] = frozenset(),
) -> BuiltEngine:
    """Writes ``model.engine`` into a directory: strongly typed, TF32 off, one profile per entry of ``profiles``.

    ``weights_size``: bytes of the ONNX file's weights. ``islands``: names of the matmuls that may compute in float32.
    ``ConversionError``: TensorRT cannot parse or build the graph; the engine would not be of the target's precision;
    the runtime or the GPU here is not the target's. ``MissingExtra``: the runtime is not installed.
    """
    library = open_builder(device)
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath

    with interrupt_kept(), as_one_error("TensorRT cannot parse the ONNX graph"):
        builder, network, parser = NetworkFromOnnxPath(str(onnx_file), strongly_typed=True)()
    facts = read_network(network)
    allow_decomposition(library, network)
    check_network(facts, device.precision, islands)
    with interrupt_kept(), as_one_error("TensorRT cannot build the engine"):
        builder.max_threads = 1
        config = _configure(library, builder, network, signature, profiles, device)
        flags = _set_flags(library, config)
        cache = device.options.timing_cache  # read with the configuration, written after the build
        engine = EngineBytesFromNetwork((builder, network, parser), config, save_timing_cache=cache)()
        with (directory / ENGINE_FILE).open("wb") as file:
            size = file.write(engine)
        plan = products_of(bytes(engine)) if device.runtime == "tensorrt-rtx" else {}
    check_size(size, weights_size, sum(facts.matmuls.values()), len(profiles), device)
    return BuiltEngine(facts, library_version(library), flags, size, plan)


def read_network(network: Any) -> NetworkFacts:
    """Counts a parsed network by dtype: layers and matmuls by their first output, stored weights by their own dtype.

    A matmul of two dequantised operands is counted as int8.
    """
    layers: dict[str, Counter[str]] = {}
    matmuls, stored, float32_matmuls = [], [], []
    constants = set()
    all_layers, made_by = read_layers(network)
    for layer in all_layers:
        kind, precision = layer.type.name.lower(), _type_name(layer.get_output(0).dtype)
        layers.setdefault(kind, Counter())[precision] += 1
        if kind == "constant" or (kind in MOVES and layer.get_input(0).name in constants):
            constants.add(layer.get_output(0).name)
        if layer.type.name not in MATMULS:
            continue
        precision = "int8" if (whole := multiplies_int8(layer, made_by)) else precision
        matmuls += [precision] * MATMULS[layer.type.name]
        if kind == "matrix_multiply" and layer.get_input(1).name in constants:
            stored.append("int8" if whole else _type_name(layer.get_input(1).dtype))
        if precision == "float32":
            float32_matmuls.append(node_name(layer.name))
    return NetworkFacts(
        operators={kind: counts.total() for kind, counts in sorted(layers.items())},
        matmuls=count_precisions(matmuls),
        matmul_weights=count_precisions(stored),
        layers={kind: count_precisions(counts.elements()) for kind, counts in sorted(layers.items())},
        float32_matmuls=tuple(float32_matmuls),
    )


def check_network(facts: NetworkFacts, precision: str, islands: frozenset[str]) -> None:
    """Checks that every matmul computes in ``precision``, except float32 islands. ``ConversionError``: one does not."""
    strays = [name for name in facts.float32_matmuls if name not in islands]
    wrong = {found: count for found, count in facts.matmuls.items() if found not in (precision, "fp32")}
    if precision != "fp32" and (strays or not facts.matmuls.get(precision)):
        listed = ", ".join(strays[:3]) + (f" and {len(strays) - 3} more" if len(strays) > 3 else "")
        raise ConversionError(
            f"the engine would be labelled {precision}, but its matmuls compute in {facts.matmuls}; "
            f"in float32, which the graph's are not: {listed or 'none'}; export the ONNX graph with --{precision}"
        )
    if wrong:
        raise ConversionError(f"the engine would be labelled {precision}, but its matmuls compute in {facts.matmuls}")


def check_size(size: int, weights_size: int, matmuls: int, profiles: int, device: EngineDevice) -> None:
    """Checks an engine's size. ``ConversionError``: it is too large for weights of its precision."""
    kernels = LARGEST_OF_A_MATMUL * matmuls * profiles + (UNMEASURED if device.runtime == "tensorrt" else 0)
    if not device.options.strip and size > LARGEST_SHARE * weights_size + kernels:
        raise ConversionError(
            f"the engine has {size:,} bytes for {weights_size:,} bytes of {device.precision} weights: "
            "it stores them in a wider precision"
        )


def _configure(
    library: Any, builder: Any, network: Any, signature: Signature, profiles: Sequence[Profile], device: EngineDevice
) -> Any:
    """Returns the builder's configuration: the profiles, and each option as Polygraphy's argument for it."""
    from polygraphy.backend.trt import Profile as ShapeProfile

    shapes = []
    for profile in profiles:
        shape_profile = ShapeProfile()
        for name, (low, best, high) in profile.shapes(signature).items():
            shape_profile.add(name, low, best, high)
        shapes.append(shape_profile)
    arguments = {OPTIONS[name].argument: value for name, value in device.options.chosen.items()}
    if "hardware_compatibility_level" in arguments:
        arguments["hardware_compatibility_level"] = library.HardwareCompatibilityLevel.AMPERE_PLUS
    if device.options.dla:
        arguments["allow_gpu_fallback"] = True
    return _config_loader(device, arguments)(profiles=shapes)(builder, network)


def _config_loader(device: EngineDevice, arguments: Mapping[str, Any]) -> Any:
    from functools import partial

    if device.runtime == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        return partial(CreateConfigRTX, compute_capabilities=device.builder_capabilities, **arguments)
    from polygraphy.backend.trt import CreateConfig

    return partial(CreateConfig, **arguments)


def _set_flags(library: Any, config: Any) -> tuple[str, ...]:
    """Turns TF32 off, which CreateConfigRTX leaves on; returns the names of the flags that are set."""
    config.clear_flag(library.BuilderFlag.TF32)
    return tuple(name for name, flag in library.BuilderFlag.__members__.items() if config.get_flag(flag))


def _type_name(dtype: Any) -> str:
    name: str = dtype.name
    return TYPE_NAMES.get(name, name.lower())
