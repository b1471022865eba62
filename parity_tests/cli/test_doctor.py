"""What `doctor` says of engines: with and without a GPU, and with either TensorRT installed or none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import pytest

from lxmert_export import extras
from lxmert_export.api import doctor
from lxmert_export.api.doctor import Capability, examine_engines
from lxmert_export.engines.devices import install_line
from lxmert_export.engines.gpus import Capability as ComputeCapability
from lxmert_export.engines.gpus import Gpu, find_gpus

pytestmark = pytest.mark.quick

RTX, CLASSIC = "run TensorRT-RTX engines", "build and run TensorRT engines"


def having(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Of the runtimes, these modules alone are installed."""
    installed = {"tensorrt_rtx", "tensorrt", "polygraphy"} & set(modules)
    monkeypatch.setattr(extras, "find_spec", lambda name: object() if name in installed else None)
    monkeypatch.setattr(
        doctor, "tool_versions", lambda names: {n: "9" for n in names if n.replace("-", "_") in installed}
    )


def machine(*capabilities: ComputeCapability) -> Callable[[], tuple[Gpu, ...]]:
    return lambda: tuple(Gpu(capability, "Some GPU", "999.1") for capability in capabilities)


def told(detect: Callable[[], tuple[Gpu, ...]]) -> list[Capability]:
    """GPU, building for RTX, running RTX, classic; everything that does not work says what would mend it."""
    found = examine_engines(detect)
    assert len(found) == 4
    assert all(one.detail and one.works != bool(one.mend) for one in found)
    return found


def test_nothing_installed_and_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    having(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu, build, run, classic = told(find_gpus)
    assert not any(one.works for one in (gpu, build, run, classic))
    assert gpu.detail == "no NVIDIA GPU found here (there is no nvidia-smi)"
    assert build.mend == run.mend == install_line("rtx")
    assert classic.mend == install_line("datacenter")
    assert {build.detail, run.detail, classic.detail} == {"nothing installed"}


def test_rtx_builds_without_a_gpu_but_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    having(monkeypatch, "tensorrt_rtx", "polygraphy")
    monkeypatch.setenv("PATH", str(tmp_path))
    _, build, run, classic = told(find_gpus)
    assert build.works and build.detail == "tensorrt-rtx 9, polygraphy 9"
    assert not run.works and "no GPU found" in run.detail and not classic.works


@pytest.mark.parametrize("modules", [("tensorrt_rtx",), ("polygraphy",), ("tensorrt", "polygraphy")])
def test_rtx_needs_both(monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...]) -> None:
    having(monkeypatch, *modules)
    _, build, run, _ = told(machine((8, 9)))
    assert not build.works and not run.works and build.mend == install_line("rtx")


@pytest.mark.parametrize(
    ("capability", "rtx", "classic"),
    [((7, 5), True, True), ((8, 7), False, True), ((8, 9), True, True), ((9, 0), False, True), ((11, 0), False, True),
     ((12, 1), True, True), ((13, 0), True, False), ((6, 1), False, False)],
)  # fmt: skip
def test_what_each_gpu_runs(
    monkeypatch: pytest.MonkeyPatch, capability: ComputeCapability, rtx: bool, classic: bool
) -> None:
    having(monkeypatch, "tensorrt_rtx", "tensorrt", "polygraphy")
    gpu, build, *run = told(machine(capability))
    assert gpu.works and "driver 999.1" in gpu.detail and build.works
    assert [one.works for one in run] == [rtx, classic]
    assert [one.what.split(" (")[0] for one in run] == [RTX, CLASSIC]
    assert all("unexecuted" in one.what for one in run)


def test_what_installs_tensorrt_on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch)
    (orin, thor, other) = (told(machine(capability))[3].mend for capability in ((8, 7), (11, 0), (9, 0)))
    assert orin == f"{install_line('orin-jp6')} (--target orin-jp6) or {install_line('orin-jp7')} (--target orin-jp7)"
    assert thor == install_line("thor") and other == install_line("datacenter")


def test_one_gpu_that_can_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, "tensorrt_rtx", "polygraphy")
    assert told(machine((9, 0), (8, 6)))[2].works


def test_no_runtime_is_loaded() -> None:
    code = "import sys; from lxmert_export.api.doctor import examine_engines; examine_engines(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "lxmert_export.api.doctor" in loaded
    assert {"tensorrt", "tensorrt_rtx", "polygraphy", "torch", "onnxruntime"}.isdisjoint(loaded)


def test_this_machine_is_told_as_it_is() -> None:
    installed = all(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "polygraphy"))
    assert examine_engines()[1].works == installed
