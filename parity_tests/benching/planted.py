"""Contestants with planted faults. They stand in a module that a contestant's process can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lxmert_export.benching.contestants import Contestant
from lxmert_export.errors import ArtifactError
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Precision, Signature

Fault = Literal[
    "none", "other answers", "NaN", "other shape", "missing output", "crash", "exit", "hang", "error", "cannot open"
]


@dataclass(frozen=True)
class OpensPlanted:
    """Opens a runner that answers by a formula, with a fault."""

    signature: Signature
    limits: InputLimits
    fault: Fault = "none"

    def __call__(self, threads: int) -> Runner:
        if self.fault == "cannot open":
            raise ArtifactError("its file is damaged: export it again")
        return Planted("planted", self.signature, self.limits, self.fault, threads)


class Planted(Runner):
    """Its one output holds the mean of each row's features, times the number of threads that it was told of."""

    failures = (FloatingPointError,)

    def __init__(self, name: str, signature: Signature, limits: InputLimits, fault: Fault, threads: int) -> None:
        super().__init__(name, signature, limits)
        self._fault, self._threads = fault, threads

    def compute(self, inputs: Arrays) -> Arrays:
        values = inputs["visual_feats"].mean(axis=(1, 2))[:, None] * self._threads
        match self._fault:
            case "other answers":
                values = values[::-1] + 1
            case "NaN":
                values = values * np.nan
            case "other shape":
                values = values[:, 0]
            case "missing output":
                return {}
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os.write(1, b"my last words\n")
                os._exit(7)
            case "hang":
                time.sleep(3600)
            case "error":
                raise FloatingPointError("no kernel for this")
        return {"question_answering_score": values}


def planted(
    name: str, signature: Signature, limits: InputLimits, fault: Fault = "none", precision: Precision = "fp32"
) -> Contestant:
    """A contestant with a fault."""
    return Contestant(name, "artifact", "planted", precision, OpensPlanted(signature, limits, fault))
