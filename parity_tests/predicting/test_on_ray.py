"""`--engine ray` on a local cluster: the bytes of the local engine, with workers that die or hang."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ray
from ray.exceptions import RayTaskError

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError, InputError, RuntimeFailed
from lxmert_export.predicting import on_ray, plan
from lxmert_export.predicting.job import Job
from lxmert_export.predicting.on_ray import RayEngine, Worker
from lxmert_export.predicting.output_formats import WITH_PROBABILITIES
from parity_tests.fixtures.command import ROOT
from parity_tests.fixtures.exports import Exports
from parity_tests.predicting.planted_workers import PLACE, AlwaysDies, Dies, Hangs, SaysThatItOpens
from parity_tests.predicting.question_set import write_set

WORKERS = 3
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def cluster(notes: Path) -> Iterator[None]:
    """A cluster of three workers, however many cores there are."""
    os.environ[on_ray.NO_REPORTS] = "0"
    environment = {"env_vars": {PLACE: str(notes), "PYTHONPATH": str(ROOT)}}
    ray.init(
        address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, runtime_env=environment,
        object_store_memory=100_000_000,
    )  # fmt: skip
    yield
    ray.shutdown()


class Case:
    """A set, an artifact, and what the local engine writes."""

    def __init__(self, folder: Path, artifact: Artifact) -> None:
        self.artifact, self.output = artifact, folder / "answers.jsonl"
        self.features, self.questions = write_set(folder)
        lx.predict(artifact.path, self.features, self.questions, folder / "local.jsonl")
        self.local = (folder / "local.jsonl").read_bytes()

    def predict(self, **options: Any) -> lx.Predicted:
        return lx.predict(self.artifact.path, self.features, self.questions, self.output, engine="ray", **options)


@pytest.fixture
def case(cluster: None, exports: Exports, tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(plan, "QUESTIONS", 24)
    monkeypatch.setattr(plan, "LOOKS", 5)
    for note in notes.iterdir():
        note.unlink()
    return Case(tmp_path, exports.answering("onnx"))


@pytest.mark.parametrize(
    ("worker", "limit", "said"), [(Dies, 60.0, "killed its worker"), (Hangs, 5.0, "took longer than 5 s")]
)
def test_a_shard_goes_to_another_worker(
    worker: type[Worker], limit: float, said: str, case: Case, notes: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(RayEngine, "worker", worker)
    case.predict(time_limit=limit)
    assert len(list(notes.iterdir())) == 1 and case.output.read_bytes() == case.local
    assert os.environ[on_ray.NO_REPORTS] == "0"
    told = [message for message in caplog.messages if "is tried again" in message]
    assert len(told) == 1 and told[0].startswith("shard 2, of question 1") and said in told[0]


def test_a_shard_that_kills_every_worker_is_one_line_and_the_rest_is_kept(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayEngine, "worker", AlwaysDies)
    with pytest.raises(
        RuntimeFailed, match=r"^shard 2, of question 1\d+, failed 3 times; the last time it killed its worker"
    ):
        case.predict(workers=1)
    state = case.output.with_name(".answers.jsonl.predicting")
    kept = {path.name for path in state.iterdir() if path.name.startswith("part")}
    assert len(kept) > 0 and "part-000002" not in kept
    done = lx.predict(case.artifact.path, case.features, case.questions, case.output)  # the local engine goes on
    assert done.resumed > 0 and case.output.read_bytes() == case.local


def test_a_worker_that_does_not_find_the_artifact_is_one_line(case: Case, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(case.artifact.path, moved)

    class Gone(RayEngine):
        def __call__(self, *given: Any) -> Any:
            shutil.rmtree(moved)  # as on a machine that does not have it
            return super().__call__(*given)

    with (
        mock.patch.object(on_ray, "RayEngine", Gone),
        pytest.raises(ArtifactError, match="moved: not an artifact directory"),
    ):
        lx.predict(moved, case.features, case.questions, case.output, engine="ray", workers=1)
    assert not list(tmp_path.glob(".answers*"))


def test_a_worker_whose_files_are_others_says_so(case: Case) -> None:
    job = Job(
        case.artifact.path,
        None,
        case.features,
        ("of", "others"),
        WITH_PROBABILITIES,
        True,
        1,
        ("CPUExecutionProvider",),
        1,
        8,
    )
    found = Worker(job).open()
    assert isinstance(found, ArtifactError) and "or the installed runtimes are others there: copy them" in str(found)


def test_a_cluster_without_room_is_one_line(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no machine of the Ray cluster has 4 CPUs for a worker: lower threads"):
        case.predict(threads=WORKERS + 1)
    monkeypatch.setattr(on_ray, "START_LIMIT", 2.0)
    with pytest.raises(RuntimeFailed, match="a worker did not start within 2 s: the cluster may have no room for it"):
        case.predict(threads=WORKERS + 1, workers=1)


@pytest.fixture
def one_core(cluster: None) -> Iterator[None]:
    """Another program of the cluster holds all cores but one."""

    class Other:
        def is_here(self) -> bool:
            return True

    other = ray.remote(Other).options(num_cpus=WORKERS - 1).remote()
    assert ray.get(other.is_here.remote())
    yield
    ray.kill(other)


def test_a_worker_that_cannot_start_is_not_waited_for_when_all_is_answered(
    case: Case, one_core: None, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would start on the core that the first one leaves, or fail the run if another program takes that core."""
    monkeypatch.setattr(RayEngine, "worker", SaysThatItOpens)
    case.predict(workers=2)
    assert len(list(notes.iterdir())) == 1 and case.output.read_bytes() == case.local


def test_an_error_that_a_worker_raised_is_told_by_its_cause() -> None:
    error = RayTaskError("answer", "Traceback (most recent call last):\n  …", ValueError("planted\nmore"))
    for raised in (error, error.as_instanceof_cause()):
        assert isinstance(raised, RayTaskError) and on_ray._reason(raised) == "failed: ValueError: planted"


def test_a_named_cluster_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the whole split would be computed on this machine."""
    asked: list[str] = []

    def refuse(address: str, **_: object) -> None:
        asked.append(address)
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.7:6379")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv(on_ray.ADDRESS, "10.0.0.7:6379")
    with (
        pytest.raises(RuntimeFailed, match=r"^no Ray cluster answers at 10\.0\.0\.7:6379, which RAY_ADDRESS names"),
        on_ray._cluster(),
    ):
        pass
    assert asked == ["auto"]


def test_ray_does_not_take_sigterm_from_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, lambda *_: None))  # as Ray does
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with on_ray._cluster():
        assert signal.getsignal(signal.SIGTERM) is before
