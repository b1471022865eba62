"""Finds the NVIDIA GPUs of this machine, through nvidia-smi or a Jetson's device tree. No runtime is loaded."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from lxmert_export.errors import ConversionError

Capability = tuple[int, int]

QUERY = ("nvidia-smi", "--query-gpu=compute_cap,name,driver_version", "--format=csv,noheader")
# A driver that is starting answers within seconds; a driver that hangs never answers.
TIMEOUT_SECONDS = 20.0
NONE_FOUND = "no NVIDIA GPU found here"
INSTEAD = "name the target instead (rtx builds without a GPU)"

# The Jetson chips, as the device tree's `compatible` names them, and the compute capability of their GPUs.
JETSON_CHIPS: dict[str, Capability] = {"nvidia,tegra234": (8, 7), "nvidia,tegra264": (11, 0)}  # Orin, Thor
DEVICE_TREE, JETSON_RELEASE = "proc/device-tree", "etc/nv_tegra_release"
# The device files of a Jetson's GPU. A container without access to the GPU has none of them.
JETSON_DEVICES = ("dev/nvhost-gpu", "dev/nvhost-ctrl-gpu", "dev/nvgpu", "dev/nvidia0")


@dataclass(frozen=True)
class Gpu:
    """One GPU: compute capability (major, minor; None if the driver does not report it), name, and driver version."""

    capability: Capability | None
    name: str
    driver: str

    def __str__(self) -> str:
        capability = "unknown" if self.capability is None else written(self.capability)
        return f"{self.name}, compute capability {capability}, driver {self.driver}"


def find_gpus(timeout: float = TIMEOUT_SECONDS, *, root: Path = Path("/")) -> tuple[Gpu, ...]:
    """Returns the GPUs that ``nvidia-smi`` lists within ``timeout`` seconds, or a Jetson's own GPU; at least one.

    Many Jetsons have no nvidia-smi, or one that does not report the compute capability: the device tree below ``root`` is used
    instead. Raises ``ConversionError`` if there is no GPU; the message says why.
    """
    jetson = find_jetson(root)
    try:
        gpus = _ask_driver(timeout)
    except ConversionError:
        if jetson is None:
            raise
        return (jetson,)
    if jetson is None:
        return gpus
    return tuple(gpu if gpu.capability else replace(gpu, capability=jetson.capability) for gpu in gpus)


def find_jetson(root: Path = Path("/")) -> Gpu | None:
    """Returns this machine's GPU if the machine is a Jetson, otherwise None. Its driver is the release of Jetson Linux.

    Raises ``ConversionError`` if a Jetson's GPU cannot be reached, as in a container without access to it.
    """
    chips = _strings(root / DEVICE_TREE / "compatible")
    capability = next((JETSON_CHIPS[chip] for chip in chips if chip in JETSON_CHIPS), None)
    if capability is None:
        return None
    name = next(iter(_strings(root / DEVICE_TREE / "model")), "NVIDIA Jetson")
    if not any((root / device).exists() for device in JETSON_DEVICES):
        raise ConversionError(
            f"{NONE_FOUND} ({name} has one, but there is no /{JETSON_DEVICES[0]}; a container needs --runtime nvidia): "
            f"{INSTEAD}"
        )
    release = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", "".join(_strings(root / JETSON_RELEASE)))
    return Gpu(capability, name, f"Jetson Linux {release[1]}.{release[2]}" if release else "of Jetson Linux")


def reason_of(error: ConversionError) -> str:
    """Returns why ``find_gpus`` found no GPU, without the advice to name a target."""
    return str(error).removesuffix(f": {INSTEAD}")


def why_not_run(error: ConversionError) -> str:
    """Returns the reason in a ``NOT_RUN`` status: "no GPU", or what went wrong if it is unknown whether there is one."""
    reason = reason_of(error)
    return "no GPU" if reason.startswith(NONE_FOUND) else reason


def _ask_driver(timeout: float) -> tuple[Gpu, ...]:
    try:
        answer = subprocess.run(QUERY, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise ConversionError(f"{NONE_FOUND} (there is no nvidia-smi): {INSTEAD}") from error
    except OSError as error:
        raise ConversionError(f"nvidia-smi cannot be run ({error}): {INSTEAD}") from error
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"nvidia-smi gave no answer within {timeout:g} seconds: {INSTEAD}") from error
    lines = _lines(answer.stdout)
    if answer.returncode:
        reason = next(iter(lines + _lines(answer.stderr)), f"exit code {answer.returncode}")
        raise ConversionError(f"{NONE_FOUND} (nvidia-smi says: {reason}): {INSTEAD}")
    if not lines:
        raise ConversionError(f"{NONE_FOUND} (nvidia-smi lists none): {INSTEAD}")
    return tuple(map(_read, lines))


def written(capability: Capability) -> str:
    """Returns a compute capability as NVIDIA writes it, such as 8.6."""
    return f"{capability[0]}.{capability[1]}"


def is_among(capability: Capability | None, known: Collection[Capability], *, and_later: bool) -> bool:
    """Returns whether a capability is among the known ones or, with ``and_later``, above all of them; None never is."""
    return capability is not None and (capability in known or (and_later and capability > max(known)))


def read_capability(text: str) -> Capability | None:
    """Reads a compute capability such as ``8.6``; returns None for any other text."""
    found = re.fullmatch(r"([1-9][0-9]?)\.([0-9])", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _read(line: str) -> Gpu:
    """Reads one line of the answer. The name may contain commas; the fields before and after it do not."""
    capability, _, rest = line.partition(",")
    name, comma, driver = rest.rpartition(",")
    if not comma:
        raise ConversionError(f"nvidia-smi lists {line!r}, which is not a GPU: {INSTEAD}")
    # Some drivers on Jetson answer [N/A].
    return Gpu(read_capability(capability.strip()), name.strip(), driver.strip())


def _lines(output: bytes) -> list[str]:
    return [line.strip() for line in output.decode("utf-8", errors="replace").splitlines() if line.strip()]


def _strings(file: Path) -> list[str]:
    """Returns the zero-terminated strings in a file of the device tree; none if there is no such file."""
    if not file.is_file():
        return []
    return [text for text in file.read_text(encoding="utf-8", errors="replace").split("\0") if text]
