"""The runner of engines and its cache of compiled kernels, beside stand-ins for TensorRT: no engine is run here.

What the stand-ins take and give is what NVIDIA documents; that the methods exist is asked of the wheel that is installed.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import ENGINE_FILE
from lxmert_export.engines.devices import install_line
from lxmert_export.engines.gpus import Gpu
from lxmert_export.engines.library import LOGGER, Engine, as_one_error, open_library
from lxmert_export.engines.profiles import make_profiles
from lxmert_export.errors import ArtifactError, BuiltNotRun, LxmertExportError
from lxmert_export.runners import opening
from lxmert_export.runners.tensorrt import engine as tensorrt_engine
from lxmert_export.runners.tensorrt.engine import REASONS, TensorRtRunner
from lxmert_export.runners.tensorrt.runtime_cache import SETTING, CacheFile, cache_directory
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import SMALL, inputs_for, lively_model

SIGNATURE = task_signature(SMALL, "question-answering")
PROFILES = make_profiles(SMALL, SIGNATURE, batch=["1", "2:4:8"])
OUTPUT = SIGNATURE.outputs[0].name
BITS = {name: 1 << place for place, name in enumerate(REASONS)}


class StandIn:
    """A TensorRT-RTX that compiles one kernel for each context, and whose contexts answer with the number of the call."""

    __version__ = "1.7.1"
    EngineValidity = SimpleNamespace(VALID=0, SUBOPTIMAL=1, INVALID=2)
    EngineInvalidityDiagnostics = SimpleNamespace(__members__=BITS)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.validity: tuple[int, int] = (0, 0)
        self.takes_kernels = True
        self.kernels: list[bytes] = []
        self.failing: dict[str, Callable[[], None]] = {}
        self.running = self.most_running = 0

    def did(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            self.failing[call]()

    def count(self, call: str) -> int:
        return self.calls.count(call)

    # What the library itself offers.

    def Runtime(self, logger: Any) -> StandIn:  # noqa: N802
        return self

    def get_engine_validity(self, engine: bytes) -> tuple[int, int]:
        self.did("validity")
        return self.validity

    # An engine, its runtime configuration, and that one's cache, in one.

    def create_runtime_config(self) -> StandIn:
        self.kernels = []
        return self

    def create_runtime_cache(self) -> StandIn:
        return self

    def deserialize(self, kernels: bytes) -> bool:
        self.did("deserialize")
        if self.takes_kernels:
            self.kernels = kernels.split(b"\n")
        return self.takes_kernels

    def set_runtime_cache(self, cache: Any) -> bool:
        self.did("set cache")
        return True

    def create_execution_context(self, config: Any = None) -> str:
        self.did("context" if config is None else "context from cache")
        return "context"

    def serialize(self) -> memoryview:
        self.did("serialize")
        return memoryview(b"\n".join(self.kernels))

    # What of Polygraphy's is used.

    def load(self, serialized: bytes) -> Callable[[], StandIn]:
        self.did("load")
        return lambda: self

    def open_context(self, source: Any, *, optimization_profile: int) -> StandInContext:
        if callable(source):
            source()
        else:
            source.create_execution_context()
        return StandInContext(self, optimization_profile)


class StandInContext:
    """Polygraphy's runner of one profile; its results lie in one buffer, which the next call writes to."""

    def __init__(self, library: StandIn, profile: int) -> None:
        self.library, self.profile = library, profile
        self.buffer = np.zeros((1, SMALL.num_qa_labels), np.float32)

    def activate(self) -> None:
        self.library.did(f"activate {self.profile}")
        kernel = b"kernel %d" % self.profile
        self.library.kernels = sorted({*self.library.kernels, kernel})

    def deactivate(self) -> None:
        self.library.did(f"deactivate {self.profile}")

    def infer(self, inputs: Any, *, check_inputs: bool) -> dict[str, Any]:
        self.library.did("infer")
        self.library.running += 1
        self.library.most_running = max(self.library.most_running, self.library.running)
        time.sleep(0.002)
        self.buffer[:] = inputs["visual_pos"].sum()
        self.library.running -= 1
        return {OUTPUT: self.buffer}


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    open_library("tensorrt-rtx", install_line("rtx"))  # Polygraphy's modules, whose classes are replaced
    import polygraphy.backend.trt as trt

    found = StandIn()
    monkeypatch.setattr(trt, "EngineFromBytes", found.load)
    monkeypatch.setattr(trt, "TrtRunner", found.open_context)
    monkeypatch.setattr(tensorrt_engine, "open_library", lambda runtime, install: found)
    monkeypatch.setenv(SETTING, str(tmp_path / "cache"))
    return found


def engine_of(tmp_path: Path, **facts: Any) -> Engine:
    file = tmp_path / "model.engine"
    file.write_bytes(b"engine")
    engine = Engine(file, "0f" * 32, "tensorrt-rtx", "pip install it", "1.7.1", PROFILES, "Some GPU, driver 1")
    return replace(engine, **facts)


def opened(tmp_path: Path, **facts: Any) -> TensorRtRunner:
    return TensorRtRunner(engine_of(tmp_path, **facts), SIGNATURE, InputLimits.of(SMALL), name="engine")


def call(rows: int = 1) -> dict[str, Any]:
    inputs = inputs_for("question-answering")
    return {name: tensor[:1].numpy().repeat(rows, axis=0) for name, tensor in inputs.items()}


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("**/*"))


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
        second = runner.run({**call(), "visual_pos": call()["visual_pos"] + 1})[OUTPUT]
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


def test_kernels_are_kept_for_the_next_runner(library: StandIn, tmp_path: Path) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    (file,) = kept(tmp_path)
    assert library.count("deserialize") == 0 and file.read_bytes().endswith(b"\nkernel 0")
    written = file.stat().st_mtime_ns, file.stat().st_ino
    with opened(tmp_path) as runner:
        assert library.kernels == [b"kernel 0"]
        runner.run(call())
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written  # nothing new, nothing written
    with opened(tmp_path) as runner:
        runner.run(call(4))
    assert kept(tmp_path) == [file] and file.read_bytes().endswith(b"\nkernel 0\nkernel 1")
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "model.engine"}


def test_a_runner_that_ran_nothing_writes_nothing(library: StandIn, tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert library.count("serialize") == 0 and not kept(tmp_path)


@pytest.mark.parametrize(
    "facts",
    [{"sha256": "aa" * 32}, {"gpu": "Some GPU, driver 2"}, {"version": "1.7.2"}],
    ids=lambda facts: next(iter(facts)),
)
def test_each_engine_gpu_and_version_has_a_file_of_its_own(
    facts: dict[str, Any], library: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    monkeypatch.setattr(StandIn, "__version__", facts.get("version", "1.7.1"))
    with opened(tmp_path, **facts) as runner:
        runner.run(call())
    assert len(kept(tmp_path)) == 2 and library.count("deserialize") == 0


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flip(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])


def _move(file: Path) -> None:
    header, kernels = file.read_bytes().split(b"\n", 1)
    file.write_bytes(json.dumps({**json.loads(header), "gpu": "Another"}).encode() + b"\n" + kernels)


def _older(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"runtime cache 1", b"runtime cache 0"))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (_cut, "is damaged"),
    "flipped bit": (_flip, "is damaged"),
    "no header": (lambda file: file.write_bytes(b"kernels"), "is damaged, or no runtime cache"),
    "empty": (lambda file: file.write_bytes(b""), "is damaged, or no runtime cache"),
    "another gpu": (_move, "is of another gpu"),
    "another format": (_older, "is no runtime cache of this version"),
    "no object": (lambda file: file.write_bytes(b"[]\n"), "is no runtime cache of this version"),
}


@pytest.mark.parametrize(("spoil", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_or_foreign_cache_is_ignored_and_told(
    spoil: Callable[[Path], Any], reason: str, library: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    (file,) = kept(tmp_path)
    sound = file.read_bytes()
    spoil(file)
    with opened(tmp_path) as runner:
        assert library.count("deserialize") == 0, "the runtime saw a byte of it"
        assert OUTPUT in runner.run(call())
    assert [record.getMessage() for record in caplog.records] == [f"{file}: {reason}; kernels are compiled anew"]
    assert file.read_bytes() == sound  # compiled anew, and kept


def test_what_the_runtime_does_not_take_is_told(
    library: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    library.takes_kernels = False
    with opened(tmp_path) as runner:
        runner.run(call(4))
    assert "TensorRT-RTX does not take it" in caplog.text and caplog.records[0].levelno == logging.WARNING
    assert kept(tmp_path)[0].read_bytes().endswith(b"\nkernel 1")


def test_a_cache_that_cannot_be_written_does_not_cost_the_run(
    library: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(SETTING, str(tmp_path / "file" / "cache"))
    with opened(tmp_path) as runner:
        assert OUTPUT in runner.run(call())
    assert "compiled kernels are not kept" in caplog.text and SETTING in caplog.text


def test_a_cache_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CacheFile(tmp_path / "cache", engine="e", runtime="r", gpu="g")
    file.write(b"first")
    before = file.path.read_bytes()

    def full_disk(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ArtifactError, match="No space left on device"):
        file.write(b"second")
    assert file.path.read_bytes() == before and kept(tmp_path) == [file.path]
    assert CacheFile(tmp_path / "cache", engine="e", runtime="r", gpu="g").read() == b"first"


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_without_a_cache(runtime: str, library: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user wants none, and with classic TensorRT, which has none."""
    if runtime == "tensorrt-rtx":
        monkeypatch.setenv(SETTING, "")
    with opened(tmp_path, runtime=runtime) as runner:
        runner.run(call())
    assert library.count("context") == 1 and not {"set cache", "context from cache", "serialize"} & {*library.calls}
    assert not kept(tmp_path)


def test_where_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / ".cache" / "lxmert-export" / "tensorrt-rtx"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "lxmert-export" / "tensorrt-rtx"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert cache_directory() == tmp_path / ".cache" / "lxmert-export" / "tensorrt-rtx"
    monkeypatch.setenv(SETTING, str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.setenv(SETTING, "")
    assert cache_directory() is None


@pytest.mark.parametrize("name", REASONS)
def test_a_header_that_says_no_is_one_line_and_nothing_is_loaded(name: str, library: StandIn, tmp_path: Path) -> None:
    library.validity = (2, BITS[name])
    with pytest.raises(ArtifactError, match=REASONS[name]) as told:
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
def engine(tmp_path_factory: pytest.TempPathFactory) -> lx.Artifact:
    place = tmp_path_factory.mktemp("engine") / "engine"
    tiny = SMALL.replace(l_layers=1, x_layers=1, r_layers=1)
    return lx.build_engine(lively_model("question-answering", tiny), place, compute_capability="8.9", parity=False)


def test_the_wheel_itself_refuses_what_is_no_engine(
    engine: lx.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executed against TensorRT-RTX: its header check needs no GPU to see that bytes are none of an engine's."""
    monkeypatch.setattr(opening, "find_gpus", lambda: (Gpu((8, 9), "Some GPU", "1"),))
    found = opening.find_engine(engine)
    assert (found.sha256, found.gpu) == (
        engine.manifest.files[ENGINE_FILE]["sha256"],
        str(Gpu((8, 9), "Some GPU", "1")),
    )
    foreign = tmp_path / "foreign.engine"
    foreign.write_bytes(b"no engine" * 1000)
    with pytest.raises(ArtifactError, match="cannot be run by TensorRT-RTX here: it is no engine") as told:
        TensorRtRunner(replace(found, file=foreign), SIGNATURE, InputLimits.of(SMALL), name="foreign")
    assert "\n" not in str(told.value)


def test_a_manifest_of_an_unknown_runtime_is_one_line(engine: lx.Artifact) -> None:
    options = {**engine.manifest.options, "engine": {**engine.manifest.options["engine"], "runtime": "other"}}
    with pytest.raises(LxmertExportError, match="describes no engine: its runtime is 'other'"):
        opening.find_engine(replace(engine, manifest=replace(engine.manifest, options=options)))


def test_an_engine_without_weights_is_refitted_before_it_is_run(
    engine: lx.Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_gpus", lambda: (Gpu((8, 9), "Some GPU", "1"),))
    stripped = {**engine.manifest.options["engine"], "options": {"strip": True}}
    options = {**engine.manifest.options, "engine": stripped}
    with pytest.raises(BuiltNotRun, match=r"built, not run \(it holds no weights\): refit it first"):
        opening.open_runner(replace(engine, manifest=replace(engine.manifest, options=options)))
