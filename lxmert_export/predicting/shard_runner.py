"""Answers shards of questions with one open artifact and one open file of features."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import Artifact
from lxmert_export.data.pictures import PictureSource
from lxmert_export.predicting.job import Job, answers_of
from lxmert_export.predicting.output_formats import number_of
from lxmert_export.predicting.plan import Shard
from lxmert_export.predicting.read_ahead import ahead
from lxmert_export.predicting.shard_calls import Call, ShardCalls
from lxmert_export.runners.opening import answering_way
from lxmert_export.runners.runner import Runner, name_answers
from lxmert_export.spec.inputs import Arrays

if TYPE_CHECKING:
    from typing_extensions import Self

READERS = 2  # threads that read pictures
CALLS_AHEAD = 2  # whose inputs are made before the runtime asks for them; those of 32 questions have 9 MB


@dataclass(frozen=True)
class Answered:
    """The records of a shard's questions. ``cut``: how many questions were longer than the artifact takes."""

    number: int
    places: tuple[int, ...]
    records: list[str]
    cut: int


class ShardRunner:
    """One runner. A split artifact sees each picture (nlvr2: each pair) of a shard once."""

    def __init__(self, job: Job, artifact: Artifact, source: PictureSource) -> None:
        self._job, self._name, self._halves = job, str(artifact.path), artifact.halves
        self._output, self._labels = answers_of(artifact)
        threads = job.threads if artifact.runtime.threads else None
        _, open_one = answering_way(artifact, job.providers, threads=threads)
        self._runner: Runner = open_one()
        self._calls = ShardCalls(artifact, source, job.batch, lambda shapes: self._runner.pieces(shapes) is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def answer(self, shards: Iterable[Shard]) -> Iterator[Answered]:
        """Yields the answers of each shard in turn. The inputs of the next calls are made meanwhile, in threads.

        ``InputError``: a picture cannot be read. ``ArtifactError``: the runtime fails.
        """
        states: dict[int, NDArray[np.generic]] = {}  # of the looks of this shard
        records: dict[int, str] = {}
        with closing(ahead(self._made(shards), CALLS_AHEAD)) as calls:
            for call in calls:
                if call.sees:
                    states |= self._see(call)
                    continue
                records |= zip(call.rows, self._records(call, states), strict=True)
                if call.last:
                    shard = call.shard
                    yield Answered(shard.number, shard.places, [records[row] for row in range(len(records))], call.cut)
                    states, records = {}, {}

    def _made(self, shards: Iterable[Shard]) -> Generator[Call, None, None]:
        with ThreadPoolExecutor(READERS, "read-pictures") as readers:
            for shard in shards:
                yield from self._calls.of(shard, readers)

    def _see(self, call: Call) -> dict[int, NDArray[np.generic]]:
        """The states of some looks, each [pictures, objects, width]."""
        assert self._halves is not None
        states = self._runner.vision.run_in_pieces(call.inputs)[self._halves.states.name]
        states = states.reshape(len(call.looks), -1, *states.shape[1:])
        return dict(zip(call.rows, states[: len(call.rows)], strict=True))  # the looks behind them fill up the call

    def _records(self, call: Call, states: dict[int, NDArray[np.generic]]) -> Iterator[str]:
        """The records of a call's questions."""
        if self._halves is None:
            outputs = self._runner.run_in_pieces(call.inputs)
        else:
            objects = call.inputs["visual_attention_mask"].shape[-1]
            given: Arrays = {self._halves.states.name: _states_of([states[look] for look in call.looks], objects)}
            outputs = self._runner.question.run_in_pieces(call.inputs | given)
        scores = outputs[self._output][: len(call.rows)]
        for row, best in zip(call.rows, name_answers(scores, self._labels, self._name, top=self._job.top), strict=True):
            yield self._job.form.record(number_of(call.shard.questions[row], numeric=self._job.numeric_ids), best)


def _states_of(states: list[NDArray[np.generic]], objects: int) -> NDArray[np.generic]:
    """The states of a call's rows [rows × pictures, objects, width]; what is beyond a picture's objects is masked."""
    pictures, _, width = states[0].shape
    found = np.zeros((len(states), pictures, objects, width), states[0].dtype)
    for row, state in enumerate(states):
        found[row, :, : state.shape[1]] = state[:, :objects]
    return found.reshape(-1, objects, width)
