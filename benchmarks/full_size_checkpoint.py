"""Writes full-size checkpoints (9/5/5 layers, 768 wide) with lively random weights, in place of published ones.

Run: python -m benchmarks.full_size_checkpoint DIRECTORY [--task question-answering]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from lxmert_export.checkpoint.write import write_checkpoint
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING, Weight, weight_names

ANSWERS = {"question-answering": 3129, "pretraining": 9500}


def full_size_config(task: Task) -> LxmertConfig:
    """Returns a config of the published sizes; 3129 answers as in VQA, 9500 as in pre-training."""
    return LxmertConfig(num_qa_labels=ANSWERS.get(task, 9500))


def lively_weights(config: LxmertConfig, task: Task, seed: int) -> dict[str, torch.Tensor]:
    """Draws weights that show faults: kernels of std 1.2/√fan-in, LayerNorm gains 1 ± 0.2, biases of std 0.1."""
    generator = np.random.default_rng(seed)
    weights = {row.ours: _draw(row, generator) for row in weight_names(config, task)}
    if TIED_DECODER in weights:
        weights[TIED_DECODER] = weights[WORD_EMBEDDING]
    return weights


def _draw(row: Weight, generator: np.random.Generator) -> torch.Tensor:
    normal = torch.from_numpy(generator.standard_normal(row.shape, dtype=np.float32))
    if row.kind == "kernel":
        return normal.mul_(1.2 / row.shape[1] ** 0.5)
    if row.kind == "gain":
        return normal.mul_(0.2).add_(1.0)
    return normal.mul_(0.1 if row.kind in ("vector", "shift") else 0.5)


def write_full_size(directory: Path, task: Task, *, seed: int = 0) -> Path:
    """Writes a full-size checkpoint in Hugging Face's dialect; returns the directory."""
    config = full_size_config(task)
    write_checkpoint(lively_weights(config, task, seed), config, task, directory, dialect="hf", overwrite=True)
    return directory


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--task", choices=TASKS, default="question-answering")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"wrote {write_full_size(arguments.directory, arguments.task, seed=arguments.seed)}")


if __name__ == "__main__":
    main()
