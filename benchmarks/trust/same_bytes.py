"""The same checkpoint gives the same bytes, whatever the environment: every target, a bundle, the wheel and the sdist.

Two processes write everything; they differ in whatever ENVIRONMENTS lists. Run alone: python -m benchmarks.trust.same_bytes
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxmert_export.api.checkpoint import convert_checkpoint
from lxmert_export.api.engine import build_engine
from lxmert_export.api.export import export
from lxmert_export.checkpoint.dialects import Dialect

ROOT = Path(__file__).parent.parent.parent
Outcome = dict[str, Any]
# The name of an output, its target, and the options that differ from the defaults.
EXPORTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "onnx": ("onnx", {}),
    "onnx-fp16": ("onnx", {"precision": "fp16"}),
    "onnx-single-file": ("onnx", {"single_file": True}),
    "saved-model": ("tensorflow", {}),
    "keras": ("tensorflow", {"file_format": "keras"}),
    "tflite": ("tflite", {}),
    "tflite-int8": ("tflite", {"precision": "int8"}),
}
DIALECTS: tuple[Dialect, ...] = ("hf", "original", "tf")
OTHER_USER = 65534  # nobody


@dataclass(frozen=True)
class Environment:
    """What differs between the two processes, beside their directories; ``user``: only root can become another."""

    variables: Mapping[str, str]
    umask: int
    user: int | None = None


ENVIRONMENTS = {
    "one": Environment({"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC", "OMP_NUM_THREADS": "1"}, 0o022),
    "another": Environment(
        {
            "PYTHONHASHSEED": "4711",
            "LC_ALL": "C.UTF-8",
            "LANG": "de_DE.UTF-8",
            "TZ": "Asia/Kathmandu",
            "OMP_NUM_THREADS": "2",
        },
        0o077,
        OTHER_USER,
    ),
}


def compare(checkpoint: Path, names: tuple[str, ...] = ()) -> Outcome:
    """Returns how many files were written, and those that differ; ``names``: these outputs alone."""
    with tempfile.TemporaryDirectory(prefix="lxmert-export-same-bytes-") as place:
        os.chmod(place, 0o755)  # noqa: PTH101  (another user reads it)
        source = Path(shutil.copytree(checkpoint, Path(place) / "checkpoint"))
        written = {
            name: _written(environment, source, Path(place) / f"{name} directory" / name, names)
            for name, environment in ENVIRONMENTS.items()
        }
    one, another = written.values()
    different = sorted(name for name in one.keys() | another.keys() if one.get(name) != another.get(name))
    return {"files": len(one), "environments": _described(), "different": different}


def _written(environment: Environment, checkpoint: Path, place: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Runs the writer in an environment; returns the SHA-256 of each file, by its path."""
    place.mkdir(parents=True)
    user = environment.user if _can_become(environment.user) else None
    if user is not None:
        for directory in (place.parent, place):
            os.chown(directory, user, user)
    command = [
        sys.executable,
        "-m",
        "benchmarks.trust.same_bytes",
        "--checkpoint",
        str(checkpoint),
        "--write",
        str(place),
    ]
    variables = {**os.environ, **environment.variables, "HOME": str(place.parent), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *(("--only", *names) if names else ())], cwd=place.parent, env=variables, umask=environment.umask,
        user=user, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the writer failed: {done.stderr[-2000:]}")
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _can_become(user: int | None) -> bool:
    """Whether this Python runs as another user, who may not be allowed to read it."""
    try:
        return user is not None and subprocess.run([sys.executable, "-c", ""], user=user, check=False).returncode == 0
    except PermissionError:
        return False


def _described() -> dict[str, str]:
    return {
        name: " ".join(f"{key}={value}" for key, value in environment.variables.items())
        + f", umask {environment.umask:03o}"
        + (", another user" if _can_become(environment.user) else "")
        for name, environment in ENVIRONMENTS.items()
    }


def write_all(checkpoint: Path, place: Path, names: tuple[str, ...] = ()) -> None:
    """Writes every output into a directory."""
    for name, (target, options) in EXPORTS.items():
        if not names or name in names:
            export(target, checkpoint, place / name, **options)
    for dialect in DIALECTS:
        if not names or dialect in names:
            convert_checkpoint(checkpoint, place / dialect, dialect=dialect)
    if not names or "bundle" in names:
        build_engine(checkpoint, place / "bundle", compute_capability="8.9", bundle=True)
    if not names or "package" in names:
        _build_package(place)


def _build_package(place: Path) -> None:
    """Builds wheel and sdist from a copy of the tracked files, so that builds leave nothing in the checkout."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    source = place.parent / "source"
    for name in listed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "package"), str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Compares two environments, or writes in one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    chosen = parser.parse_args()
    if chosen.write is not None:
        write_all(chosen.checkpoint, chosen.write, tuple(chosen.only))
        return
    print(json.dumps(compare(chosen.checkpoint, tuple(chosen.only)), indent=1))


if __name__ == "__main__":
    main()
