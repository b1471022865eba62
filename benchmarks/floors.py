"""Holds every declared version to be true: environments with the lowest and the newest of every dependency (`make floors`).

For each Python that is found, the wheel and its extras are installed twice. Where PyTorch is to be had, the quick suite
runs there. Elsewhere the wheel opens, verifies and runs artifacts that the checkout made. Each environment is removed
when it is finished; a run that was cut off goes on with the next. Writes benchmarks/floors.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from benchmarks.floor_checks import CHECKPOINT, DEMO, SMALL, checks_of
from benchmarks.floors_page import page
from benchmarks.measuring import machine
from benchmarks.resumable import Steps
from lxmert_export.files.atomic_files import replace_files

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "build" / "floors"
PAGE = Path(__file__).with_suffix(".md")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"

# What runs an artifact. The extra ``tensorrt`` is not among them: JetPack brings it, and elsewhere it takes gigabytes of CUDA.
DEVICE = ("onnx", "h5", "tflite", "polygraphy", "demo")
EVERYTHING = (*DEVICE, "data", "ray", "torch", "tensorflow", "tensorrt-rtx")
TEST_TOOLS = ("pytest", "pytest-timeout")


@dataclass(frozen=True)
class Environment:
    """What is installed into one environment, and what runs in it.

    ``versions`` is ``lowest``, ``newest``, or a list of requirements beside the wheel. ``wheel``: ours is installed.
    """

    name: str
    python: str
    versions: str
    extras: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    wheel: bool = True

    @property
    def converts(self) -> bool:
        """Whether PyTorch is there."""
        return "torch" in self.extras


def main() -> None:
    """Runs every environment that is not finished, and writes the page."""
    options = _options()
    steps = Steps(PLACE / "finished", _key())
    wheel = _wheel()
    found = {}
    for environment in environments(_interpreters(options.pythons)):
        if options.only and not re.search(options.only, environment.name):
            if not steps.is_finished(environment.name):
                continue
        elif not steps.is_finished(environment.name):
            print(f"{time.strftime('%H:%M')} {environment.name}", flush=True)
        found[environment.name] = steps.once(
            environment.name, partial(measured, environment, wheel, options.pip_args.split())
        )
        replace_files(PAGE.parent, {PAGE.name: page(found, machine(("pip",)), torch_cap()).encode()})
    failed = [name for name, result in found.items() if result["failed"]]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def environments(interpreters: dict[str, str]) -> Iterator[Environment]:
    """What is tested: two environments for each Python, and two that stand beside older libraries."""
    for python in interpreters:
        extras = EVERYTHING if python == OURS else DEVICE
        for versions in ("lowest", "newest"):
            yield Environment(f"{python}-{versions}", interpreters[python], versions, extras)
    ours = interpreters[OURS]
    beside = ("transformers==4.57.6",)
    yield Environment("transformers-4", ours, "newest", ("torch", "onnx"), beside)
    # The lowest onnxruntime whose wheels take opset 18; it needs numpy 1, so the file runs in it without our wheel.
    yield Environment(
        "onnxruntime-1.16", ours, "newest", (), ("onnxruntime==1.16.0", "numpy<2", "safetensors"), wheel=False
    )


def measured(environment: Environment, wheel: Path, pip_args: Sequence[str]) -> dict[str, Any]:
    """Installs an environment, runs its checks, and removes it; returns what was installed, and how each check ended."""
    place = PLACE / environment.name
    if not environment.converts:
        _make_artifacts()
    ready = place / ".installed"
    if not ready.is_file():
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    before = _cpu_minutes()
    log = PLACE / f"{environment.name}.log"
    with log.open("w", encoding="utf-8") as output:

        def runs(*command: str | Path, cwd: Path = place, **variables: str) -> bool:
            print("$", *command, file=output, flush=True)
            clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env={**clean, **variables}, check=False
            )
            return done.returncode == 0

        python = place / "bin" / "python"
        pip: tuple[str | Path, ...] = (
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-cache-dir",
            "--no-compile",
            *pip_args,
        )
        installed = ready.is_file() or (
            runs(environment.python, "-m", "venv", place) and runs(*pip, *requirements(environment, wheel))
        )
        if installed:  # a run that is cut off from here on does not install again
            ready.touch()
        checks = checks_of(environment.converts, environment.wheel, environment.beside, PLACE / "artifacts")
        outcomes = {"installs": installed} | {name: check(python, runs) for name, check in checks if installed}
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=False
    )
    size = sum(path.lstat().st_size for path in place.rglob("*"))
    shutil.rmtree(place)
    return {
        "python": _version(environment.python),
        "commit": _commit(),
        "versions": environment.versions,
        "outcomes": outcomes,
        "failed": [name for name, passed in outcomes.items() if not passed],
        "summary": _summary(log),
        "installed": dict(line.split("==", 1) for line in listed.stdout.split() if "==" in line),
        "cpu_minutes": _cpu_minutes() - before,
        "gigabytes": size / 1e9,
    }


def requirements(environment: Environment, wheel: Path) -> list[str]:
    """What pip installs: the wheel with its extras, what stands beside it, and pins for the lowest versions."""
    if not environment.wheel:
        return list(environment.beside)
    asked = [f"{wheel}[{','.join(environment.extras)}]", *environment.beside]
    tools = [line for line in PROJECT["optional-dependencies"]["dev"] if Requirement(line).name in TEST_TOOLS]
    declared = [*_declared(environment.extras), *map(Requirement, tools)]
    asked += tools if environment.converts else []
    if environment.versions == "lowest":
        return [*asked, *(f"{one.name}=={_floor(one)}{_marker(one)}" for one in declared)]
    return [*asked, *([torch_cap()] if environment.converts else [])]


def torch_cap() -> str:
    """The PyTorch that constraints.txt pins: newer wheels for Linux on x86-64 may be CUDA builds of several gigabytes."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return next(pin for pin in pins if pin.startswith("torch=="))


def _declared(extras: Sequence[str]) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def _floor(requirement: Requirement) -> str:
    (floor,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return floor


def _marker(requirement: Requirement) -> str:
    return f"; {requirement.marker}" if requirement.marker else ""


def _wheel() -> Path:
    target = PLACE / "wheel" / _commit()
    if "dirty" in target.name:
        shutil.rmtree(target, ignore_errors=True)
    if found := list(target.glob("*.whl")):
        return found[0]
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = target.glob("*.whl")
    return wheel


def _make_artifacts() -> None:
    place = PLACE / "artifacts"
    place.mkdir(exist_ok=True)
    if not (checkpoint := place / "checkpoint").exists():
        subprocess.run([sys.executable, "-c", CHECKPOINT, checkpoint], check=True, cwd=ROOT)
    for name, arguments in {**SMALL, DEMO: ("onnx",)}.items():
        source = "demo" if name == DEMO else checkpoint
        if not (place / name).exists():
            command = [sys.executable, "-m", "lxmert_export.cli", *arguments, source, "-o", place / name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _interpreters(named: Sequence[str]) -> dict[str, str]:
    """Every Python from the lowest that pyproject.toml allows on, by its version: those named, else those on PATH and pyenv's."""
    lowest = int(PROJECT["requires-python"].removeprefix(">=3."))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = list(named) or [
        *(str(path) for path in sorted(pyenv.glob("3.*/bin/python"))),
        *(path for minor in range(lowest, 20) if (path := shutil.which(f"python3.{minor}"))),
    ]
    found = {OURS: sys.executable}
    for path in candidates:
        version = _version(path)
        if version and int(version.split(".")[1]) >= lowest:
            found.setdefault(version.rpartition(".")[0], path)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def _key() -> str:
    """Other declared versions make results stale; the page says of which commit each result is."""
    declared = [PROJECT["requires-python"], PROJECT["dependencies"], PROJECT["optional-dependencies"]]
    return hashlib.sha256(json.dumps(declared).encode()).hexdigest()[:16]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()


def _version(python: str) -> str:
    code = "import platform, venv; print(platform.python_version())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _summary(log: Path) -> str:
    found = re.findall(r"^\d+ (?:passed|failed).*? in [\d.]+s", log.read_text(encoding="utf-8", errors="replace"), re.M)
    return "; ".join(line.rpartition(" in ")[0] for line in found)


def _cpu_minutes() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) / 60


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", help="interpreters; default: every python3.N on PATH and pyenv's")
    parser.add_argument("--only", default="", help="run only the environments whose names match a regular expression")
    parser.add_argument("--pip-args", default="", help="options for pip, an index for example")
    return parser.parse_args()


if __name__ == "__main__":
    main()
