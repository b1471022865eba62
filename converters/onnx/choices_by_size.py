"""Notes where a module's code chooses by a size, such as ``if ids.shape[1] > 3``, while it is traced.

A graph holds one branch. PyTorch refuses a choice that comes out otherwise for some size, without naming its line. For size 1
it does not even refuse: it takes for granted that a dynamic size is 2 or more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch

from lxmert_export.errors import ConversionError, shortened
from lxmert_export.model.users_code import is_users

VIOLATED = "Constraints violated"  # how PyTorch's message begins


class ChoicesBySize:
    """The lines of users' code that made a choice, or a number, of a dynamic size; by whether size 1 comes out otherwise."""

    def __init__(self) -> None:
        self._otherwise: dict[str, bool] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Notes choices in this block."""
        kinds = (
            (torch.SymBool, "__bool__"),
            (torch.SymInt, "__bool__"),
            (torch.SymInt, "__int__"),
            (torch.SymInt, "__index__"),
        )
        usual = [(kind, name, getattr(kind, name)) for kind, name in kinds]
        for kind, name, method in usual:
            setattr(kind, name, self._noting(method))
        try:
            yield
        finally:
            for kind, name, method in usual:
                setattr(kind, name, method)

    def _noting(self, method: Any) -> Any:
        def chosen(size: Any) -> Any:
            outcome, frame = method(size), sys._getframe(1)
            if is_users(frame.f_code.co_filename):
                line = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
                self._otherwise[line] = self._otherwise.get(line, False) or _is_otherwise_at_one(size, outcome)
            return outcome

        return chosen

    def refuse(self, name: str, error: BaseException | None = None) -> None:
        """``ConversionError``: a choice comes out otherwise for size 1 or, if PyTorch's ``error`` says so, for some size."""
        if error is not None and str(error).startswith(VIOLATED) and self._otherwise:
            _refuse(name, list(self._otherwise))
        if error is None and (lines := [line for line, otherwise in self._otherwise.items() if otherwise]):
            _refuse(name, lines)


def _refuse(name: str, lines: list[str]) -> NoReturn:
    raise ConversionError(
        f"{name} chooses by a size ({shortened(lines, most=3)}), and a graph holds one branch for all sizes: compute what fits "
        "every size, or give the axis a fixed size in the signature"
    )


def _is_otherwise_at_one(size: Any, outcome: Any) -> bool:
    """Whether one of the sizes that a choice depends on, set to 1, would change its outcome."""
    expression: Any = getattr(getattr(size, "node", None), "expr", None)
    symbols = getattr(expression, "free_symbols", ())
    return isinstance(outcome, bool) and any(_differs(expression.subs({symbol: 1}), outcome) for symbol in symbols)


def _differs(at_one: Any, outcome: bool) -> bool:
    return str(at_one) in ("True", "False") and str(at_one) != str(outcome)
