"""What pyproject.toml declares: everything that is imported, from a release that exists, and what `make floors` installs."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.floors import DEVICE, EVERYTHING, OURS, PROJECT, Environment, environments, requirements, torch_cap
from benchmarks.floors_page import page
from parity_tests.fixtures.command import ROOT
from parity_tests.project.test_imports import SOURCES

# Where a distribution's name is not its module's; and what comes with a library that needs it in every release.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "onnx_ir": "onnx-ir",
    "ai_edge_litert": "ai-edge-litert",
    "tensorrt_rtx": "tensorrt-rtx",
}
COME_WITH = {"google": "onnx", "keras": "tensorflow", "click": "typer", "flatbuffers": "ai-edge-litert"}
# Imported by type checkers alone; and a user's own library, compared with where it is installed.
NOT_NEEDED = frozenset(("typing_extensions", "transformers"))
DECLARED = {
    Requirement(line).name
    for lines in (
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][extra] for extra in (*EVERYTHING, "tensorrt")),
    )
    for line in lines
}


@pytest.mark.quick
def test_everything_that_is_imported_is_declared() -> None:
    imported: dict[str, Path] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0]: path for name in names}
    others = set(imported) - set(sys.stdlib_module_names) - {"lxmert_export", "converters"} - NOT_NEEDED
    missing = {
        name: imported[name] for name in others if COME_WITH.get(name, DISTRIBUTIONS.get(name, name)) not in DECLARED
    }
    assert not missing


@pytest.mark.quick
def test_what_is_pinned_is_not_below_its_floor() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    pins = {name.lower().replace("_", "-"): number for name, number in pins.items()}
    for extra in EVERYTHING:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            if (pinned := pins.get(requirement.name.lower().replace("_", "-"))) is not None:
                assert requirement.specifier.contains(Version(pinned).public), requirement


def test_the_lowest_environment_pins_every_declared_library(tmp_path: Path) -> None:
    lowest = requirements(Environment("x", "python", "lowest", EVERYTHING), tmp_path / "our.whl")
    pinned = {Requirement(line).name for line in lowest if "==" in line}
    assert {*pinned} == {*DECLARED, "pytest", "pytest-timeout"} - {"tensorrt"}
    newest = requirements(Environment("x", "python", "newest", EVERYTHING), tmp_path / "our.whl")
    assert [line for line in newest if "==" in line] == [torch_cap()]
    assert not any(
        "torch" in line for line in requirements(Environment("x", "python", "newest", DEVICE), Path("our.whl"))
    )


def test_a_failed_check_is_named_on_the_page() -> None:
    names = [one.name for one in environments({"3.10": "python3.10", OURS: sys.executable})]
    assert names == [
        "3.10-lowest",
        "3.10-newest",
        f"{OURS}-lowest",
        f"{OURS}-newest",
        "transformers-4",
        "onnxruntime-1.16",
    ]
    result = {
        "python": "3.10.1", "commit": "abc", "failed": ["verify onnx"], "summary": "", "installed": {"ml_dtypes": "0.5.1"},
        "outcomes": {"installs": True, "verify onnx": False}, "cpu_minutes": 1.0, "gigabytes": 2.0,
    }  # fmt: skip
    written = page({"3.10-lowest": result}, "a machine", "torch==2.13.0")
    assert "| 3.10-lowest | 3.10.1 | **failed: verify onnx** | 1.0 | 2.0 | abc |" in written
    assert "| ml-dtypes | 0.5.1 |" in written
