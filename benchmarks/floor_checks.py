"""What an environment of `make floors` must do: the tests where PyTorch is, and elsewhere what a device does."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "parity_tests"
QUICK = "quick and not oracle and not browser"
# Libraries of the extra ``dev``, which users do not install: tests that import them are left out by name.
DEV_ONLY = frozenset(("build", "grimp", "jsonschema", "playwright", "transformers", "yaml"))
HUB_TESTS = ("parity_tests/checkpoint/test_hub.py",)
TOKENIZER_HUB_TESTS = "parity_tests/tokenizer/test_hub.py"  # saves tokenizers with transformers' own class
# What every Python must open, by name: conversions of a small random checkpoint, and of the demo, which can be asked.
SMALL = {"onnx": ("onnx",), "onnx-fp16": ("onnx", "--fp16"), "tflite": ("tflite",)}
DEMO = "demo"
# Writes the small checkpoint.
CHECKPOINT = """
import sys
from lxmert_export.api.checkpoint import save_checkpoint
from parity_tests.fixtures.random_models import lively_model
save_checkpoint(lively_model("question-answering"), sys.argv[1])
"""
# In an environment with transformers 4, whose huggingface_hub has another HTTP library.
BESIDE = """
import huggingface_hub, transformers
import lxmert_export as lx
from transformers import LxmertForQuestionAnswering
assert transformers.__version__.startswith("4.") and huggingface_hub.__version__.startswith("0.")
lx.load_checkpoint("demo")
"""
# A user's program: no command line, and no PyTorch in the process.
PROGRAM = """
import sys
import numpy as np
import lxmert_export as lx
with lx.load_artifact(sys.argv[1]) as runner:
    spec = lx.open_artifact(sys.argv[1]).manifest.signature
    sizes = {"batch": 2, "text": 5, "objects": 3}
    shapes = {one.name: [axis if isinstance(axis, int) else sizes[axis] for axis in one.axes] for one in spec.inputs}
    zeros = {one.name: np.zeros(shapes[one.name], one.dtype) for one in spec.inputs}
    outputs = runner.run(zeros | {"attention_mask": np.ones((2, 5), np.int64)})
assert all(np.isfinite(array).all() for array in outputs.values()) and "torch" not in sys.modules
"""

Runs = Callable[..., bool]
Check = Callable[[Path, Runs], bool]


def checks_of(converts: bool, wheel: bool, beside: Iterable[str], artifacts: Path) -> Iterator[tuple[str, Check]]:
    """Returns what is run in an environment, by name; a check gets the interpreter and runs commands."""
    if not wheel:
        script = Path(__file__).with_name("plain_onnxruntime.py")
        for name in ("onnx", "onnx-fp16", DEMO):
            yield f"runs {name}", _python("-I", script, artifacts / name)
        return
    yield "pip check", _python("-m", "pip", "check")
    if beside:
        yield "imports beside it", _python("-c", BESIDE)
        yield "hub tests", _pytest(*HUB_TESTS, TOKENIZER_HUB_TESTS)
    elif converts:
        yield "quick suite", _pytest("-m", QUICK, *(f"--ignore={file}" for file in left_out(TESTS.rglob("test_*.py"))))
        yield "hub tests", _pytest(*HUB_TESTS)
    else:
        yield from _device_checks(artifacts)


def _device_checks(artifacts: Path) -> Iterator[tuple[str, Check]]:
    command = partial(_python, "-m", "lxmert_export.cli")
    yield "doctor", command("doctor")
    for name in SMALL:
        place = artifacts / name
        yield f"verify {name}", command("verify", place)
        yield f"run {name}", _python("-c", PROGRAM, place)
    yield "inspect", command("inspect", artifacts / DEMO)
    yield (
        "ask",
        command("ask", artifacts / DEMO, "--draw-scene", "7", "--image", "scene.png", "how many circles are there?"),
    )


def _python(*arguments: str | Path) -> Check:
    return lambda python, runs: runs(python, *arguments)


def _pytest(*arguments: str) -> Check:
    # The lowest typer warns of what click, in its newest version, will drop one day.
    options = ("-q", "-p", "no:cacheprovider", "-W", "ignore:'click:DeprecationWarning")
    return lambda python, runs: runs(
        python, "-m", "pytest", *options, *arguments, cwd=ROOT, PYTHONDONTWRITEBYTECODE="1"
    )


def quick_files() -> list[Path]:
    """The files that hold quick tests."""
    return [file for file in TESTS.rglob("test_*.py") if re.search(r"mark\.quick", file.read_text(encoding="utf-8"))]


def left_out(files: Iterable[Path]) -> list[str]:
    """Those of the files that need a library of the extra ``dev``, directly or through what they import."""
    return sorted(str(file.relative_to(ROOT)) for file in files if _imports(file) & DEV_ONLY)


@cache
def _imports(file: Path) -> frozenset[str]:
    """The packages that a file imports, directly or through files of the tests, of the benchmarks and of docs."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            beside = ROOT / f"{name.replace('.', '/')}.py"
            within = name.startswith(("parity_tests.", "benchmarks.", "docs.")) and beside.is_file()
            found |= _imports(beside) if within else {name.partition(".")[0]}
    return frozenset(found)
