"""How errors name options: as keywords in Python, as flags on the command line. One table, from keyword to flag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# A flag that says the opposite of its keyword is listed as the command has it (``parity=False`` is ``--no-parity``); ``{}``
# stands for the value.
FLAGS: dict[str, str] = {
    # of lx.export
    "checkpoint": "--checkpoint",
    "directory": "--output",
    "precision": "--{}",
    "task": "--task",
    "fixed": "--batch, --text, --objects",
    "hidden_states": "--hidden-states",
    "attentions": "--attentions",
    "object_heads": "--object-heads",
    "io_dtype": "--io-dtype",
    "opset": "--opset",
    "fp32_islands": "--fp32-islands",
    "attention": "--attention",
    "optimize_for": "--optimize-for",
    "single_file": "--single-file",
    "split": "--split",
    "file_format": "--format",
    "full_integer": "--full-integer",
    "calibration": "--calibration",
    "int8_range": "--int8-range",
    "int8_keep": "--int8-keep",
    "revision": "--revision",
    "num_attention_heads": "--num-attention-heads",
    "ignore_other_parts": "--ignore-other-parts",
    "parity": "--no-parity",
    "keep_failed": "--keep-failed",
    "overwrite": "--overwrite",
    "providers": "--provider",
    "cuda_graph": "a CUDA graph",
    # of lx.build_engine and lx.BuildOptions
    "target": "--target",
    "compute_capability": "--compute-capability",
    "batch": "--batch",
    "text": "--text",
    "objects": "--objects",
    "bundle": "--bundle",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
    "strip": "--strip",
    "refit": "--refit",
    "weight_streaming": "--weight-streaming",
    "timing_cache": "--timing-cache",
    "builder_level": "--builder-level",
    "dla": "--dla",
    # of lx.check_parity, lx.judge_report and lx.verify
    "allow_other_checkpoint": "--allow-other-checkpoint",
    "inputs": "--inputs",
    "require_targets": "--require",
    "device_reports": "--device-report",
    "laws": "--no-laws",
    "find_divergence": "--locate",
    "time_limit": "--time-limit",
    "threshold": "--threshold",
    "pair_threshold": "--pair-threshold",
    "polygraphy": "--polygraphy",
    # of reading files of features
    "boxes": "--boxes",
    # of lx.bench
    "against": "--against",
    "workload": "--workload",
    "workload_batch": "--workload-batch",
    "passes": "--passes",
    "rounds": "--rounds",
    "warm_up": "--warm-up",
    "rest": "--rest",
    "threads": "--threads",
    # of lx.predict and lx.evaluate
    "features": "--features",
    "questions": "--questions",
    "output": "--output",
    "dataset": "--dataset",
    "top": "--top",
    "skip_missing": "--skip-missing",
    "engine": "--engine",
    "workers": "--workers",
    "annotations": "--annotations",
    "choices": "--choices",
    "max_drop": "--max-drop",
}
_as_flags = False


@contextmanager
def named_as_flags() -> Iterator[None]:
    """Inside the ``with`` block, ``option`` names flags: the command line is in use."""
    global _as_flags
    before, _as_flags = _as_flags, True
    try:
        yield
    finally:
        _as_flags = before


def option(keyword: str, value: str | bool | tuple[str, ...] | None = None) -> str:
    """Returns an option as the caller knows it, with a value if one is given.

    | ``option("fp32_islands", "auto")`` | ``option("parity", False)`` |                       |
    |------------------------------------|-----------------------------|-----------------------|
    | ``fp32_islands="auto"``            | ``parity=False``            | in Python             |
    | ``--fp32-islands auto``            | ``--no-parity``             | on the command line   |
    """
    if _as_flags:
        flag = FLAGS.get(keyword, keyword)  # what only Python has keeps its name: nobody can give it here
        if "{}" in flag:
            return flag.format(value)
        return f"{flag} {value}" if isinstance(value, str) else flag
    if value is None:
        return keyword
    return f'{keyword}="{value}"' if isinstance(value, str) else f"{keyword}={value}"
