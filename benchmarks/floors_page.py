"""The page of `make floors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.floor_checks import QUICK, left_out, quick_files

SHOWN = (
    "numpy", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "ml-dtypes", "tensorflow", "ai-edge-litert", "h5py",
    "safetensors", "tokenizers", "huggingface-hub", "transformers", "typer", "rich", "pillow", "scipy", "polygraphy",
    "tensorrt-rtx", "pytest",
)  # fmt: skip


def page(results: Mapping[str, Mapping[str, Any]], where: str, torch_cap: str) -> str:
    """Returns the page: what passed, how large and how long, and the versions that were installed."""
    minutes = sum(result["cpu_minutes"] for result in results.values())
    return f"""# Which versions were tested

Written by `make floors` on {where}: {minutes:.0f} CPU minutes in all. Each environment holds the wheel, its extras and
pytest, and is removed afterwards. *lowest* has the lowest version of every dependency that pyproject.toml declares,
*newest* the newest that pip finds. PyTorch is {torch_cap} in both, the lowest that is declared and the one that is
pinned: its newer wheels for Linux on x86-64 are CUDA builds of gigabytes. Other Pythons than the checkout's get
neither PyTorch, for the same reason, nor TensorFlow: there the wheel opens, verifies, inspects, asks and runs what the
checkout's Python made. The extra `tensorrt` is not tested: JetPack and CUDA machines bring it. `onnxruntime-1.16` runs
a model.onnx without our wheel, beside numpy 1. Environments that are not in the table were not run.

| environment | Python | result | CPU minutes | GB | commit |
|---|---|---|---|---|---|
{_lines(_outcome(name, result) for name, result in results.items())}

The quick suite runs as `{QUICK}`, without these files, which need test tools that only the extra `dev` brings:
{", ".join(f"`{file}`" for file in left_out(quick_files()))}.

| package | {" | ".join(results)} |
|---|{"---|" * len(results)}
{_lines(_versions(package, results) for package in SHOWN)}
"""


def _outcome(name: str, result: Mapping[str, Any]) -> str:
    passed = [check for check, well in result["outcomes"].items() if well]
    text = f"passed: {_short(passed)}" if not result["failed"] else f"**failed: {', '.join(result['failed'])}**"
    tests = f" ({result['summary']})" if result["summary"] else ""
    cells = (
        name,
        result["python"],
        text + tests,
        f"{result['cpu_minutes']:.1f}",
        f"{result['gigabytes']:.1f}",
        result["commit"],
    )
    return f"| {' | '.join(cells)} |"


def _short(checks: list[str]) -> str:
    """The checks by their first word where they go through all artifacts: verify of 4."""
    words: dict[str, list[str]] = {}
    for check in checks:
        word, _, rest = check.partition(" ")
        words.setdefault(word, []).append(rest)
    named = (
        f"{word} {rests[0]}".strip() if len(rests) == 1 else f"{word} ({len(rests)})" for word, rests in words.items()
    )
    return ", ".join(named)


def _versions(package: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    canonical = {name: {key.lower().replace("_", "-"): value for key, value in result["installed"].items()}
                 for name, result in results.items()}  # fmt: skip
    found = (canonical[name].get(package, "") for name in results)
    return f"| {package} | {' | '.join(found)} |"


def _lines(rows: Any) -> str:
    return "\n".join(rows)
