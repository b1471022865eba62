"""An error names an option as its reader knows it: a keyword in Python, a flag on the command line."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

import lxmert_export as lx
from lxmert_export.api.engine import OnnxOptions
from lxmert_export.cli.main import app
from lxmert_export.engines.options import OPTIONS, BuildOptions
from lxmert_export.option_names import FLAGS, named_as_flags, option
from parity_tests.fixtures.command import ROOT, refused, run

pytestmark = pytest.mark.quick

FUNCTIONS = (
    lx.export,
    lx.build_engine,
    lx.check_parity,
    lx.judge_report,
    lx.verify,
    lx.locate,
    lx.bench,
    lx.predict,
    lx.evaluate,
)
# What is an argument on the command line, or what only Python has.
NO_FLAGS = {
    "artifact",
    "artifacts",
    "runners",
    "source",
    "path",
    "report",
    "signature",
    "config",
    "options",
    "onnx_options",
    "progress",
    "without_families",
}
KEYWORDS = sorted(
    {name for function in FUNCTIONS for name in inspect.signature(function).parameters}
    | {field.name for field in fields(BuildOptions)}
    | set(OnnxOptions.__annotations__)
    | {"boxes"}  # of ``open_features``, which stands behind several commands and no function of lx
)
GROUPED = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {**GROUPED, **{f"features {name}": one for name, one in GROUPED["features"].commands.items()}}
GIVEN = {flag for command in COMMANDS.values() for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_option_has_a_flag_that_some_command_takes(keyword: str) -> None:
    assert (keyword in FLAGS) is (keyword not in NO_FLAGS)
    with named_as_flags():
        named = option(keyword, "fp16" if keyword == "precision" else None)
    assert keyword in NO_FLAGS or set(named.split(", ")) <= GIVEN
    assert option(keyword) == keyword


def test_the_table_names_nothing_else() -> None:
    words_of_python_alone = {"cuda_graph"}  # of lx.load_artifact: no command takes it, and errors there say it in words
    assert set(FLAGS) == set(KEYWORDS) - NO_FLAGS | words_of_python_alone
    assert {name: row.flag for name, row in OPTIONS.items()} == {name: FLAGS[name] for name in OPTIONS}


def test_values_are_written_as_the_reader_writes_them() -> None:
    assert option("fp32_islands", "auto") == 'fp32_islands="auto"' and option("parity", False) == "parity=False"
    with named_as_flags():
        assert option("fp32_islands", "auto") == "--fp32-islands auto" and option("parity", False) == "--no-parity"
    assert option("parity") == "parity"


def raised_texts(file: Path) -> list[str]:
    raised = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise)]
    # The arguments of option() and of other calls by name are no text that a user reads.
    nested = {
        id(part) for node in raised for call in ast.walk(node) if _names_an_option(call) for part in ast.walk(call)
    }
    return [
        part.value
        for node in raised
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in nested
    ]  # fmt: skip


def _names_an_option(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option"


def test_no_error_writes_a_keyword_out() -> None:
    """Keywords that are no English words; ``num_attention_heads`` is a config's field, too."""
    written = re.compile(r"\b(" + "|".join(name for name in FLAGS if "_" in name) + r")\b")
    found = {
        (str(file.relative_to(ROOT)), match[0])
        for folder in ("lxmert_export", "converters")
        for file in (ROOT / folder).rglob("*.py")
        for text in raised_texts(file)
        if (match := written.search(text))
    }
    assert found == {("lxmert_export/spec/config.py", "num_attention_heads")}


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (
            "onnx --attention operator --opset 20",
            "--attention operator: needs opset 23 or later, not 20; leave --opset",
        ),
        ("onnx --attention operator --attentions", "leave --attentions out, or choose --attention decomposed"),
        (
            "tflite --int8 --full-integer --calibration gone.npz --text 99",
            "--text 99 is longer than the position table",
        ),
        (
            "onnx --num-attention-heads 5 --no-parity",
            "--num-attention-heads: 5 does not divide the hidden size 96",
        ),
        ("parity gone --provider X --locate", "gone"),
    ],
)
def test_the_command_line_names_flags(arguments: str, saying: str, tmp_path: Path) -> None:
    refused(run(*arguments.split(), cwd=tmp_path), saying)
    assert not any(tmp_path.iterdir())
