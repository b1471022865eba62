"""Prints the rooms of the code: lines, files, floor, and who imports whom; with ``--check`` fails on a circle.

A room is a folder or a module directly below ``lxmert_export``, or ``converters``. A room's floor is one above the highest room
that it imports. Imports inside functions, and those for type checkers only, count as well. Run: make map
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGES = ("lxmert_export", "converters")


@dataclass(frozen=True)
class Room:
    """A folder or a module: its lines of Python, its files, and the rooms that it imports."""

    name: str
    lines: int
    files: int
    imports: frozenset[str]


def main() -> None:
    """Prints the map of this checkout."""
    rooms = read_rooms(ROOT)
    floors = floors_of({name: room.imports for name, room in rooms.items()})
    circles = [sorted(circle) for circle in circles_of({name: room.imports for name, room in rooms.items()})]
    arrows = sum(len(room.imports) for room in rooms.values())
    files = sum(room.files for room in rooms.values())
    lines = sum(room.lines for room in rooms.values())
    print(f"{len(rooms)} rooms on {max(floors.values())} floors, {arrows} arrows, {len(circles)} circles")
    print(f"{files} files, {lines} lines")
    for room in sorted(rooms.values(), key=lambda room: (-floors[room.name], room.name)):
        imports = ", ".join(sorted(room.imports, key=lambda name: (-floors[name], name)))
        print(
            f"{floors[room.name]:>3}  {room.name:<14}{room.files:>4} files {room.lines:>6} lines  -> {imports or 'nothing'}"
        )
    for circle in circles:
        print(f"circle: {', '.join(circle)}")
    if circles and "--check" in sys.argv[1:]:
        sys.exit("rooms import one another in a circle")


def read_rooms(root: Path) -> dict[str, Room]:
    """Returns the rooms of a checkout by name, without the package's own ``__init__``, which serves users only."""
    graph = grimp.build_graph(*PACKAGES, include_external_packages=False, cache_dir=None)
    arrows: dict[str, set[str]] = {}
    files: dict[str, list[Path]] = {}
    for module in graph.modules:
        if (room := room_of(module)) is None:
            continue
        found = graph.find_modules_directly_imported_by(module)
        arrows.setdefault(room, set()).update(name for name in map(room_of, found) if name and name != room)
        files.setdefault(room, []).append(file_of(root, module))
    return {
        room: Room(room, sum(_lines(file) for file in files[room]), len(files[room]), frozenset(arrows[room]))
        for room in files
    }


def room_of(module: str) -> str | None:
    """Returns the room of a module; None for the package root."""
    package, *rest = module.split(".")
    if package == "converters":
        return package
    return rest[0] if rest else None


def file_of(root: Path, module: str) -> Path:
    """Returns the file of a module."""
    place = root.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def floors_of(imports: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Returns the floor of each room: 1 if it imports no other room; rooms of a circle are on the same floor."""
    circles = circles_of(imports)
    circle_of = {name: circle for circle in circles for name in circle}
    floors: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in floors:
            together = circle_of.get(name, frozenset({name}))
            below = {other for member in together for other in imports[member]} - together
            height = 1 + max((floor(other) for other in below), default=0)
            floors.update(dict.fromkeys(together, height))
        return floors[name]

    for name in imports:
        floor(name)
    return floors


def circles_of(imports: Mapping[str, Iterable[str]]) -> list[frozenset[str]]:
    """Returns the groups of two or more rooms that import one another, directly or through other rooms."""
    reached = {name: _reach(name, imports) for name in imports}
    circles = {frozenset(other for other in reached[name] if name in reached[other]) for name in imports}
    return [circle for circle in circles if len(circle) > 1]


def _reach(name: str, imports: Mapping[str, Iterable[str]]) -> set[str]:
    """Returns all rooms that a room imports, directly or through others; the room itself only if it is in a circle."""
    found: set[str] = set()
    open_ends = list(imports[name])
    while open_ends:
        other = open_ends.pop()
        if other not in found:
            found.add(other)
            open_ends += imports[other]
    return found


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main()
