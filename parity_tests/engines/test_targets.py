"""The target resolver: every target, compute capability, precision and option, and each thing that cannot be."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from lxmert_export.cli.engine import tensorrt
from lxmert_export.engines import devices as engine_targets
from lxmert_export.engines.device_kinds import CAPABILITIES, DEVICES, Versions
from lxmert_export.engines.devices import install_line, parse_capabilities, resolve
from lxmert_export.engines.gpus import Capability, Gpu, written
from lxmert_export.engines.library import open_library
from lxmert_export.engines.options import OPTIONS, BuildOptions
from lxmert_export.errors import ConversionError
from lxmert_export.spec.signature import Precision

pytestmark = pytest.mark.quick

NAMED = tuple(target for target in DEVICES if target != "this-gpu")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
# Written out rather than read from the module: what may be asked for, by target.
ALLOWED: dict[str, set[str]] = {
    "rtx": {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"},
    "orin-jp6": {"8.7"},
    "orin-jp7": {"8.7"},
    "thor": {"11.0"},
    "datacenter": {"7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"},
}
EVERY_CAPABILITY = sorted(set.union(*ALLOWED.values()))
CHOICES: dict[str, Any] = {
    "version_compatible": True, "hardware_compatible": True, "strip": True, "refit": True, "weight_streaming": True,
    "timing_cache": "cache.bin", "builder_level": 0, "dla": True,
}  # fmt: skip
GRANTED: dict[str, set[str]] = {
    "rtx": {"weight_streaming"},
    "orin-jp6": set(CHOICES) - {"hardware_compatible", "dla"},
    "orin-jp7": set(CHOICES) - {"hardware_compatible"},
    "thor": set(CHOICES) - {"hardware_compatible", "dla"},
    "datacenter": set(CHOICES) - {"dla"},
}


def machine(*capabilities: Capability, name: str = "Some GPU") -> Callable[[], tuple[Gpu, ...]]:
    return lambda: tuple(Gpu(capability, name, "999.1") for capability in capabilities)


def refused(target: str, **asked: Any) -> str:
    """The one line with which a question is refused."""
    with pytest.raises(ConversionError) as caught:
        resolve(target, **asked)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def unasked() -> tuple[Gpu, ...]:
    raise AssertionError("a named target asked for the GPU")


@pytest.mark.parametrize(
    ("target", "runtime", "versions", "built", "capabilities", "later", "install"),
    [
        ("rtx", "tensorrt-rtx", ">=1.7,<2", "here", [(8, 0), (8, 6), (8, 9), (12, 0)], True,
         "pip install 'tensorrt-rtx>=1.7,<2' 'polygraphy>=0.53'"),
        ("orin-jp6", "tensorrt", ">=10.3,<11", "on the device", [(8, 7)], False,
         "sudo apt-get install python3-libnvinfer"),
        ("orin-jp7", "tensorrt", ">=10.16,<11 or >=11.4.1,<12", "on the device", [(8, 7)], False,
         "pip install 'tensorrt>=10.16,<11' 'polygraphy>=0.53'"),
        ("thor", "tensorrt", ">=10.13,<11 or >=11.4.1,<12", "on the device", [(11, 0)], False,
         "pip install 'tensorrt>=10.13,<11' 'polygraphy>=0.53'"),
        ("datacenter", "tensorrt", ">=10.13,<12", "on the device",
         [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)], False,
         "pip install 'tensorrt>=10.13,<12' 'polygraphy>=0.53'"),
    ],
)  # fmt: skip
def test_named_targets(
    target: str,
    runtime: str,
    versions: str,
    built: str,
    capabilities: list[Capability],
    later: bool,
    install: str,
) -> None:
    found = resolve(target, detect=unasked)
    assert (found.name, found.runtime, str(found.versions), found.built) == (target, runtime, versions, built)
    assert (list(found.compute_capabilities), found.and_later, found.install) == (capabilities, later, install)
    assert found.unexecuted == (("run",) if target == "rtx" else ("build", "run"))
    assert found.builder_capabilities is None  # RTX: its portable default; classic: the GPU that builds it


@pytest.mark.parametrize("target", NAMED)
@pytest.mark.parametrize("capability", EVERY_CAPABILITY)
def test_every_target_with_every_capability(target: str, capability: str) -> None:
    if capability in ALLOWED[target]:
        found = resolve(target, compute_capability=capability, precision="fp16", detect=unasked)
        assert [written(one) for one in found.compute_capabilities] == [capability]
        assert not found.and_later
        assert found.builder_capabilities == (list(found.compute_capabilities) if target == "rtx" else None)
        return
    message = refused(target, compute_capability=capability, precision="fp16", detect=unasked)
    assert f"cannot target compute capability {capability}" in message
    suggested = {name for name in NAMED if f"--target {name}" in message.split(": use ")[1]}
    assert suggested and all(capability in ALLOWED[name] for name in suggested), "what is suggested must work"


@pytest.mark.parametrize(
    ("capability", "instead"),
    [("8.7", "--target orin-jp6 or --target orin-jp7"), ("9.0", "--target datacenter"), ("11.0", "--target thor")],
)
def test_rtx_names_the_way_out(capability: str, instead: str) -> None:
    assert instead in refused("rtx", compute_capability=f"8.6,{capability}")


@pytest.mark.parametrize("target", NAMED)
@pytest.mark.parametrize("option", CHOICES)
def test_every_target_with_every_option(target: str, option: str) -> None:
    options = BuildOptions(**{option: CHOICES[option]})
    if option not in GRANTED[target]:
        message = refused(target, precision="fp16", options=options)
        assert message.startswith(f"--target {target} refuses {OPTIONS[option].flag}: ")
        return
    found = resolve(target, precision="fp16", options=options)
    assert found.to_dict()["options"] == {option: CHOICES[option]}
    assert OPTIONS[option].flag in found.unexecuted


def test_every_refused_option_is_named_at_once() -> None:
    message = refused("rtx", options=BuildOptions(strip=True, dla=True, builder_level=0))
    assert all(flag in message for flag in ("--strip", "--dla", "--builder-level"))


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("capability", EVERY_CAPABILITY)
def test_every_precision(kind: str, precision: Precision, capability: str) -> None:
    if capability not in ALLOWED[kind]:
        return
    impossible = capability == "7.5" and (precision == "bf16" or (precision in ("fp32", "int8") and kind == "rtx"))
    if impossible:
        message = refused(kind, compute_capability=capability, precision=precision)
        assert "7.5" in message and "use --fp16" in message
        assert ("--target datacenter" in message) == (precision in ("fp32", "int8"))
    else:
        assert precision == resolve(kind, compute_capability=capability, precision=precision).precision


def test_turing_among_others() -> None:
    assert "FP32 GEMM is not supported" in refused("rtx", compute_capability="7.5,8.9")
    assert "leave 7.5 out" in refused("rtx", compute_capability="7.5,8.9", precision="bf16")
    found = resolve("rtx", compute_capability="8.9,7.5", precision="fp16")
    assert found.builder_capabilities == [(7, 5), (8, 9)]
    assert any("float32 cannot be built" in note for note in found.notes)
    assert (7, 5) not in resolve("datacenter", precision="bf16").compute_capabilities
    assert (7, 5) not in resolve("datacenter", options=BuildOptions(hardware_compatible=True)).compute_capabilities


def test_precisions_that_no_engine_has() -> None:
    assert "fp32, fp16, bf16, int8" in refused("rtx", precision="fp8")


def test_classic_engines_are_for_one_capability() -> None:
    assert "--hardware-compatible" in refused("datacenter", compute_capability="8.0,9.0")
    portable = BuildOptions(hardware_compatible=True)
    found = resolve("datacenter", compute_capability="8.0,9.0", options=portable)
    assert found.compute_capabilities == ((8, 0), (9, 0))
    assert "needs compute capability 8.0" in refused("datacenter", compute_capability="7.5,9.0", options=portable)


MALFORMED = (
    "", "8", "8.6,", ",8.6", "8.6;8.9", "sm86", "8,6", "8.6.1", "8.60", "٨.٦", "8.٦", "-8.6", "8.6 8.9", "08.6", "nan",
)  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_capabilities(text: str) -> None:
    assert "is not major.minor, as in 8.6,8.9" in refused("rtx", compute_capability=text)


@pytest.mark.parametrize("text", ["5.2", "7.2", "8.8", "13.0", "8.6,9.9"])
def test_unknown_capabilities_list_the_known(text: str) -> None:
    message = refused("rtx", compute_capability=text)
    assert "unknown compute capability" in message
    assert all(written(capability) in message for capability in CAPABILITIES)


def test_thor_of_before_cuda_13() -> None:
    assert "--target thor" in refused("thor", compute_capability="10.1")


def test_lists_are_sorted_and_each_is_there_once() -> None:
    assert parse_capabilities("12.0, 8.6,8.6") == ((8, 6), (12, 0))


def test_unknown_target() -> None:
    message = refused("orin")
    assert all(target in message for target in DEVICES)


@pytest.mark.parametrize(
    ("kind", "opset", "versions"),
    [("orin-jp6", 20, ">=10.3,<11"), ("orin-jp7", 24, ">=10.16,<11 or >=11.4.1,<12"), ("orin-jp7", 25, ">=11.4.1,<12"),
     ("thor", 20, ">=10.13,<11 or >=11.4.1,<12"), ("thor", 21, ">=10.14,<11 or >=11.4.1,<12"),
     ("datacenter", 25, ">=11,<12"), ("rtx", 25, ">=1.7,<2")],
)  # fmt: skip
def test_a_parser_takes_the_graphs_opset(kind: str, opset: int, versions: str) -> None:
    assert str(resolve(kind, opset=opset).versions) == versions


@pytest.mark.parametrize(("kind", "opset", "highest"), [("orin-jp6", 21, 20), ("thor", 26, 25), ("rtx", 26, 25)])
def test_an_opset_that_no_parser_takes_is_refused(kind: str, opset: int, highest: int) -> None:
    message = refused(kind, opset=opset)
    assert f"at most opset {highest}, and the graph has opset {opset}: export it with --opset {highest}" in message
    assert ("of tensorrt 10.3 takes" in message) == (kind == "orin-jp6")


def test_no_lower_opset_is_named_that_lacks_the_operator() -> None:
    message = refused("orin-jp6", opset=23, attention="operator")
    assert "export it with --attention decomposed" in message and "--opset" not in message
    assert "export it with --opset 25" in refused("thor", opset=26, attention="operator")


def test_dla_is_orins_and_fp16s() -> None:
    found = resolve("orin-jp7", precision="fp16", options=BuildOptions(dla=True))
    assert str(found.versions) == ">=11.4.1,<12"
    assert "'tensorrt>=11.4.1,<12'" in found.install
    for precision in ("fp32", "bf16"):
        assert "--dla" in refused("orin-jp7", precision=precision, options=BuildOptions(dla=True))
    assert "Thor has no DLA" in refused("thor", precision="fp16", options=BuildOptions(dla=True))


def test_refit_leaves_out_the_version_that_drops_biases() -> None:
    found = resolve("datacenter", options=BuildOptions(refit=True))
    assert str(found.versions) == ">=10.13,<11.3 or >=11.4,<12"
    assert "11.3.1" not in found.versions and "11.4.0" in found.versions
    assert str(resolve("thor", options=BuildOptions(refit=True)).versions) == ">=10.13,<11 or >=11.4.1,<12"


@pytest.mark.parametrize("level", [-1, 6])
def test_builder_levels(level: int) -> None:
    assert "0 to 5" in refused("datacenter", options=BuildOptions(builder_level=level))


@pytest.mark.parametrize(
    ("version", "works"),
    [("10.16", True), ("10.16.1.11", True), ("10.15.1", False), ("11", False), ("11.0.0", False), ("11.4", False),
     ("11.4.0.9", False), ("11.4.1", True), ("11.4.1.5.post1", True), ("12.0", False), ("", False), ("x", False)],
)  # fmt: skip
def test_versions(version: str, works: bool) -> None:
    assert (version in resolve("orin-jp7").versions) == works


def test_versions_less_a_span_are_as_listed() -> None:
    """Every pair of spans of small numbers, against membership one by one."""
    bounds = [(n,) for n in range(5)]
    for a, b, c, d in itertools.product(bounds, repeat=4):
        if a < b and c < d:
            left = Versions(((a, b),)).without(c, d)
            wanted = [n for n in range(5) if a[0] <= n < b[0] and not c[0] <= n < d[0]]
            assert [n for n in range(5) if str(n) in left] == wanted


@pytest.mark.parametrize(
    ("capability", "kind", "runtime"),
    [("7.5", "rtx", "tensorrt-rtx"), ("8.0", "rtx", "tensorrt-rtx"), ("8.9", "rtx", "tensorrt-rtx"),
     ("9.0", "datacenter", "tensorrt"), ("10.0", "datacenter", "tensorrt"), ("10.3", "datacenter", "tensorrt"),
     ("11.0", "thor", "tensorrt"), ("12.0", "rtx", "tensorrt-rtx"), ("12.1", "rtx", "tensorrt-rtx")],
)  # fmt: skip
def test_this_gpu(capability: str, kind: str, runtime: str) -> None:
    (known,) = parse_capabilities(capability)
    found = resolve("this-gpu", precision="fp16", detect=machine(known, known))
    assert (found.name, found.kind, found.runtime) == ("this-gpu", kind, runtime)
    assert found.compute_capabilities == (known,)
    assert found.built == ("here" if kind == "rtx" else "on the device")
    assert not found.and_later


def test_this_gpu_refuses() -> None:
    assert "is an Orin; name its JetPack: use --target orin-jp6" in refused("this-gpu", detect=machine((8, 7)))
    assert "different compute capabilities (8.6, 9.0)" in refused("this-gpu", detect=machine((9, 0), (8, 6)))
    assert "not a known GPU; --target rtx builds for later" in refused("this-gpu", detect=machine((14, 0)))
    assert "not a known GPU; name the target" in refused("this-gpu", detect=machine((9, 1)))
    assert "no NVIDIA GPU" in refused("this-gpu", detect=machine())
    assert "leave --compute-capability out" in refused("this-gpu", compute_capability="8.6", detect=unasked)
    assert "FP32 GEMM" in refused("this-gpu", detect=machine((7, 5)))
    assert "--strip" in refused("this-gpu", detect=machine((8, 6)), options=BuildOptions(strip=True))


def test_manifest_holds_it_as_json() -> None:
    asked = resolve("rtx", compute_capability="8.6,8.9", options=BuildOptions(weight_streaming=True))
    assert json.loads(json.dumps(asked.to_dict())) == {
        "target": "rtx", "runtime": "tensorrt-rtx", "versions": ">=1.7,<2", "compute_capabilities": ["8.6", "8.9"],
        "and_later": False, "built": "here", "options": {"weight_streaming": True}, "notes": [],
        "unexecuted": ["run", "--weight-streaming"],
        "install": "pip install 'tensorrt-rtx>=1.7,<2' 'polygraphy>=0.53'",
    }  # fmt: skip


def test_options_are_all_in_the_table() -> None:
    assert set(OPTIONS) == set(CHOICES) == set(BuildOptions(**CHOICES).chosen)
    assert BuildOptions().chosen == {}


def test_help_marks_what_no_run_has_executed() -> None:
    """All options of a build: the text that every user sees."""
    parameters = get_type_hints(tensorrt, include_extras=True)
    for name in OPTIONS:
        assert parameters[name].__metadata__[0].help.endswith(" [unexecuted]"), name


def test_arguments_are_polygraphys() -> None:
    """The oracle is the signature of Polygraphy that is installed."""
    open_library("tensorrt-rtx", install_line("rtx"))  # of the two runtimes this process can use one
    from polygraphy.backend.trt import CreateConfig

    known = {name for kind in CreateConfig.__mro__ for name in inspect.signature(kind.__init__).parameters}
    assert {option.argument for option in OPTIONS.values()} <= known


def test_capabilities_are_the_wheels() -> None:
    """The oracle is the wheel of TensorRT-RTX that is installed."""
    runtime = open_library("tensorrt-rtx", install_line("rtx"))
    members = {name for name in runtime.ComputeCapability.__members__ if name.startswith("SM")}
    assert {f"SM{major}{minor}" for major, minor in engine_targets.RTX} == members
    assert runtime.__version__ in resolve("rtx").versions


@pytest.mark.parametrize("kind", NAMED)
def test_install_lines(kind: str) -> None:
    assert install_line(kind) == resolve(kind).install
