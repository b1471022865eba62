"""The errors: one tree, told in one place, and one line of what another library says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import lxmert_export as lx
from lxmert_export import errors
from lxmert_export.errors import first_line

pytestmark = pytest.mark.quick


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        if child.__module__.startswith(("lxmert_export", "converters")) and not child.__name__.startswith("_"):
            yield child
            yield from below(child)


def test_the_tree_names_every_error() -> None:
    import converters.tensorflow_model  # noqa: F401  (whose errors are among them)

    assert errors.__doc__ is not None
    named = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    assert named == {kind.__name__ for kind in below(lx.LxmertExportError)}


def test_of_a_message_without_end_the_beginning_and_the_end_are_told() -> None:
    """Files of others hold names of any length, and messages quote them."""
    message = str(lx.ArtifactError(f"file.json: holds {'x' * 100_000}; export it again"))
    assert len(message) <= errors.LONGEST_MESSAGE
    assert message.startswith("file.json: holds xxx") and message.endswith("xxx; export it again") and " … " in message
    assert str(lx.InputError("short")) == "short"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one \n"), "one"),
        (ValueError(""), "ValueError"),
        (ValueError("\n \n"), "ValueError"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=repr,
)
def test_the_first_line_of_what_a_library_says(error: Exception, line: str) -> None:
    assert first_line(error) == line
