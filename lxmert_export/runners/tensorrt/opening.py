"""Finds what an engine needs to run: its facts in the manifest, a GPU, its runtime. Imports no TensorRT."""

from __future__ import annotations

from collections.abc import Sequence

from lxmert_export.artifact.directory import ENGINE_FILE, NOT_RUN, WEIGHTLESS, Artifact
from lxmert_export.engines.gpus import find_gpus, why_not_run
from lxmert_export.engines.library import LIBRARIES, Engine, require_library
from lxmert_export.engines.profiles import Profile, check_profiles
from lxmert_export.errors import ArtifactError, BuiltNotRun, ConfigError, ConversionError
from lxmert_export.runners.runner import Runner


def open_engine(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    """Opens an engine in the runtime that built it."""
    engine = find_engine(artifact)
    from lxmert_export.runners.tensorrt.engine import TensorRtRunner

    return TensorRtRunner(engine, artifact.manifest.signature, artifact.manifest.limits, name=artifact.name)


def find_engine(artifact: Artifact) -> Engine:
    """Returns an engine's file and its facts from the manifest, if there is a GPU and the runtime is installed.

    ``BuiltNotRun``: there is no GPU, or the engine holds no weights. ``ArtifactError``: the manifest describes no
    engine. ``MissingExtra``: the runtime is not installed.
    """
    manifest = artifact.manifest
    try:
        engine, version = manifest.options["engine"], str(manifest.options["build"]["runtime_version"])
        profiles = tuple(Profile.from_dict(values) for values in manifest.options["profiles"])
        check_profiles(profiles, manifest.config, manifest.signature)
        install, target, weightless = str(engine["install"]), str(engine["target"]), "strip" in engine["options"]
        runtime, digest = engine["runtime"], manifest.files[ENGINE_FILE]["sha256"]
        if runtime not in LIBRARIES:
            raise ConfigError(f"unknown runtime {runtime!r}")
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{artifact.path}: its manifest describes no engine: {error}; build it again") from error
    if weightless:
        raise BuiltNotRun(f"{artifact.path}: {WEIGHTLESS}")
    try:
        gpus = find_gpus()
    except ConversionError as error:
        raise BuiltNotRun(
            f"{artifact.path}: {NOT_RUN} ({why_not_run(error)}); verify it on a device of --target {target}"
        ) from error
    require_library(runtime, install)
    gpu = "; ".join(map(str, gpus))
    return Engine(artifact.file(ENGINE_FILE), digest, runtime, install, version, profiles, gpu)
