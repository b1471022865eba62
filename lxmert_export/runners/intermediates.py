"""Opens an artifact so that its intermediates show; the runtime is imported only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.extras import require
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.points import Point
from lxmert_export.runners.runner import Runner

MOST_UNKNOWN = 0.5  # of a network's points: with fewer of them known, a file tells nothing of where it goes wrong


class Located(Protocol):
    """A runner whose outputs are points: which tensor of the file each of them is."""

    tensors: Mapping[Point, str]


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> tuple[Runner, Mapping[Point, str]]:
    """A runner that gives what flows at the points, by their names, and the tensor of the file that each is.

    ``ArtifactError``: as ``check_visible``, or a file whose operators have lost their names. ``MissingExtra``: the runtime is
    not installed.
    """
    check_visible(artifact)
    part = artifact.target.intermediates
    assert part is not None, "check_visible refuses such targets"
    with quiet_native_logs():
        runner: Runner = part.load()(artifact, points)
    tensors = cast(Located, runner).tensors
    if len(tensors) < MOST_UNKNOWN * len(points):
        runner.close()
        raise ArtifactError(
            f"{artifact.path}: its operators do not have the names that this tool gives them "
            f"({len(tensors)} of {len(points)} points found), so that none can be told from another: export it again"
        )
    return runner, tensors


def check_visible(artifact: Artifact) -> None:
    """``ArtifactError``: an artifact whose insides do not show. ``MissingExtra``: what looks into it is not installed."""
    target = artifact.target
    if artifact.is_engine:
        raise ArtifactError(
            f"{artifact.path}: an engine does not show what flows inside it: locate the fault in the ONNX artifact it came from"
        )
    if artifact.is_keras:
        raise ArtifactError(
            f"{artifact.path}: a .keras file has no graph to look into: export it with --format saved-model, and locate there"
        )
    if target.intermediates is None:
        raise ArtifactError(f"{artifact.path}: {target.title} artifacts do not show what flows inside them")
    require(f"looking into {target.title} artifacts", *target.intermediates.needs)
