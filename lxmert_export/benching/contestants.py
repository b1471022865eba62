"""Who takes part in a bench: artifacts, each in the runtime that its name chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lxmert_export.artifact.directory import IN_RUNTIME, Artifact, open_named, split_runtime
from lxmert_export.benching.worker import Opens
from lxmert_export.errors import ArtifactError
from lxmert_export.judging.artifact import artifact_facts
from lxmert_export.judging.pairs import check_opened_once, with_names_apart
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import check_runnable, open_runner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.signature import ComputedPrecision
from lxmert_export.spec.weight_names import network_differences, same_network

Kind = Literal["artifact", "peer"]


@dataclass(frozen=True)
class Contestant:
    """One who takes part: how it is opened, and what the report says of it.

    ``artifact``: the artifact whose operations are counted; None if nothing counts them. ``settings``: what its runtime was
    told. ``pads_to``: in a workload, the number of tokens that it pads every question to; None: its batches are sorted by length.
    """

    name: str
    kind: Kind
    runtime: str
    precision: ComputedPrecision
    opens: Opens
    bytes: int | None = None
    artifact: Artifact | None = None
    settings: tuple[str, ...] = ()
    pads_to: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What the report says of it, as JSON values."""
        fields = ("name", "kind", "runtime", "precision", "bytes", "settings")
        return {name: getattr(self, name) for name in fields} | {"settings": list(self.settings)}


@dataclass(frozen=True)
class OpensArtifact:
    """Opens an artifact by its path, as ``lx.load_artifact`` does: its hashes are checked in the contestant's own process."""

    place: str

    def __call__(self, threads: int) -> Runner:
        """Returns the runner. A runtime that takes no number of threads has it from the environment."""
        artifact = open_named(self.place)
        return open_runner(artifact, threads=threads if artifact.runtime.threads else None)


def artifact_contestants(places: Sequence[str | Path]) -> list[Contestant]:
    """Returns a contestant for each artifact, in their order.

    ``ArtifactError``: none is named, one is named twice, or they compute different things. ``MissingExtra``, ``BuiltNotRun``: one
    cannot run here.
    """
    if not places:
        raise ArtifactError("no artifact to bench: name at least one directory")
    artifacts = with_names_apart([open_named(place) for place in places])
    check_opened_once(places, artifacts)
    check_same_question(artifacts)
    for artifact in artifacts:
        check_runnable(artifact)
    return [contestant_of(artifact, _whole(place)) for artifact, place in zip(artifacts, places, strict=True)]


def _whole(place: str | Path) -> str:
    """The same place from the root, with its runtime: a contestant's process has another working directory in mind."""
    path, runtime = split_runtime(place)
    whole = str(Path(path).absolute())
    return whole if runtime is None else f"{whole}{IN_RUNTIME}{runtime}"


def contestant_of(artifact: Artifact, place: str) -> Contestant:
    """Returns the contestant of an opened artifact, which its own process opens again at ``place``."""
    facts = artifact_facts(artifact, (CPU,))
    return Contestant(
        artifact.name, "artifact", artifact.runtime.name, artifact.computed_precision, OpensArtifact(place),
        bytes=facts.bytes, artifact=artifact, settings=facts.settings, source=artifact.manifest.checkpoint,
    )  # fmt: skip


def check_same_question(artifacts: Sequence[Artifact]) -> None:
    """``ArtifactError``: two artifacts are of different tasks or networks, or have different inputs or outputs."""
    first, *others = artifacts
    one = first.manifest
    for other in others:
        two = other.manifest
        differing = network_differences(one.config, two.config, one.signature.lxmert_task)
        listed = ", ".join(f"{field} {here} and {there}" for field, here, there in differing)
        different = {
            f"task ({one.task} and {two.task})": one.task != two.task,
            f"config ({listed})": not same_network(one.config, two.config, one.signature.lxmert_task),
            "inputs": [spec.name for spec in one.signature.inputs] != [spec.name for spec in two.signature.inputs],
            "outputs": {spec.name for spec in one.signature.outputs} != {spec.name for spec in two.signature.outputs},
        }
        if found := next((what for what, differs in different.items() if differs), None):
            raise ArtifactError(f"{first.path} and {other.path} cannot be benched together: they differ in {found}")
