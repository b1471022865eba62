"""The public names are all there, importing them loads no framework, and nothing imports from the package root."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import lxmert_export
from parity_tests.fixtures.missing_modules import run_without

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(path for package in ("lxmert_export", "converters") for path in (ROOT / package).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# The list that the linter keeps out of module level.
FRAMEWORKS = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]


def python(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.parametrize("module", ["lxmert_export", "lxmert_export.api.export", "lxmert_export.cli.main"])
def test_no_framework_is_loaded(module: str) -> None:
    assert {"torch", "onnx", "onnxruntime", "h5py", "tensorflow"} <= set(FRAMEWORKS)
    done = python("import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)", module)
    assert done.returncode == 0, done.stderr
    assert module in done.stdout.split()
    assert set(done.stdout.split()).isdisjoint(FRAMEWORKS)


def test_help_loads_no_framework() -> None:
    code = "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); " \
           "sys.argv = ['lxmert-export', '--help']; from lxmert_export.cli.main import main; main()"  # fmt: skip
    done = python(code)
    text, _, loaded = done.stdout.partition("LOADED")
    assert "Usage: lxmert-export" in text and "lxmert_export.cli.main" in loaded.split()
    assert set(loaded.split()).isdisjoint(FRAMEWORKS)


@pytest.mark.parametrize("name", lxmert_export.__all__)
def test_every_public_name_is_importable(name: str) -> None:
    thing = getattr(lxmert_export, name)
    assert thing.__doc__ or not (inspect.isclass(thing) or inspect.isfunction(thing))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(lxmert_export.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(seen) == sorted(set(lxmert_export.__all__) - {"__version__"}) == sorted(set(seen))
    assert dir(lxmert_export) == sorted(lxmert_export.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'LxmertForEverything'"):
        _ = lxmert_export.LxmertForEverything


def test_the_version_is_written_once_and_again() -> None:
    assert PROJECT["project"]["version"] == lxmert_export.__version__


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_from_the_package_root(path: Path) -> None:
    """`from lxmert_export import hub` is a module; `from lxmert_export import LxmertConfig` would load by a detour."""
    names = list(names_from_root(ast.parse(path.read_text(encoding="utf-8"))))
    assert [name for name in names if find_spec(f"lxmert_export.{name}") is None] == []


def test_the_check_above_sees_a_name_of_the_root() -> None:
    code = "import lxmert_export\nfrom lxmert_export import hub, LxmertConfig\nimport lxmert_export.api.export"
    assert list(names_from_root(ast.parse(code))) == ["<the root itself>", "hub", "LxmertConfig"]


def names_from_root(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "lxmert_export":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import) and any(alias.name == "lxmert_export" for alias in node.names):
            yield "<the root itself>"


FEATURES = ROOT / "parity_tests" / "fixtures" / "features"
# What each module is needed for, and the extra that brings it.
NEEDS = [
    (("onnx", "demo", "-o", "out"), "torch", "torch"),
    (("onnx", "demo", "-o", "out"), "onnx", "onnx"),
    (("onnx", "demo", "-o", "out"), "onnxscript", "onnx"),
    (("onnx", "demo", "-o", "out"), "onnxruntime", "onnx"),
    (("tensorflow", "demo", "-o", "out"), "torch", "torch"),
    (("tensorflow", "demo", "-o", "out"), "tensorflow", "tensorflow"),
    (("tflite", "demo", "-o", "out"), "tensorflow", "tensorflow"),
    (("tflite", "demo", "-o", "out"), "ai_edge_litert", "tflite"),
    (("tensorrt", "demo", "-o", "out"), "onnx", "onnx"),
    (("tensorrt", "demo", "-o", "out", "--bundle"), "onnxscript", "onnx"),
    (("convert", "demo", "--to", "hf", "-o", "out"), "torch", "torch"),
    (("convert", "demo", "--to", "tf", "-o", "out"), "h5py", "h5"),
    (("inspect", "demo"), "torch", "torch"),
    (("verify", "gone", "--polygraphy", "out"), "polygraphy", "polygraphy"),
    (("bench", "gone", "--against", "openvino"), "openvino", "openvino"),
    (("bench", "gone", "--against", "nncf"), "nncf", "nncf"),
    (("predict", "gone", "--features", "f", "--questions", "q", "-o", "a.json", "--engine", "ray"), "ray", "ray"),
    (("ask", "gone", "how many?", "--image", "gone.png"), "PIL", "demo"),
    (("ask", "gone", "how many?", "--image", "gone.png"), "scipy", "demo"),
    (("features", "inspect", str(FEATURES / "hf-arrow")), "pyarrow", "data"),
    (("features", "inspect", str(FEATURES / "gqa-hdf5")), "h5py", "data"),
]


@pytest.mark.parametrize(("arguments", "missing", "extra"), NEEDS, ids=lambda value: str(value).replace(" ", ""))
def test_a_missing_module_names_its_pip_line(
    arguments: tuple[str, ...], missing: str, extra: str, tmp_path: Path
) -> None:
    done = run_without((missing,), *arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"pip install 'lxmert-export[{extra}]'" in done.stderr
    assert not any(tmp_path.iterdir())


def test_every_extra_that_is_named_exists() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert {extra for _, _, extra in NEEDS} == set(extras) - {
        "dev",
        "cuda",  # asked for on a machine with a GPU alone: parity_tests/cuda/test_bad_input.py
        "tensorrt",
        "tensorrt-rtx",
    }  # engines have lines of their own
