"""Has the workers of a Ray cluster answer shards: one runner for each worker.

The shards are cut before Ray sees them. A worker returns the records of a shard to this process, which alone writes them; so
nothing is written twice, and only the artifact and the features must be reachable from every machine, under the same paths.
Plain actors are enough for that. Ray Data would bring pandas and pyarrow, and hides which worker hangs.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.pictures import PictureSource
from lxmert_export.errors import ArtifactError, InputError, LxmertExportError, RuntimeFailed, first_line
from lxmert_export.interrupts import handlers_kept
from lxmert_export.option_names import option
from lxmert_export.predicting.job import Job, digests_of
from lxmert_export.predicting.plan import Shard
from lxmert_export.predicting.shard_runner import Answered, ShardRunner

LOGGER = logging.getLogger(__name__)
TRIES = 3  # of a shard, each on another worker, and of starting a worker
START_LIMIT = 600.0  # seconds for a worker to start: a cluster may have to start a machine first
GPU = "GPU"  # the device of runtimes for which a worker reserves one
ADDRESS = "RAY_ADDRESS"  # names a cluster elsewhere
NO_REPORTS = "RAY_USAGE_STATS_ENABLED"  # Ray reports the use of clusters that it starts, unless this is 0


class Worker:
    """What runs in a process of the cluster. ``ray.remote`` makes an actor of it.

    An error that the user can act on is returned, not raised: Ray would wrap it, and it is no reason to try again.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner: ShardRunner | None = None

    def open(self) -> LxmertExportError | None:
        """Opens the artifact and the features."""
        job = self._job
        try:
            artifact = open_artifact(job.artifact).in_runtime(job.runtime)
            source = open_features(job.features, boxes=job.boxes)
            if digests_of(artifact, source) != job.digests:
                raise ArtifactError(
                    f"{socket.gethostname()}: {job.artifact}, {job.features} or the installed runtimes are others there: copy "
                    "them, and install the same versions"
                )
            self._runner = ShardRunner(job, artifact, source)
        except LxmertExportError as error:
            return error
        return None

    def answer(self, shard: Shard) -> Answered | LxmertExportError:
        """Answers a shard."""
        assert self._runner is not None
        try:
            (answered,) = self._runner.answer([shard])
        except LxmertExportError as error:
            return error
        return answered


@dataclass(frozen=True)
class Task:
    """What a worker does: opens its files (``shard`` None), or answers a shard, until a moment at the latest."""

    worker: Any
    shard: Shard | None
    deadline: float


class RayEngine:
    """An engine of workers, each with ``threads`` threads. ``time_limit``: seconds for a shard.

    A shard whose worker dies, or takes longer, goes to a new worker, and overwrites whole. ``RuntimeFailed``: it failed on
    ``TRIES`` workers, or no worker starts.
    """

    worker: type[Worker] = Worker

    def __init__(self, workers: int | None, threads: int, time_limit: float) -> None:
        self._workers, self._threads, self._time_limit = workers, threads, time_limit

    def __call__(
        self, job: Job, artifact: Artifact, source: PictureSource, shards: Iterable[Shard]
    ) -> Iterator[Answered]:
        """Yields the answers of each shard, as they come."""
        with _cluster():
            gpus = int(artifact.runtime.device == GPU or any(name.startswith("CUDA") for name in job.providers))
            actor = ray.remote(self.worker).options(
                num_cpus=self._threads, num_gpus=gpus, max_restarts=0, max_task_retries=0
            )
            count = self._workers or _room(self._threads, gpus)
            run = _Run(lambda: actor.remote(job), deque(shards), count, self._time_limit)
            try:
                yield from run.answers()
            finally:
                run.end()


class _Run:
    """Shards on their way through workers."""

    def __init__(self, make: Any, shards: deque[Shard], count: int, time_limit: float) -> None:
        self._make, self._shards, self._time_limit = make, shards, time_limit
        self._tasks: dict[Any, Task] = {}  # by what Ray will give for it
        self._failed: Counter[int | None] = Counter()  # how often each shard failed; None: the start of a worker
        for _ in range(min(count, len(shards))):
            self._start()

    def answers(self) -> Iterator[Answered]:
        """Yields the answers of each shard, as they come."""
        # A worker that is still starting when all is answered is not waited for: there may be no room for it.
        while self._shards or any(task.shard is not None for task in self._tasks.values()):
            wait = min(task.deadline for task in self._tasks.values()) - time.monotonic()
            done, _ = ray.wait(list(self._tasks), num_returns=1, timeout=max(wait, 0))
            for reference in done:
                task = self._tasks.pop(reference)
                try:
                    found = ray.get(reference)
                except RayError as error:
                    self._again(task, _reason(error))
                    continue
                if isinstance(found, LxmertExportError):
                    raise found
                if isinstance(found, Answered):
                    yield found
                self._give(task.worker)
            for reference, task in [(r, t) for r, t in self._tasks.items() if t.deadline <= time.monotonic()]:
                del self._tasks[reference]
                if task.shard is not None:
                    self._again(task, f"took longer than {self._time_limit:g} s")
                else:
                    self._leave_out(task)

    def end(self) -> None:
        """Ends all workers."""
        for task in self._tasks.values():
            _kill(task.worker)
        self._tasks.clear()

    def _start(self) -> None:
        worker = self._make()
        self._tasks[worker.open.remote()] = Task(worker, None, time.monotonic() + START_LIMIT)

    def _give(self, worker: Any) -> None:
        """Gives a worker that has nothing to do the next shard; without one it ends."""
        if not self._shards:
            _kill(worker)
            return
        shard = self._shards.popleft()
        self._tasks[worker.answer.remote(shard)] = Task(worker, shard, time.monotonic() + self._time_limit)

    def _leave_out(self, task: Task) -> None:
        """Does without a worker that did not start: the cluster may have no room for it."""
        _kill(task.worker)
        late = (
            f"a worker did not start within {START_LIMIT:g} s: the cluster may have no room for it (see 'ray status')"
        )
        if not self._tasks:
            raise RuntimeFailed(late)
        LOGGER.warning("%s; the others go on", late)

    def _again(self, task: Task, reason: str) -> None:
        """Ends a worker that failed, and starts another. Its shard is the next one."""
        _kill(task.worker)
        number = None if task.shard is None else task.shard.number
        self._failed[number] += 1
        what = (
            "the start of a worker"
            if task.shard is None
            else f"shard {number}, of question {task.shard.questions[0].id},"
        )
        if self._failed[number] == TRIES:
            raise RuntimeFailed(f"{what} failed {TRIES} times; the last time it {reason}; see the logs of the cluster")
        LOGGER.warning("%s is tried again: it %s", what, reason)
        if task.shard is not None:
            self._shards.appendleft(task.shard)
        self._start()


def _reason(error: RayError) -> str:
    """Why a task failed. The text of an error that a worker raised is a traceback; the reason is in its cause."""
    if isinstance(error, RayActorError):
        return f"killed its worker: {first_line(error)}"
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"failed: {type(cause).__name__}: {first_line(cause)}"


def _kill(worker: Any) -> None:
    with suppress(RayError):
        ray.kill(worker, no_restart=True)


@contextmanager
def _cluster() -> Iterator[None]:
    """Connects with the cluster that RAY_ADDRESS names or that runs on this machine; else starts one here, for this run.

    ``RuntimeFailed``: the cluster that RAY_ADDRESS names does not answer.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault(NO_REPORTS, "0")
    with handlers_kept():
        _connect(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(**quiet: Any) -> None:
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError as error:
        if named := os.environ.get(ADDRESS):
            raise RuntimeFailed(
                f"no Ray cluster answers at {named}, which {ADDRESS} names: {first_line(error)}; correct it, or unset it"
            ) from error
        LOGGER.warning("no Ray cluster runs here: one is started on this machine, for this run")
        ray.init(address="local", include_dashboard=False, **quiet)


def _room(threads: int, gpus: int) -> int:
    """How many workers a cluster has room for. ``InputError``: for none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    room = sum(int(min(node.get("CPU", 0) // threads, node.get("GPU", 0) if gpus else inf)) for node in nodes)
    if not room:
        needs = f"{threads} CPU{'s' * (threads > 1)}{' and a GPU' * gpus}"
        raise InputError(
            f"no machine of the Ray cluster has {needs} for a worker: lower {option('threads')}, or add machines"
        )
    return room
