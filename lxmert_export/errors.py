"""Everything that can go wrong, as one tree; the command line catches its root and nothing else.

    LxmertExportError
    ├── CheckpointError    a checkpoint that cannot be read, or whose tensors do not fit
    ├── ConfigError        a configuration field of the wrong type or range
    ├── ArtifactError      an artifact directory that cannot be written, read or trusted
    │   ├── BuiltNotRun    an engine, where there is no GPU to run it
    │   └── RuntimeFailed  a runtime that crashed, or was stopped by the time limit
    ├── InputError         arrays that a model or a runner cannot take
    ├── MissingExtra       a framework that is not installed, with the pip line that installs it
    ├── ConversionError    a model that a target cannot express
    └── ParityError        two runners that do not compute the same function

Each message says what is wrong, where, and how to mend it, in one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

PACKAGE = "lxmert-export"


class LxmertExportError(Exception):
    """The root of every error that a user can act on."""


class CheckpointError(LxmertExportError):
    """A checkpoint cannot be read, or its tensors do not fit the model."""


class ConfigError(LxmertExportError):
    """A configuration field has the wrong type or range, or contradicts another."""


class ArtifactError(LxmertExportError):
    """An artifact directory cannot be written, read or trusted."""


class BuiltNotRun(ArtifactError):
    """An engine cannot be run here: there is no GPU, or it holds no weights. It is neither sound nor faulty."""


class RuntimeFailed(ArtifactError):
    """An artifact's runtime crashed, or ran longer than the time limit: a FAIL of what was to be computed."""


class InputError(LxmertExportError):
    """Arrays that a model or a runner cannot take."""


class MissingExtra(LxmertExportError):
    """A framework is not installed; the message holds the line that installs it: pip's, unless ``install`` is another."""

    def __init__(self, what: str, extra: str, *, install: str | None = None) -> None:
        line = install or f"pip install '{PACKAGE}[{extra}]'"
        super().__init__(f"{what} needs the extra '{extra}': {line}")
        self.what, self.extra, self.install = what, extra, install

    def __reduce__(self) -> tuple[object, ...]:
        """Goes to another process and back: by what it was made of, not by its message."""
        return (_missing_extra, (self.what, self.extra, self.install))


def _missing_extra(what: str, extra: str, install: str | None) -> MissingExtra:
    return MissingExtra(what, extra, install=install)


class ConversionError(LxmertExportError):
    """A model cannot be expressed in a target."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of another library says, or its type's name where the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
