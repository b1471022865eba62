"""Builds the engine of this bundle on the device, runs its golden inputs, and writes report.json.

    python3 build_and_verify.py [-o DIR]

Needs only Python 3.8 or newer, numpy and the device's own TensorRT (`tensorrt` or `tensorrt_rtx`). GPU memory is allocated by
the driver (libcuda), which every machine with a GPU has. Writes model.engine, outputs.npz (raw outputs) and report.json.

The printed scores are only a first look. Copy report.json and outputs.npz back, and judge them with `lxmert-export parity
BUNDLE --device-report report.json`.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import json
import os
import platform
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

BUNDLE_FORMAT, REPORT_FORMAT = "lxmert-export bundle 1", "lxmert-export device report 2"
BUNDLE_FILE, GOLDEN_ARRAYS = "bundle.json", "golden.npz"
ENGINE, OUTPUTS, REPORT = "model.engine", "outputs.npz", "report.json"
RUN, NOT_RUN = "built and run", "built, not run (no GPU)"

# TensorRT's name of a type -> numpy's name, or the name of a precision.
NUMPY_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32", "BOOL": "bool"}
PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
# The number of matmuls in a layer, by the layer's type.
MATMULS = {"MATRIX_MULTIPLY": 1, "ATTENTION_OUTPUT": 2}
# Build options that are flags of TensorRT.
FLAGS = {"version_compatible": "VERSION_COMPATIBLE", "refit": "REFIT", "weight_streaming": "WEIGHT_STREAMING"}


class Failure(Exception):  # noqa: N818  (its message is shown to a user)
    """Stops the script. The message is one line."""


def main() -> None:
    """Builds and runs the engine and writes the report. Every failure prints one line and gives exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="where to write; default: beside this script")
    place = Path(__file__).resolve().parent
    output = parser.parse_args().output or place
    results = [output / f"{name}{end}" for name in (REPORT, OUTPUTS, ENGINE) for end in ("", ".writing")]
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in results:  # files of an earlier run must not be taken for files of this run
            path.unlink(missing_ok=True)
        report = build_and_verify(place, output)
        write_whole(output / REPORT, json.dumps(report, indent=2).encode() + b"\n")
    except (Failure, OSError, MemoryError, RuntimeError, TypeError, AttributeError) as failure:
        reason, kind = " ".join(str(failure).split()), type(failure).__name__
        if isinstance(failure, (RuntimeError, TypeError, AttributeError)):  # raised by TensorRT's own functions
            frame = traceback.extract_tb(failure.__traceback__)[-1]
            reason = f"TensorRT failed in {frame.name} (line {frame.lineno}): {kind}: {reason}"
        for path in results:
            path.unlink(missing_ok=True)
        sys.exit(f"error: {reason or kind}")
    print("{}: {}".format(output / REPORT, report["status"]))


def build_and_verify(place: Path, output: Path) -> dict[str, Any]:
    """Builds a bundle's engine, runs it if there is a GPU, writes engine and outputs, and returns the report."""
    bundle = read_bundle(place)
    gpu, no_gpu = find_gpu()
    library = open_library(bundle)
    check_gpu(bundle, gpu, no_gpu)
    began = time.time()
    serialized, facts = build(library, bundle, place)
    facts["seconds"] = round(time.time() - began, 3)
    write_whole(output / ENGINE, serialized)
    facts.update(file=ENGINE, sha256=sha256(output / ENGINE), bytes=len(serialized))
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "status": NOT_RUN,
        "executed": ["hashes of the bundle checked", "ONNX graph parsed", "precision counted", "engine built"],
        "not_executed": [f"engine loaded and run: {no_gpu}"] if gpu is None else [],
        "bundle": {"sha256": sha256(place / BUNDLE_FILE), "files": hashes(bundle)},
        "engine": facts,
        "outputs": None,
        "runtime": bundle["runtime"],
        "runtime_version": str(library.__version__),
        "gpu": None if gpu is None else {"name": gpu.name, "compute_capability": gpu.capability},
        "machine": {"platform": platform.platform(), "python": platform.python_version(), "numpy": np.__version__},
    }
    if gpu is None:
        return report
    with np.load(str(place / GOLDEN_ARRAYS), allow_pickle=False) as file:
        golden = {name: file[name] for name in file.files}
    found = run(library, gpu, serialized, bundle, golden)
    show(found, golden)
    np.savez(str(output / OUTPUTS), **found)
    report["executed"] += ["engine loaded", "golden inputs run on the GPU"]
    report.update(status=RUN, outputs={"file": OUTPUTS, "sha256": sha256(output / OUTPUTS)})
    return report


def read_bundle(place: Path) -> dict[str, Any]:
    """Reads bundle.json, and checks the hash of every file that it lists."""
    try:
        bundle: dict[str, Any] = json.loads((place / BUNDLE_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Failure(f"{BUNDLE_FILE}: damaged: {error}") from error
    if bundle.get("format") != BUNDLE_FORMAT:
        raise Failure("{}: not for this script ({!r}): copy the bundle again".format(BUNDLE_FILE, bundle.get("format")))
    files = hashes(bundle)
    wrong = [name for name in files if not (place / name).is_file() or sha256(place / name) != files[name]]
    if wrong:
        raise Failure("{}: missing or changed: copy the bundle again".format(", ".join(wrong)))
    return bundle


def hashes(bundle: dict[str, Any]) -> dict[str, str]:
    """Returns the hash of every file of a bundle, as listed in bundle.json."""
    return {name: facts["sha256"] for name, facts in bundle["files"].items()}


def open_library(bundle: dict[str, Any]) -> Any:
    """Imports the device's TensorRT, and checks that the bundle is for its version."""
    try:
        library = importlib.import_module(bundle["module"])
    except ImportError as error:
        raise Failure("{} cannot be imported ({}): {}".format(bundle["module"], error, bundle["install"])) from error
    numbers = [int(number) for number in re.findall("[0-9]+", str(library.__version__))]
    if not any(first <= numbers < end for first, end in bundle["versions"]):
        installed = "{} {}".format(bundle["runtime"], library.__version__)
        raise Failure("{} is installed, and this bundle is for {}".format(installed, bundle["versions_text"]))
    return library


def check_gpu(bundle: dict[str, Any], gpu: Gpu | None, no_gpu: str) -> None:
    """Checks that the engine can be built here, and that the bundle is for this GPU."""
    if gpu is None:
        if bundle["runtime"] == "tensorrt":
            raise Failure(f"TensorRT builds engines on the GPU that runs them, and {no_gpu}")
        return
    known, capability = bundle["compute_capabilities"], gpu.capability
    numbers = [[int(number) for number in text.split(".")] for text in (capability, *known)]
    if capability not in known and not (bundle["and_later"] and numbers[0] > max(numbers[1:])):
        raise Failure(f"{gpu.name} has compute capability {capability}, and this bundle is for " + ", ".join(known))


# --- building


def build(library: Any, bundle: dict[str, Any], place: Path) -> tuple[bytes, dict[str, Any]]:
    """Builds the engine, strongly typed and without TF32. Returns its bytes, its flags and the precisions of its matmuls."""
    logger = library.Logger(library.Logger.ERROR)
    builder = library.Builder(logger)
    # TensorRT 11 and later have no such flag: every network is strongly typed.
    strongly_typed = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(place / bundle["onnx"])):
        errors = [str(parser.get_error(number)) for number in range(parser.num_errors)]
        raise Failure("{}: TensorRT cannot parse it: {}".format(bundle["onnx"], (errors or ["no reason given"])[0]))
    matmuls, wide = count_matmuls(network, bundle)
    allow_decomposition(library, network)
    config = builder.create_builder_config()
    config.clear_flag(library.BuilderFlag.TF32)
    for ranges in bundle["profiles"]:
        profile = builder.create_optimization_profile()
        for name, (low, best, high) in ranges["shapes"].items():
            profile.set_shape(name, low, best, high)
        config.add_optimization_profile(profile)
    set_options(library, config, bundle)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise Failure("{}: TensorRT cannot build it; its log above says why".format(bundle["onnx"]))
    flags = [name for name, flag in library.BuilderFlag.__members__.items() if config.get_flag(flag)]
    return bytes(serialized), {"flags": flags, "tf32": "TF32" in flags, "matmuls": matmuls, "float32_matmuls": wide}


def set_options(library: Any, config: Any, bundle: dict[str, Any]) -> None:
    """Sets the bundle's build options and, for TensorRT-RTX, the compute capabilities to build for."""
    options = bundle["options"]
    for name, flag in FLAGS.items():
        if name in options:
            config.set_flag(getattr(library.BuilderFlag, flag))
    if "hardware_compatible" in options:
        config.hardware_compatibility_level = library.HardwareCompatibilityLevel.AMPERE_PLUS
    if "builder_level" in options:
        config.builder_optimization_level = options["builder_level"]
    if "dla" in options:
        config.default_device_type, config.DLA_core = library.DeviceType.DLA, 0
        config.set_flag(library.BuilderFlag.GPU_FALLBACK)
    if named := bundle["builder_compute_capabilities"]:
        config.num_compute_capabilities = len(named)
    for number, capability in enumerate(named or ()):
        known = getattr(library.ComputeCapability, "SM{}".format(capability.replace(".", "")))
        config.set_compute_capability(known, number)


def allow_decomposition(library: Any, network: Any) -> None:
    """Allows TensorRT to split an attention into several kernels if it has no fused kernel for it."""
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        if layer.type.name == "ATTENTION_OUTPUT":
            layer.__class__ = library.IAttentionOutputLayer
            layer.attention.decomposable = True


def node_name(layer: str) -> str:
    """Returns the name of the ONNX node that a layer came from: TensorRT appends metadata to that name."""
    return re.sub(r"(_AttentionOutput)?( \[ONNX Layer: .*)?$", "", layer)


def read_layers(network: Any) -> tuple[list[Any], dict[str, Any]]:
    """Returns all layers, and the layer that computes each tensor, by the tensor's name."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    return layers, {layer.get_output(n).name: layer for layer in layers for n in range(layer.num_outputs)}


def multiplies_int8(layer: Any, made_by: dict[str, Any]) -> bool:
    """Whether a matmul reads two dequantised operands: TensorRT then multiplies the integers."""
    operands = [made_by.get(layer.get_input(number).name) for number in range(min(layer.num_inputs, 2))]
    for number, operand in enumerate(operands):
        while operand is not None and operand.type.name == "SHUFFLE":  # a transposed weight
            operands[number] = operand = made_by.get(operand.get_input(0).name)
    return len(operands) == 2 and all(operand and operand.type.name == "DEQUANTIZE" for operand in operands)


def count_matmuls(network: Any, bundle: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Counts the matmuls by precision, and lists the float32 islands. All others must have the bundle's precision."""
    counts: dict[str, int] = {}
    islands: list[str] = []
    called = bundle["precision"]
    layers, made_by = read_layers(network)
    for layer in layers:
        if layer.type.name not in MATMULS:
            continue
        precision = PRECISIONS.get(layer.get_output(0).dtype.name, layer.get_output(0).dtype.name)
        precision = "int8" if multiplies_int8(layer, made_by) else precision
        counts[precision] = counts.get(precision, 0) + MATMULS[layer.type.name]
        if precision == called:
            continue
        name = node_name(layer.name)
        if precision != "fp32" or name not in bundle["islands"]:
            raise Failure(f"{name} computes in {precision}; every matmul but the float32 islands must be {called}")
        islands.append(name)
    if called not in counts:
        raise Failure(f"no matmul computes in {called}")
    return counts, islands


# --- running


def run(library: Any, gpu: Gpu, serialized: bytes, bundle: dict[str, Any], golden: dict[str, Any]) -> dict[str, Any]:
    """Runs all golden batches. Returns `output/FAMILY/OUTPUT/BATCH` (only the golden positions if it is large) and `shape/…`."""
    runtime = library.Runtime(library.Logger(library.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(serialized)
    if engine is None:
        raise Failure(f"the engine cannot be loaded on {gpu.name}; TensorRT's log above says why")
    context = engine.create_execution_context()
    if context is None:
        raise Failure(f"not enough memory on {gpu.name} to run the engine")
    batches: dict[tuple[str, str], dict[str, Any]] = {}
    for name, array in golden.items():
        if name.startswith("input/"):
            _, family, number, tensor = name.split("/", 3)
            batches.setdefault((family, number), {})[tensor] = np.ascontiguousarray(array)
    found: dict[str, Any] = {}
    for (family, number), inputs in batches.items():
        for output, array in run_batch(gpu, engine, context, bundle, inputs).items():
            place = f"{family}/{output}/{number}"
            found["shape/" + place] = np.array(array.shape, dtype=np.int64)
            positions = golden.get(f"positions/{array.size}")
            found["output/" + place] = array if positions is None else array.reshape(-1)[positions]
    return found


def run_batch(gpu: Gpu, engine: Any, context: Any, bundle: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Runs one batch, with the first profile that takes it; returns the outputs by name."""
    if not context.set_optimization_profile_async(pick_profile(bundle, inputs), gpu.stream):
        raise Failure("TensorRT refuses a profile of this bundle")
    gpu.synchronize()
    addresses = []
    try:
        for name, array in inputs.items():
            addresses.append(gpu.allocate(array.nbytes))
            gpu.upload(addresses[-1], array)
            if not (context.set_input_shape(name, array.shape) and context.set_tensor_address(name, addresses[-1])):
                raise Failure(f"TensorRT refuses input {name} of shape {list(array.shape)}")
        outputs = {}
        for name in bundle["outputs"]:
            dtype = NUMPY_TYPES[engine.get_tensor_dtype(name).name]
            array = np.empty(tuple(context.get_tensor_shape(name)), dtype)
            addresses.append(gpu.allocate(array.nbytes))
            context.set_tensor_address(name, addresses[-1])
            outputs[name] = (addresses[-1], array)
        if not context.execute_async_v3(gpu.stream):
            raise Failure("the engine failed while it ran; TensorRT's log above says why")
        gpu.synchronize()
        for address, array in outputs.values():
            gpu.download(array, address)
    finally:
        for address in addresses:
            gpu.call("cuMemFree_v2", ctypes.c_uint64(address))
    return {name: array for name, (_, array) in outputs.items()}


def pick_profile(bundle: dict[str, Any], inputs: dict[str, Any]) -> int:
    """Returns the number of the first profile that takes all inputs."""
    for number, profile in enumerate(bundle["profiles"]):
        ends = [(profile["shapes"][name], array.shape) for name, array in inputs.items()]
        if all(np.all((np.array(low) <= shape) & (shape <= np.array(high))) for (low, _, high), shape in ends):
            return number
    raise Failure("a golden input lies outside every profile")


def show(found: dict[str, Any], golden: dict[str, Any]) -> None:
    """Prints the score of each output and family: RMS error / noise floor."""
    for name in sorted(name for name in golden if name.startswith("floor/")):
        _, family, output = name.split("/", 2)
        squares, count = 0.0, 0
        prefix = f"reference/{family}/{output}/"
        for wanted in (other for other in golden if other.startswith(prefix)):
            got = found["output/" + wanted.split("/", 1)[1]].astype(np.float64).reshape(-1)
            errors = got - golden[wanted] if got.size == golden[wanted].size else golden[wanted] * np.nan
            squares, count = squares + float(np.square(errors).sum()), count + errors.size
        floor = float(golden[name][0])
        score = (squares / max(count, 1)) ** 0.5 / floor if floor else float("nan")
        print(f"{score:>10.3f} noise floors  {output}, {family} inputs")


class Gpu:
    """The first GPU, through its driver: name, compute capability, one stream, and memory."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.call("cuInit", 0)
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        # The primary context, which TensorRT uses, too.
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(stream), 0)
        self.stream = int(stream.value or 0)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, 256, device)
        self.name = name.value.decode("utf-8", "replace")
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)  # and _MINOR
        self.capability = f"{major.value}.{minor.value}"

    def call(self, function: str, *arguments: Any) -> None:
        """Calls a function of the driver; any result but 0 is a failure."""
        code = getattr(self.driver, function)(*arguments)
        if code:
            raise Failure(f"{function} of the NVIDIA driver failed with CUDA error {code}")

    def allocate(self, size: int) -> int:
        """Allocates memory of `size` bytes on the GPU, and returns its address."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return int(address.value)

    def upload(self, address: int, array: Any) -> None:
        """Copies an array to the GPU."""
        pointer = ctypes.c_void_p(array.ctypes.data)
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), pointer, ctypes.c_size_t(array.nbytes))

    def download(self, array: Any, address: int) -> None:
        """Copies an array from the GPU."""
        pointer = ctypes.c_void_p(array.ctypes.data)
        self.call("cuMemcpyDtoH_v2", pointer, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))

    def synchronize(self) -> None:
        """Waits until the stream has done all its work."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(self.stream))


def find_gpu() -> tuple[Gpu | None, str]:
    """Returns the first GPU and "", or None and the reason."""
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        return Gpu(ctypes.CDLL(name)), ""
    except OSError:
        return None, f"no NVIDIA driver is found here ({name})"
    except Failure as failure:
        return None, f"no GPU can be used here: {failure}"


# --- files


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in such a way that it appears whole or not at all."""
    temporary = path.with_name(path.name + ".writing")
    temporary.write_bytes(content)
    temporary.replace(path)


if __name__ == "__main__":
    main()
