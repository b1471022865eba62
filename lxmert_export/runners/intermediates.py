"""Opens an artifact with its intermediate values as outputs; the runtime is imported only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from lxmert_export.artifact.directory import IN_RUNTIME, Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.extras import require
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.points import Point
from lxmert_export.runners.runner import Runner

LEAST_KNOWN = 0.5  # the least share of a network's points that a file must name, or faults cannot be located in it


class Located(Protocol):
    """A runner whose outputs are points; ``tensors`` names the file's tensor of each point."""

    tensors: Mapping[Point, str]


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> tuple[Runner, Mapping[Point, str]]:
    """Returns a runner that outputs the values at the points, by point name, and the file's tensor name of each point.

    Points that the file lacks are left out. ``ArtifactError``: see ``check_visible``, or more than half of the points
    are missing. ``MissingExtra``: the runtime is not installed.
    """
    check_visible(artifact)
    part = artifact.target.intermediates
    assert part is not None, "check_visible refuses such targets"
    with quiet_native_logs():
        runner: Runner = part.load()(artifact, points)
    tensors = cast(Located, runner).tensors
    if len(tensors) < LEAST_KNOWN * len(points):
        runner.close()
        raise ArtifactError(
            f"{artifact.path}: its operators do not have the names that this tool gives them "
            f"({len(tensors)} of {len(points)} points found), so faults cannot be located in it: export it again"
        )
    return runner, tensors


def check_visible(artifact: Artifact) -> None:
    """Checks that an artifact can show its intermediate values.

    ``ArtifactError``: it cannot. ``MissingExtra``: the library that reads them is not installed.
    """
    target = artifact.target
    if artifact.runtime_name is not None:
        raise ArtifactError(
            f"{artifact.path}: intermediate values are read with {target.runtime.name} alone: leave "
            f"{IN_RUNTIME}{artifact.runtime_name} out"
        )
    if artifact.is_engine:
        raise ArtifactError(
            f"{artifact.path}: an engine does not show its intermediate values: "
            "locate the fault in the ONNX artifact it came from"
        )
    if artifact.is_keras:
        raise ArtifactError(
            f"{artifact.path}: a .keras file has no graph to look into: "
            "export it with --format saved-model, and locate the fault there"
        )
    if target.intermediates is None:
        raise ArtifactError(f"{artifact.path}: {target.title} artifacts do not show their intermediate values")
    require(f"looking into {target.title} artifacts", *target.intermediates.needs)
