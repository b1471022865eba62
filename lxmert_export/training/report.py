"""The page beside the built-in checkpoint: how it was trained, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def training_report(facts: Mapping[str, Any]) -> str:
    """Returns Markdown: what the checkpoint is, its accuracy by question family, and its training curve."""
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
            "`lxmert-export` converts this checkpoint if you give no checkpoint, or the name `demo`. It is a small",
            f"LXMERT ({facts['parameters']:,} parameters, stored in float16). It was pre-trained with all five objectives on",
            "scenes of 3 to 10 coloured shapes, then trained to answer questions about them. The model looks at pictures:",
            "each connected shape gets a box, and the feature of the box is its resized crop. `make train-demo` wrote",
            "every file here except the Python files.",
            "",
            "## Accuracy",
            "",
            f"The accuracies are on {facts['questions']:,} questions about 1,000 held-out scenes, in float64 over the",
            'stored weights. "Language only" is a model of the same size that was trained on the questions without the',
            "pictures.",
            "",
            "| family | accuracy | language only |",
            "|---|---|---|",
            *families,
            "",
            "## Training",
            "",
            f"The steps took {facts['minutes']:.0f} minutes on 2 cores, and {facts['language_only_minutes']:.0f} minutes for "
            "the language-only model.",
            "Drawing the scenes, evaluating and recording took more time.",
            "",
            "The loss covers all five objectives. It is the mean over the steps since the row before. The accuracies are",
            "on other held-out scenes.",
            "",
            f"| step | loss | {' | '.join(names)} |",
            f"|---|---|{'---|' * len(names)}",
            *curve,
            "",
        ]
    )
