"""Which NVIDIA GPUs this machine has, as its driver tells: no runtime is loaded for it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from lxmert_export.errors import ConversionError

Capability = tuple[int, int]

QUERY = ("nvidia-smi", "--query-gpu=compute_cap,name,driver_version", "--format=csv,noheader")
# A driver that is coming up answers within seconds; one that hangs never does.
TIMEOUT_SECONDS = 20.0
INSTEAD = "name the target instead (rtx builds without a GPU)"


@dataclass(frozen=True)
class Gpu:
    """One GPU: its compute capability (major, minor; None where the driver does not tell), its name, the driver's version."""

    capability: Capability | None
    name: str
    driver: str

    def __str__(self) -> str:
        capability = "untold" if self.capability is None else written(self.capability)
        return f"{self.name}, compute capability {capability}, driver {self.driver}"


def find_gpus(timeout: float = TIMEOUT_SECONDS) -> tuple[Gpu, ...]:
    """The GPUs that ``nvidia-smi`` lists, at least one; ``ConversionError`` says why there is none."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise ConversionError(f"no NVIDIA GPU found here (there is no nvidia-smi): {INSTEAD}") from error
    except OSError as error:
        raise ConversionError(f"nvidia-smi cannot be run ({error}): {INSTEAD}") from error
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"nvidia-smi gave no answer within {timeout:g} seconds: {INSTEAD}") from error
    lines = _lines(answer.stdout)
    if answer.returncode:
        said = next(iter(lines + _lines(answer.stderr)), f"exit code {answer.returncode}")
        raise ConversionError(f"no NVIDIA GPU found here (nvidia-smi says: {said}): {INSTEAD}")
    if not lines:
        raise ConversionError(f"no NVIDIA GPU found here (nvidia-smi lists none): {INSTEAD}")
    return tuple(map(_read, lines))


def written(capability: Capability) -> str:
    """A compute capability as NVIDIA writes it: 8.6."""
    return f"{capability[0]}.{capability[1]}"


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
