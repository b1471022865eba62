"""Workers of a Ray cluster with a planted fault: they die, or hang, at the first shard of some number."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lxmert_export.errors import LxmertExportError
from lxmert_export.predicting.on_ray import Worker
from lxmert_export.predicting.plan import Shard
from lxmert_export.predicting.shard_runner import Answered

PLACE = "LXMERT_EXPORT_PLANTED"  # of the notes, in the environment of the cluster
SHARD = 2


def first_time(what: str) -> bool:
    """Whether this is the first time on any worker; a file notes it."""
    try:
        (Path(os.environ[PLACE]) / what).open("x").close()
    except FileExistsError:
        return False
    return True


class Dies(Worker):
    """Is killed half-way through a shard, once."""

    def answer(self, shard: Shard) -> Answered | LxmertExportError:
        """Answers half of it first."""
        if shard.number == SHARD and first_time("died"):
            half = len(shard.places) // 2
            super().answer(Shard(shard.number, shard.places[:half], shard.questions[:half]))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(shard)


class Hangs(Worker):
    """Never answers a shard, once."""

    def answer(self, shard: Shard) -> Answered | LxmertExportError:
        """Sleeps for an hour."""
        if shard.number == SHARD and first_time("hung"):
            time.sleep(3600)
        return super().answer(shard)


class SaysThatItOpens(Worker):
    """Has no fault; each worker leaves a note."""

    def open(self) -> LxmertExportError | None:
        """Leaves the note first."""
        first_time(f"opened by {os.getpid()}")
        return super().open()


class AlwaysDies(Worker):
    """Is killed by one shard, whichever worker takes it."""

    def answer(self, shard: Shard) -> Answered | LxmertExportError:
        """Kills itself."""
        if shard.number == SHARD:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(shard)
