"""All errors that a user can act on, as one tree. The command line catches its root.

    LxmertExportError
    ├── CheckpointError    a checkpoint cannot be read, or its tensors do not fit
    ├── ConfigError        a field of a config has the wrong type or range
    ├── ArtifactError      an artifact directory cannot be written, read or trusted
    │   ├── BuiltNotRun    an engine cannot run here
    │   └── RuntimeFailed  a runtime crashed, or the time limit stopped it
    ├── InputError         inputs or options do not fit a model or a runner
    │   └── PictureError   a picture of a file of features cannot be used
    ├── MissingExtra       a library is not installed; the message holds the line that installs it
    ├── ConversionError    a conversion is impossible, or its options do not fit together
    └── ParityError        two runners do not compute the same function

Each message says in one line what is wrong, where, and how to mend it.
"""

from __future__ import annotations

PACKAGE = "lxmert-export"
LONGEST_MESSAGE = 3000  # characters; a hostile file can hold names of any length, and some are quoted


class LxmertExportError(Exception):
    """The base class of every error that a user can act on."""

    def __str__(self) -> str:
        """The message; of one that is too long, the beginning and the end, where it says how to mend the fault."""
        message, half = super().__str__(), LONGEST_MESSAGE // 2
        return message if len(message) <= LONGEST_MESSAGE else f"{message[: half - 1]} … {message[-half + 2 :]}"


class CheckpointError(LxmertExportError):
    """A checkpoint cannot be read, or its tensors do not fit the model."""


class ConfigError(LxmertExportError):
    """A field of a config has the wrong type or range, or contradicts another field."""


class ArtifactError(LxmertExportError):
    """An artifact directory cannot be written, read or trusted."""


class BuiltNotRun(ArtifactError):
    """An artifact cannot run here, and so neither passed nor failed: an engine without its GPU or its weights, or bf16 on a CPU
    that has none.
    """


class RuntimeFailed(ArtifactError):
    """An artifact's runtime crashed, or ran longer than the time limit. In a report this is a FAIL."""


class InputError(LxmertExportError):
    """Inputs or options do not fit a model or a runner."""


def unimportable(name: str, error: ImportError) -> ArtifactError:
    """The error of a library that is installed and cannot be imported, such as one of whose files is damaged."""
    return ArtifactError(f"{name} is installed and cannot be imported: {first_line(error)}; install it again")


class MissingExtra(LxmertExportError):
    """A library is not installed. The message holds the line that installs it: ``install``, or pip's line for the extra."""

    def __init__(self, what: str, extra: str, *, install: str | None = None) -> None:
        line = install or f"pip install '{PACKAGE}[{extra}]'"
        super().__init__(f"{what} needs the extra '{extra}': {line}")
        self.what, self.extra, self.install = what, extra, install

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the arguments instead of the message, so that the error can come from another process."""
        return (_missing_extra, (self.what, self.extra, self.install))


def _missing_extra(what: str, extra: str, install: str | None) -> MissingExtra:
    return MissingExtra(what, extra, install=install)


class ConversionError(LxmertExportError):
    """A conversion is impossible: the target cannot express the model, or the options do not fit together."""


class InputWarning(UserWarning):
    """Inputs are computed, and are probably not what was meant."""


def shortened(items: list[str], most: int = 8) -> str:
    """Joins a list in one line: at most ``most`` items, then the number of the others."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def as_given(value: object) -> str:
    """Returns how an error names a value: a word or a number as it is, anything else by its type."""
    return repr(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
