"""What the values of several options mean together."""

from __future__ import annotations

import typer

from lxmert_export.spec.signature import Precision


def chosen_precision(**flags: bool) -> Precision | None:
    """The precision whose flag is set; None if no flag is set. Two flags are a usage error."""
    chosen: list[Precision] = [name for name, on in flags.items() if on]  # type: ignore[misc]  # names are precisions
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other")
    return chosen[0] if chosen else None


def given_sizes(batch: int | None, text: int | None, objects: int | None) -> dict[str, int]:
    """Returns the sizes of the axes that options give."""
    return {axis: n for axis, n in (("batch", batch), ("text", text), ("objects", objects)) if n is not None}


def named_matmuls(int8_keep: str | None) -> list[str]:
    """Returns the names behind ``--int8-keep``; none of ``none``. No name at all is a usage error."""
    if int8_keep is None or int8_keep == "none":
        return []
    names = [name.strip() for name in int8_keep.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("--int8-keep names no matmul: say auto, none, or names with commas between")
    return names
