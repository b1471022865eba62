"""Fixtures that several tests of engines share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.engines.devices import install_line
from lxmert_export.engines.library import open_library
from lxmert_export.runners.tensorrt import engine as tensorrt_engine
from lxmert_export.runners.tensorrt.runtime_cache import SETTING
from parity_tests.engines.stand_in_library import StandIn
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY


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


@pytest.fixture(scope="session")
def graph(exports: Exports) -> lx.Artifact:
    """An fp16 ONNX artifact to build engines from."""
    return exports.lively("onnx", "question-answering", TINY, precision="fp16")
