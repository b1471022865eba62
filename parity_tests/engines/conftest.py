"""Fixtures that several tests of engines share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lxmert_export as lx
from parity_tests.engines.stand_in_library import StandIn, stand_in
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY


@pytest.fixture
def library(tmp_path: Path) -> Iterator[StandIn]:
    with stand_in(tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def graph(exports: Exports) -> lx.Artifact:
    """An fp16 ONNX artifact to build engines from."""
    return exports.lively("onnx", "question-answering", TINY, precision="fp16")
