"""The runner of engines and its cache of compiled kernels, beside stand-ins for TensorRT: no engine is run here.

What the stand-ins take and give is what NVIDIA documents; that the methods exist is asked of the wheel that is installed.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import ENGINE_FILE
from lxmert_export.engines.devices import install_line
from lxmert_export.engines.gpus import Gpu
from lxmert_export.engines.library import LOGGER, as_one_error, open_library
from lxmert_export.errors import ArtifactError, BuiltNotRun, LxmertExportError
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.tensorrt import opening
from lxmert_export.runners.tensorrt.engine import REASONS, TensorRtRunner
from lxmert_export.runners.tensorrt.opening import find_engine
from lxmert_export.spec.inputs import InputLimits
from parity_tests.engines.stand_in_library import BITS, OUTPUT, SIGNATURE, StandIn, call, opened
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY


def test_a_context_of_each_profile_is_made_once_and_kept(library: StandIn, tmp_path: Path) -> None:
    with opened(tmp_path) as runner:
        assert library.calls == ["validity", "load", "set cache"]  # the header is asked before anything is loaded
        for rows in (1, 3, 1, 4, 1):
            runner.run(call(rows))
    assert (library.count("infer"), library.count("context from cache")) == (5, 2)
    assert (library.count("activate 0"), library.count("activate 1")) == (1, 1)
    assert library.calls[-3:] == ["deactivate 1", "deactivate 0", "serialize"]
    runner.close()
    with pytest.raises(ArtifactError, match="this runner is closed"):
        runner.run(call())


def test_what_was_returned_is_not_written_to_by_the_next_call(library: StandIn, tmp_path: Path) -> None:
    with opened(tmp_path) as runner:
        first = runner.run(call())[OUTPUT]
        before = first.copy()
        second = runner.run({**call(), "visual_pos": call()["visual_pos"] / 2})[OUTPUT]
    assert not np.array_equal(first, second) and np.array_equal(first, before)


def test_threads_take_turns(library: StandIn, tmp_path: Path) -> None:
    with opened(tmp_path) as runner:
        threads = [threading.Thread(target=runner.run, args=(call(1 + n % 2),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (library.count("infer"), library.most_running) == (8, 1)
    assert library.count("activate 0") == library.count("activate 1") == 1


@pytest.mark.parametrize("name", REASONS)
def test_a_header_that_says_no_is_one_line_and_nothing_is_loaded(name: str, library: StandIn, tmp_path: Path) -> None:
    library.validity = (2, BITS[name])
    with pytest.raises(ArtifactError, match=re.escape(REASONS[name])) as told:
        opened(tmp_path)
    assert "\n" not in str(told.value) and library.calls == ["validity"]
    assert [reason for reason in REASONS.values() if reason in str(told.value)] == [REASONS[name]]
    library.validity = (1, 0)
    opened(tmp_path).close()  # suboptimal is not invalid


@pytest.mark.parametrize("step", ["load", "context from cache", "infer"])
def test_out_of_memory_is_one_line(step: str, library: StandIn, tmp_path: Path) -> None:
    from polygraphy.logger import G_LOGGER

    # As Polygraphy tells that cudaMalloc failed.
    library.failing[step] = lambda: G_LOGGER.critical("CUDA Error: 2. To figure out what this means, refer to a page")
    with pytest.raises(ArtifactError, match="out of memory; build a narrower profile") as told:
        opened(tmp_path).run(call())
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(
        f"{tmp_path / 'model.engine'}: cannot be loaded" if step == "load" else "engine: "
    )


def test_threads_that_overlap_leave_the_log_as_it_was(library: StandIn) -> None:
    """The first one out comes before the last one in has left, and each hears what was logged while it was inside."""
    from polygraphy.logger import G_LOGGER

    log, heard = logging.getLogger(LOGGER), {}
    assert log.propagate and not log.handlers
    with ExitStack() as first, ExitStack() as second:
        heard["first"] = first.enter_context(as_one_error("first", quiet=False))
        heard["second"] = second.enter_context(as_one_error("second", quiet=False))
        G_LOGGER.error("both")
        first.close()
        assert not log.propagate
        G_LOGGER.error("one")
    assert log.propagate and not log.handlers
    assert [len(heard[name].lines) for name in ("first", "second")] == [1, 2]


def test_another_version_is_refused_before_its_header_is_read(library: StandIn, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"was built by tensorrt-rtx 1\.6\.0, and 1\.7\.1 is installed"):
        opened(tmp_path, version="1.6.0")
    assert not library.calls


def test_the_installed_wheel_has_what_the_stand_in_has() -> None:
    runtime = open_library("tensorrt-rtx", install_line("rtx"))
    members = {
        runtime.Runtime: ("get_engine_validity",),
        runtime.ICudaEngine: ("create_runtime_config", "create_execution_context"),
        runtime.IRuntimeConfig: ("create_runtime_cache", "set_runtime_cache"),
        runtime.IRuntimeCache: ("serialize", "deserialize"),
    }
    assert all(hasattr(kind, name) for kind, names in members.items() for name in names)
    assert set(runtime.EngineInvalidityDiagnostics.__members__) == set(REASONS)
    assert {n: int(m) for n, m in runtime.EngineInvalidityDiagnostics.__members__.items()} == BITS


@pytest.fixture(scope="module")
def engine(exports: Exports) -> lx.Artifact:
    return exports.engine(exports.lively("onnx", "question-answering", TINY), compute_capability="8.9")


def test_the_wheel_itself_refuses_what_is_no_engine(
    engine: lx.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executed against TensorRT-RTX: its header check needs no GPU to see that bytes are none of an engine's."""
    monkeypatch.setattr(opening, "find_gpus", lambda: (Gpu((8, 9), "Some GPU", "1"),))
    found = find_engine(engine)
    assert (found.sha256, found.gpu) == (
        engine.manifest.files[ENGINE_FILE]["sha256"],
        str(Gpu((8, 9), "Some GPU", "1")),
    )
    foreign = tmp_path / "foreign.engine"
    foreign.write_bytes(b"no engine" * 1000)
    with pytest.raises(ArtifactError, match="cannot be run by TensorRT-RTX here: it is not an engine") as told:
        TensorRtRunner(replace(found, file=foreign), SIGNATURE, InputLimits.of(SMALL), name="foreign")
    assert "\n" not in str(told.value)


def test_a_manifest_of_an_unknown_runtime_is_one_line(engine: lx.Artifact) -> None:
    options = {**engine.manifest.options, "engine": {**engine.manifest.options["engine"], "runtime": "other"}}
    with pytest.raises(LxmertExportError, match="describes no engine: unknown runtime 'other'"):
        find_engine(replace(engine, manifest=replace(engine.manifest, options=options)))


def test_an_engine_without_weights_is_refitted_before_it_is_run(
    engine: lx.Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_gpus", lambda: (Gpu((8, 9), "Some GPU", "1"),))
    stripped = {**engine.manifest.options["engine"], "options": {"strip": True}}
    options = {**engine.manifest.options, "engine": stripped}
    with pytest.raises(BuiltNotRun, match=r"built, not run \(it holds no weights\): refit it first"):
        open_runner(replace(engine, manifest=replace(engine.manifest, options=options)))
