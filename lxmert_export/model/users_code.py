"""Where and why the code of a user's own module failed, in words that say how to mend it."""

from __future__ import annotations

import os
import re
import sys
import traceback
from itertools import dropwhile
from pathlib import Path

from lxmert_export.errors import first_line

OTHER_DTYPE = re.compile(r"same dtype|expected scalar type|type .* should be the same|dtypes? .* do(es)? not match")
OTHER_DEVICE = re.compile(r"on the expected device meta|two different devices")


def why_it_failed(error: BaseException) -> str:
    """What went wrong, the line of the user's code, and how to mend it where that is known; one line."""
    place, message = place_of(error), first_line(error)
    if OTHER_DTYPE.search(message):
        return (
            f"it computes with two dtypes{place}: {message}; cast to the dtype of the weights, as in "
            "x.to(self.head.weight.dtype), not with .float() or .half()"
        )
    if OTHER_DEVICE.search(message):
        return (
            f"it makes or holds a tensor of its own on the CPU{place}: make it with device=x.device, or keep it with "
            "register_buffer"
        )
    return f"{message}{place}"


def place_of(error: BaseException) -> str:
    """The line of the user's own code that raised an error, in brackets; empty if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    within = dropwhile(lambda frame: frame.name != "forward", frames)
    places = [f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in within]
    return places[-1] if places else ""


def is_users(file: str) -> bool:
    """Whether a file of Python code belongs neither to PyTorch nor to this package."""
    packages = [sys.modules[name] for name in ("torch", "lxmert_export", "converters") if name in sys.modules]
    return not file.startswith(tuple(f"{Path(package.__file__ or '').parent}{os.sep}" for package in packages))
