"""A question about a picture, in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.extras import PICTURES, require
from lxmert_export.runners.onnx.providers import CPU

if TYPE_CHECKING:
    from lxmert_export.predicting.pictures import Answered


def ask(artifact: str | Path, question: str, picture: str | Path, *, providers: Sequence[str] = (CPU,)) -> Answered:
    """Asks an artifact of the built-in checkpoint about a picture file; its answers with probabilities, the likeliest first.

    ``ArtifactError``: an artifact that takes no pictures or gives no answers. ``InputError``: a picture or a question that it
    cannot take. ``MissingExtra``: Pillow or scipy is not installed.
    """
    require_pictures()
    from lxmert_export.predicting.pictures import ask_about_picture

    return ask_about_picture(artifact, question, picture, providers=providers)


def require_pictures() -> None:
    """``MissingExtra`` unless pictures can be read and drawn."""
    require("reading and drawing pictures", *PICTURES)
