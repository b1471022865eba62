"""Asking an artifact about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.extras import PICTURES, require
from lxmert_export.runners.onnx.providers import CPU

if TYPE_CHECKING:
    from lxmert_export.predicting.pictures import Answered


def ask(artifact: str | Path, question: str, picture: str | Path, *, providers: Sequence[str] = (CPU,)) -> Answered:
    """Asks an artifact of the built-in checkpoint about a picture file. Returns every answer with its probability.

    Errors: ``ArtifactError``: the artifact takes no pictures or gives no answers. ``InputError``: the picture or the question
    does not fit the artifact. ``MissingExtra``: Pillow or scipy is not installed.
    """
    require_pictures()
    from lxmert_export.predicting.pictures import ask_about_picture

    return ask_about_picture(artifact, question, picture, providers=providers)


def require_pictures() -> None:
    """``MissingExtra``: Pillow or scipy, which read and draw pictures, is not installed."""
    require("reading and drawing pictures", *PICTURES)
