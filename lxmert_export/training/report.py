"""How the built-in checkpoint was trained and how good it is, as the page that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def training_report(facts: Mapping[str, Any]) -> str:
    """Markdown: what the checkpoint is, its accuracy by question family, and its training curve."""
    accuracy, baseline = facts["accuracy"], facts["language_only"]
    families = [f"| {name} | {share:.1%} | {baseline[name]:.1%} |" for name, share in accuracy.items()]
    names = list(accuracy)
    curve = []
    for point in facts["curve"]:
        shares = " | ".join(f"{point['accuracy'][name]:.0%}" for name in names)
        curve.append(f"| {point['step']:,} | {point['loss']:.2f} | {shares} |")
    return "\n".join(
        [
            "# The built-in checkpoint",
            "",
            "What `lxmert-export` converts when it is given no checkpoint, or the name `demo`: a small LXMERT "
            f"({facts['parameters']:,} parameters, stored in float16),",
            "pre-trained with all five objectives on scenes of 3 to 10 coloured shapes, then on answering questions about them. "
            "It looks at pictures:",
            "a box is a connected component, its feature the resized crop. `make train-demo` wrote every file here that is no "
            "Python.",
            "",
            "## Accuracy",
            "",
            f"On {facts['questions']:,} questions about 1,000 held-out scenes, in float64 over the stored weights; beside it a "
            "model of the same size that",
            "was trained on the questions without the pictures.",
            "",
            "| family | accuracy | language only |",
            "|---|---|---|",
            *families,
            "",
            f"## Training: {facts['minutes']:.0f} minutes of steps on 2 cores, and {facts['language_only_minutes']:.0f} for the "
            "baseline",
            "",
            "Drawing the scenes, evaluating and recording come on top.",
            "",
            "The loss is the mean since the line before, of all five objectives; the accuracies are on other held-out scenes.",
            "",
            f"| step | loss | {' | '.join(names)} |",
            f"|---|---|{'---|' * len(names)}",
            *curve,
            "",
        ]
    )
