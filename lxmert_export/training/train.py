"""Trains the built-in checkpoint: all five objectives first, then answering. Resumable; a new run repeats it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lxmert_export.demo.features import FEATURE_WIDTH, PIXEL_SCALE
from lxmert_export.demo.words import ANSWERS, COLORS, SHAPES, VOCABULARY
from lxmert_export.model.lxmert import LxmertForPreTraining
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.training.data import Scenes, draw_questions, sources_hash, training_batch
from lxmert_export.training.evaluate import accuracy_by_family, answer_scores, scores_of

CONFIG = LxmertConfig(
    vocab_size=len(VOCABULARY), hidden_size=96, num_attention_heads=6, intermediate_size=384,
    max_position_embeddings=32, l_layers=2, r_layers=1, x_layers=3, num_qa_labels=len(ANSWERS),
    num_object_labels=len(SHAPES), num_attr_labels=len(COLORS), visual_feat_dim=FEATURE_WIDTH,
    # No dropout: every batch is new, so no example is seen often enough to be memorised.
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    # Upstream's 6.67 compensates for masking only 15 % of the objects; here all objects have labels.
    visual_loss_normalizer=1.0,
    initializer_range=0.1,  # 1 / √hidden_size; upstream's 0.02 is for 768
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long a model is trained, and on which shares of captions and masked questions."""

    pretraining_steps: int = 3250
    answering_steps: int = 2500
    # Scenes begin with one shape and gain one after every so many steps, because words are learnt from simple pictures.
    # Trials with full scenes alone were no better than guessing after 750 steps, and were stopped there.
    steps_per_shape: int = 300
    batch: int = 128
    # Muon's rate is for the matrices inside the layers: in short trials it was clearly better than AdamW alone. AdamW's
    # rate is for all other parameters.
    matrix_learning_rate: float = 2e-3
    learning_rate: float = 1e-3
    warm_up: int = 300
    decay_steps: int = 8000  # the step at which the slow decay of pre-training would reach zero
    captions: tuple[float, float] = (0.3, 0.08)  # in pre-training; in answering, to keep the other heads trained
    masked_questions: tuple[float, float] = (0.1, 0.02)
    evaluate_every: int = 250
    blind: bool = False
    seed: int = 0

    @property
    def steps(self) -> int:
        """The number of all steps."""
        return self.pretraining_steps + self.answering_steps


@dataclass
class Progressed:
    """The state of a run: steps done, seconds spent on them, and its curve of loss and accuracy."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


def train(plan: Plan, scenes: Scenes, validation: Scenes, directory: Path) -> tuple[LxmertForPreTraining, Progressed]:
    """Trains a model, or continues an earlier run of the same plan whose state is in ``directory``."""
    torch.manual_seed(plan.seed)
    model = LxmertForPreTraining(CONFIG).train()
    _centre_inputs(model, scenes)
    optimizers = _optimizers(plan, model)
    progressed = _resume(plan, directory, model, optimizers)
    rows, questions = draw_questions(validation, each=150, seed=1)
    losses: list[float] = []
    with _bar(plan, progressed.step) as advance:
        while progressed.step < plan.steps:
            started = time.perf_counter()
            losses.append(_step(plan, progressed.step, model, optimizers, scenes))
            progressed.step += 1
            progressed.seconds += time.perf_counter() - started
            if progressed.step % plan.evaluate_every == 0 or progressed.step == plan.steps:
                model.eval()
                scores = answer_scores(scores_of(model, blind=plan.blind), validation, rows, questions)
                model.train()
                accuracy = accuracy_by_family(scores, questions)
                progressed.curve.append(
                    {"step": progressed.step, "loss": sum(losses) / len(losses), "accuracy": accuracy}
                )
                losses.clear()
                _save(plan, directory, model, optimizers, progressed)
                advance(progressed)
            else:
                advance(None)
    return model.eval(), progressed


def _centre_inputs(model: LxmertForPreTraining, scenes: Scenes) -> None:
    """Sets initial weights so that the first LayerNorm sees the differences between objects.

    Crops are mostly white, and the corners of a box are close together. Without this, most of a vector would be what
    all objects have in common.
    """
    layer = model.lxmert.visual_embeddings
    crops = scenes.pixels[scenes.shapes >= 0].astype(np.float32) / PIXEL_SCALE
    half = CONFIG.hidden_size // 2
    with torch.no_grad():
        layer.features.weight.normal_(std=0.2)
        layer.features.bias.copy_(-layer.features.weight @ torch.from_numpy(crops.mean(axis=0)))
        # Weights of the middle (x, y), which is around 1/2, and of the extent (width, height), which is around 1/8.
        middle, extent = torch.randn(half, 2), torch.randn(half, 2)
        layer.boxes.weight.copy_(torch.cat([torch.cat([middle, middle], 1) / 2, torch.cat([-extent, extent], 1) * 3]))
        layer.boxes.bias.copy_(-torch.cat([middle.sum(1) / 2, extent.sum(1) * 3 / 8]))


def _optimizers(plan: Plan, model: LxmertForPreTraining) -> tuple[torch.optim.Optimizer, ...]:
    matrices = {name: p for name, p in model.named_parameters() if "_layers." in name and p.dim() == 2}
    others = [p for name, p in model.named_parameters() if name not in matrices]
    return (
        torch.optim.Muon(
            list(matrices.values()), lr=plan.matrix_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    )


def _step(
    plan: Plan,
    step: int,
    model: LxmertForPreTraining,
    optimizers: tuple[torch.optim.Optimizer, ...],
    scenes: Scenes,
) -> float:
    answering = step >= plan.pretraining_steps
    for optimizer, rate in zip(optimizers, (plan.matrix_learning_rate, plan.learning_rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * _schedule(plan, step)
    batch = training_batch(
        scenes,
        plan.batch,
        Random(f"{plan.seed} {step}"),
        most_shapes=1 + step // plan.steps_per_shape,
        captions=plan.captions[answering],
        masked_questions=plan.masked_questions[answering],
        blind=plan.blind,
    )
    # Sequences this short are faster without the fused kernel.
    with sdpa_kernel(SDPBackend.MATH):
        loss = model(**batch).loss
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def _schedule(plan: Plan, step: int) -> float:
    """Returns the factor of the learning rates: warm-up, slow decay in pre-training, then fast decay to a hundredth."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    slow = (plan.decay_steps - min(step, plan.pretraining_steps)) / (plan.decay_steps - plan.warm_up)
    if step < plan.pretraining_steps:
        return slow
    return max(0.01, slow * (plan.steps - step) / plan.answering_steps)


def _resume(
    plan: Plan, directory: Path, model: LxmertForPreTraining, optimizers: tuple[torch.optim.Optimizer, ...]
) -> Progressed:
    file = directory / "state.pt"
    if not file.is_file():
        return Progressed()
    state = torch.load(file, weights_only=True)
    if state["plan"] != _identity(plan):
        return Progressed()  # the state of another plan or of other code
    model.load_state_dict(state["model"])
    model.tie_weights()
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return Progressed(**state["progressed"])


def _identity(plan: Plan) -> dict[str, Any]:
    """Returns what must be equal for a run to continue an earlier one."""
    return {**json.loads(json.dumps(asdict(plan))), "sources": sources_hash()}


def _save(
    plan: Plan,
    directory: Path,
    model: LxmertForPreTraining,
    optimizers: tuple[torch.optim.Optimizer, ...],
    progressed: Progressed,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "state.part"
    torch.save(
        {
            "plan": _identity(plan), "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers], "progressed": asdict(progressed),
        },
        partial,
    )  # fmt: skip
    partial.rename(directory / "state.pt")


@contextmanager
def _bar(plan: Plan, done: int) -> Iterator[Callable[[Progressed | None], None]]:
    """Shows a bar on a terminal, and prints a line at each evaluation everywhere."""
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        if done:
            console.print(f"continuing after step {done} of {plan.steps}; remove its folder to start again")
        task = bars.add_task("training", total=plan.steps, completed=done)

        def advance(progressed: Progressed | None) -> None:
            bars.advance(task)
            if progressed is not None:
                last = progressed.curve[-1]
                accuracies = " ".join(f"{family} {share:.1%}" for family, share in last["accuracy"].items())
                console.print(
                    f"step {last['step']} of {plan.steps}, {progressed.seconds / 60:.1f} min, "
                    f"loss {last['loss']:.3f}: {accuracies}",
                    highlight=False, soft_wrap=True,
                )  # fmt: skip

        yield advance
