"""The report of a bench: every call, the figures made of them, and whether all contestants answer the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lxmert_export.benching.agreement import Agreement
from lxmert_export.benching.figures import Interval, Latency, interval_of, latency_of, speed_of
from lxmert_export.benching.matmul import OPERATIONS
from lxmert_export.benching.settings import Setting
from lxmert_export.benching.turns import Call
from lxmert_export.benching.workload_run import WorkloadResult, WorkloadRun

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT_VERSION = 1
SCHEMA = "benching/bench.schema.json"


@dataclass(frozen=True)
class Entrant:
    """A contestant as the report lists it.

    ``startup_seconds``: from the start of its process until it was open. ``peak_bytes``: the most memory that its process held.
    """

    facts: Mapping[str, Any]
    startup_seconds: float
    peak_bytes: int

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.facts["name"])

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {**self.facts, "startup_seconds": self.startup_seconds, "peak_bytes": self.peak_bytes}


@dataclass(frozen=True)
class MatmulRate:
    """The machine's float32 matrix products at a setting, in the same rounds: operations a second."""

    setting: Setting
    rate: Interval

    @classmethod
    def of(cls, setting: Setting, seconds: Sequence[float]) -> Self:
        """Returns the rate of products that took so long."""
        return cls(setting, interval_of([OPERATIONS / one for one in seconds]))

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {**self.setting.sizes, "operations_a_second": asdict(self.rate)}


@dataclass(frozen=True)
class Result:
    """One contestant at one setting.

    | field | meaning |
    |---|---|
    | ``calls_ms`` | milliseconds of each timed call, in the order of the rounds |
    | ``first_call_ms`` | the first call at this setting, before the warm-up: a compiler compiles then |
    | ``speed`` | how many times as fast as the first contestant: the median of the rounds' ratios, with its interval |
    | ``rows_a_second`` | batch ÷ median latency |
    | ``busy_cores`` | CPU seconds of all its threads ÷ seconds of its calls |
    | ``operations`` | floating-point operations of a call, counted in its file |
    | ``matmul_share`` | its operations a second ÷ those of the machine's matrix products at this setting |
    """

    setting: Setting
    name: str
    calls_ms: tuple[float, ...]
    first_call_ms: float
    latency: Latency
    speed: Interval
    rows_a_second: float
    busy_cores: float
    agreement: Agreement
    operations: int | None = None
    matmul_share: float | None = None

    @classmethod
    def of(
        cls,
        setting: Setting,
        name: str,
        calls: Sequence[Call],
        first: Sequence[float],
        agreement: Agreement,
        *,
        first_call: float,
        operations: int | None,
        rate: MatmulRate,
    ) -> Self:
        """Makes the figures of a contestant's calls; ``first``: seconds of the first contestant's calls, round by round."""
        seconds = [call.seconds for call in calls]
        latency = latency_of([1000 * one for one in seconds])
        return cls(
            setting, name, tuple(1000 * one for one in seconds), 1000 * first_call, latency, speed_of(first, seconds),
            rows_a_second=1000 * setting.batch / latency.p50,
            busy_cores=sum(call.cpu_seconds for call in calls) / sum(seconds),
            agreement=agreement,
            operations=operations,
            matmul_share=None if operations is None else 1000 * operations / latency.p50 / rate.rate.median,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {
            "contestant": self.name,
            **self.setting.sizes,
            "latency_ms": asdict(self.latency),
            "first_call_ms": self.first_call_ms,
            "speed": asdict(self.speed),
            "rows_a_second": self.rows_a_second,
            "busy_cores": self.busy_cores,
            "operations": self.operations,
            "matmul_share": self.matmul_share,
            "agreement": {**asdict(self.agreement), "agrees": self.agreement.agrees},
            "calls_ms": list(self.calls_ms),
        }


@dataclass(frozen=True)
class BenchReport:
    """All contestants at all settings. ``passed``: all answer as the first one does.

    ``machine``: processor, cores, system, versions, date. ``method``: rounds, warm-up, rest, threads. ``matmul``: the machine's
    own rate at each setting. ``notes``: what was not run, and why. ``workload``: how all answered it; None: none was given.
    """

    machine: Mapping[str, Any]
    method: Mapping[str, Any]
    task: str
    entrants: tuple[Entrant, ...]
    results: tuple[Result, ...]
    matmul: tuple[MatmulRate, ...]
    notes: tuple[str, ...] = ()
    workload: WorkloadRun | None = None

    @property
    def settings(self) -> list[Setting]:
        """The settings, in their order."""
        return list(dict.fromkeys(result.setting for result in self.results))

    @property
    def disagreeing(self) -> list[tuple[str, str, Agreement]]:
        """The contestants that answer something else than the first one: their names, where, and what differs."""
        answered: list[tuple[str, Result | WorkloadResult]] = [(str(result.setting), result) for result in self.results]
        answered += [] if self.workload is None else [("the workload", result) for result in self.workload.results]
        return [(one.name, where, one.agreement) for where, one in answered if not one.agreement.agrees]

    @property
    def passed(self) -> bool:
        """Whether every contestant answers as the first one does, everywhere."""
        return bool(self.results) and not self.disagreeing

    def at(self, setting: Setting) -> list[Result]:
        """Returns the results at a setting, in the order of the contestants."""
        return [result for result in self.results if result.setting == setting]

    def summary(self) -> str:
        """One line: who answers something else, or who is the fastest at each setting."""
        if self.disagreeing:
            name, _, agreement = self.disagreeing[0]
            return f"{name} answers something else than {self.entrants[0].name}: {difference(agreement)}"
        by_setting = "; ".join(f"{setting}: {self._fastest(setting)}" for setting in self.settings)
        if len(self.entrants) == 1:
            return by_setting
        both = "both" if len(self.entrants) == 2 else f"all {len(self.entrants)}"
        return f"{both} answer the same, within their limits; {by_setting}"

    def _fastest(self, setting: Setting) -> str:
        """Who is the fastest at a setting, if its interval says so."""
        first, *others = self.at(setting)
        fastest = min((first, *others), key=lambda result: result.latency.p50)
        if not others:
            return f"{first.name} takes {first.latency.p50:.3g} ms"
        if fastest is first:
            return f"{first.name} is the fastest, {first.latency.p50:.3g} ms"
        if fastest.speed.low <= 1:
            return f"none is clearly faster than {first.name}, {first.latency.p50:.3g} ms"
        gain = f"{fastest.speed.median:.2f} times as fast as {first.name}"
        return f"{fastest.name} is the fastest, {fastest.latency.p50:.3g} ms, {gain}"

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON values; ``bench.schema.json`` describes them."""
        return {
            "format": FORMAT_VERSION,
            "passed": self.passed,
            "summary": self.summary(),
            "task": self.task,
            "machine": dict(self.machine),
            "method": dict(self.method),
            "contestants": [entrant.to_dict() for entrant in self.entrants],
            "results": [result.to_dict() for result in self.results],
            "matmul": [rate.to_dict() for rate in self.matmul],
            "workload": None if self.workload is None else self.workload.to_dict(),
            "notes": list(self.notes),
        }


def difference(agreement: Agreement) -> str:
    """What an agreement found, for a line of text."""
    if agreement.fault is not None:
        return f"{agreement.output} {agreement.fault}"
    return (
        f"{agreement.output} differs by up to {agreement.largest:.2g}; the RMS difference is {agreement.share:.2g} of "
        f"the output's RMS, and {agreement.limit:g} is allowed"
    )
