"""Which NVIDIA GPUs this machine has, as its driver tells, or a Jetson's device tree: no runtime is loaded for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from lxmert_export.errors import ConversionError

Capability = tuple[int, int]

QUERY = ("nvidia-smi", "--query-gpu=compute_cap,name,driver_version", "--format=csv,noheader")
# A driver that is coming up answers within seconds; one that hangs never does.
TIMEOUT_SECONDS = 20.0
NONE_FOUND = "no NVIDIA GPU found here"
INSTEAD = "name the target instead (rtx builds without a GPU)"

# Jetson's chips, as the device tree's `compatible` names them, by the compute capability of the GPU inside.
JETSON_CHIPS: dict[str, Capability] = {"nvidia,tegra234": (8, 7), "nvidia,tegra264": (11, 0)}  # Orin, Thor
DEVICE_TREE, JETSON_RELEASE = "proc/device-tree", "etc/nv_tegra_release"
# What a Jetson's GPU is reached through; a container that was not given it lacks them all.
JETSON_DEVICES = ("dev/nvhost-gpu", "dev/nvhost-ctrl-gpu", "dev/nvgpu", "dev/nvidia0")


@dataclass(frozen=True)
class Gpu:
    """One GPU: its compute capability (major, minor; None where the driver does not tell), its name, the driver's version."""

    capability: Capability | None
    name: str
    driver: str

    def __str__(self) -> str:
        capability = "untold" if self.capability is None else written(self.capability)
        return f"{self.name}, compute capability {capability}, driver {self.driver}"


def find_gpus(timeout: float = TIMEOUT_SECONDS, *, root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The GPUs that ``nvidia-smi`` lists, or a Jetson's own, at least one; ``ConversionError`` says why there is none.

    Many a Jetson has no nvidia-smi, or one that tells no compute capability: its device tree, under ``root``, tells then.
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
    """The GPU of the Jetson that this machine is, or None; its driver is the release of Jetson Linux.

    ``ConversionError``: it is one, and its GPU cannot be reached, as in a container that was not given it.
    """
    chips = _strings(root / DEVICE_TREE / "compatible")
    capability = next((JETSON_CHIPS[chip] for chip in chips if chip in JETSON_CHIPS), None)
    if capability is None:
        return None
    name = next(iter(_strings(root / DEVICE_TREE / "model")), "NVIDIA Jetson")
    if not any((root / device).exists() for device in JETSON_DEVICES):
        raise ConversionError(
            f"{NONE_FOUND} ({name} has one, but no /{JETSON_DEVICES[0]} leads to it; a container is given it by "
            f"--runtime nvidia): {INSTEAD}"
        )
    release = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", "".join(_strings(root / JETSON_RELEASE)))
    return Gpu(capability, name, f"Jetson Linux {release[1]}.{release[2]}" if release else "of Jetson Linux")


def reason_of(error: ConversionError) -> str:
    """Why ``find_gpus`` found none, without what to do about a target."""
    return str(error).removesuffix(f": {INSTEAD}")


def why_not_run(error: ConversionError) -> str:
    """The same in the words of ``NOT_RUN``: "no GPU" where there is none, and what is wrong where nobody can tell."""
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
        said = next(iter(lines + _lines(answer.stderr)), f"exit code {answer.returncode}")
        raise ConversionError(f"{NONE_FOUND} (nvidia-smi says: {said}): {INSTEAD}")
    if not lines:
        raise ConversionError(f"{NONE_FOUND} (nvidia-smi lists none): {INSTEAD}")
    return tuple(map(_read, lines))


def written(capability: Capability) -> str:
    """A compute capability as NVIDIA writes it: 8.6."""
    return f"{capability[0]}.{capability[1]}"


def is_among(capability: Capability | None, known: Collection[Capability], *, and_later: bool) -> bool:
    """Whether a GPU is one of those that an engine is for; ``and_later``: or a later one than all of them."""
    return capability is not None and (capability in known or (and_later and capability > max(known)))


def read_capability(text: str) -> Capability | None:
    """The compute capability that a text spells, or None where it is something else."""
    found = re.fullmatch(r"([1-9][0-9]?)\.([0-9])", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _read(line: str) -> Gpu:
    """One line of the answer; a name may hold commas, the fields beside it do not."""
    capability, _, rest = line.partition(",")
    name, comma, driver = rest.rpartition(",")
    if not comma:
        raise ConversionError(f"nvidia-smi lists no GPU, but {line!r}: {INSTEAD}")
    # Some drivers on Jetson answer [N/A].
    return Gpu(read_capability(capability.strip()), name.strip(), driver.strip())


def _lines(output: bytes) -> list[str]:
    return [line.strip() for line in output.decode("utf-8", errors="replace").splitlines() if line.strip()]


def _strings(file: Path) -> list[str]:
    """What a file of the device tree holds: strings, each ended by a zero; none where there is no such file."""
    if not file.is_file():
        return []
    return [text for text in file.read_text(encoding="utf-8", errors="replace").split("\0") if text]
