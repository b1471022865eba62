"""`make train-demo`: draws the scenes, trains, measures, and writes the built-in checkpoint again."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.training.data import look_at_scenes
from lxmert_export.training.record import record
from lxmert_export.training.train import Plan, train

# Seeds of scenes. No scene on which accuracy is measured is trained on.
HELD_OUT, VALIDATION, TRAINING = range(1000), range(1000, 2000), range(10_000, 40_000)
BASELINE = Plan(pretraining_steps=0, answering_steps=1500, steps_per_shape=1, blind=True)


def main() -> None:
    """Trains the checkpoint and its language-only baseline; continues where an earlier run stopped."""
    parser = argparse.ArgumentParser(prog="python -m lxmert_export.training", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/train-demo"), help="folder of scenes and unfinished runs"
    )
    parser.add_argument("--output", type=Path, default=DEMO_DIRECTORY, help="folder of the checkpoint")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    held_out, validation, training = (
        look_at_scenes(seeds, arguments.work) for seeds in (HELD_OUT, VALIDATION, TRAINING)
    )
    blind, baseline = train(BASELINE, training, validation, arguments.work / "language-only")
    model, trained = train(Plan(), training, validation, arguments.work / "demo")
    record(model, trained, blind, baseline, held_out, arguments.output)


if __name__ == "__main__":
    main()
