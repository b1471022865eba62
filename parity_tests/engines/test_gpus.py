"""GPUs are found by nvidia-smi, or by a Jetson's device tree; what hangs or says nonsense is told in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxmert_export.engines.devices import resolve
from lxmert_export.engines.gpus import Gpu, find_gpus
from lxmert_export.errors import ConversionError
from parity_tests.engines.test_targets import refused

pytestmark = pytest.mark.quick


def write_nvidia_smi(place: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = place / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = 'test "$*" = "--query-gpu=compute_cap,name,driver_version --format=csv,noheader" || exit 9'
    listed = "9.0, NVIDIA H100 80GB HBM3, 570.86.15\\n8.9, A, B and C, 570.86.15\\n"
    write_nvidia_smi(tmp_path, monkeypatch, f"{query}\nprintf '{listed}'")
    assert find_gpus() == (
        Gpu((9, 0), "NVIDIA H100 80GB HBM3", "570.86.15"),
        Gpu((8, 9), "A, B and C", "570.86.15"),
    )
    assert str(find_gpus()[0]) == "NVIDIA H100 80GB HBM3, compute capability 9.0, driver 570.86.15"


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo 'No devices were found'; exit 6", "No devices were found"), ("echo 'no driver' >&2; exit 9", "no driver"),
     ("exit 12", "exit code 12"), ("true", "lists none"), ("echo '[N/A], Orin (nvgpu), N/A'", "does not report the compute"),
     ("echo garbage", "lists 'garbage', which is not a GPU"), ("printf '\\377\\n'", "which is not a GPU")],
)  # fmt: skip
def test_no_gpu(script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nvidia_smi(tmp_path, monkeypatch, script)
    assert reason in refused("this-gpu")


def test_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no nvidia-smi" in refused("this-gpu")
    (tmp_path / "nvidia-smi").write_text("not a program")
    (tmp_path / "nvidia-smi").chmod(0o644)
    assert "nvidia-smi" in refused("this-gpu")


def test_hanging_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nvidia_smi(tmp_path, monkeypatch, f"echo $$ > {tmp_path / 'pid'}; exec sleep 600")
    with pytest.raises(ConversionError, match="no answer within 1 seconds"):
        find_gpus(timeout=1.0)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists(), "nobody waits for it any more"


def write_jetson(root: Path, compatible: str, *, model: str = "", device: str = "dev/nvhost-gpu") -> Path:
    """A file system with a Jetson's device tree, release file and device."""
    files = {
        "proc/device-tree/compatible": compatible,
        "proc/device-tree/model": model,
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        device: "",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


ORIN_TREE = "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0nvidia,tegra23x\0"


THOR_TREE = "nvidia,p4071-0000+p3834-0008\0nvidia,tegra264\0"


AGX_ORIN = Gpu((8, 7), "NVIDIA Jetson AGX Orin Developer Kit", "Jetson Linux 36.4.3")


def test_a_jetson_without_nvidia_smi_is_known_by_its_device_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    orin = write_jetson(tmp_path / "orin", ORIN_TREE, model=f"{AGX_ORIN.name}\0")
    assert find_gpus(root=orin) == (AGX_ORIN,)
    thor = write_jetson(tmp_path / "thor", THOR_TREE, device="dev/nvidia0")
    (thor / "etc" / "nv_tegra_release").unlink()
    (found,) = find_gpus(root=thor)
    assert (found.capability, found.name) == ((11, 0), "NVIDIA Jetson")
    assert resolve("this-gpu", detect=lambda: find_gpus(root=thor)).kind == "thor"
    assert "name its JetPack" in refused("this-gpu", detect=lambda: find_gpus(root=orin))


def test_what_nvidia_smi_leaves_untold_the_device_tree_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orin = write_jetson(tmp_path / "orin", ORIN_TREE, model=f"{AGX_ORIN.name}\0")
    write_nvidia_smi(tmp_path, monkeypatch, "echo '[N/A], Orin (nvgpu), 540.4.0'")
    assert find_gpus(root=orin) == (Gpu((8, 7), "Orin (nvgpu)", "540.4.0"),)
    write_nvidia_smi(tmp_path, monkeypatch, "echo '8.6, NVIDIA RTX A6000, 535.1'")  # a card in an IGX Orin
    assert find_gpus(root=orin) == (Gpu((8, 6), "NVIDIA RTX A6000", "535.1"),)


@pytest.mark.parametrize(
    ("compatible", "device", "reason"),
    [(ORIN_TREE, "dev/null", "there is no /dev/nvhost-gpu; .* --runtime nvidia"),
     ("raspberrypi,5-model-b\0brcm,bcm2712\0", "dev/nvhost-gpu", "there is no nvidia-smi"),
     ("nvidia,tegra2340\0", "dev/nvhost-gpu", "there is no nvidia-smi")],
    ids=["not in the container", "another board", "another chip"],
)  # fmt: skip
def test_no_jetson(compatible: str, device: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    board = write_jetson(tmp_path / "board", compatible, device=device)
    with pytest.raises(ConversionError, match=reason) as told:
        find_gpus(root=board)
    assert "\n" not in str(told.value)
