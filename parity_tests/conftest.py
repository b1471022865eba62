"""What every test of the suite runs under."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.engines.library import prepare_polygraphy
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

# Polygraphy decides as it is first imported, by whichever test comes first, which TensorRT it speaks to.
prepare_polygraphy()
# Tests run two at a time on two cores: more threads in each would only wait for one another.
torch.set_num_threads(1)


# What the tests of a folder need, and those that use a fixture; other tests say it themselves.
FOLDERS = {"tensorflow": "tensorflow"}
FIXTURES = {"oracle_python": "oracle", "browser": "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with what it needs."""
    for item in items:
        folder = item.path.parent.name
        needs = {FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES}
        for need in {*needs, *([FOLDERS[folder]] if folder in FOLDERS else [])}:
            item.add_marker(need)


def pytest_collection_finish() -> None:
    """Takes what all test modules have imported out of garbage collection, which would go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Artifacts that are made once for all tests."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    place.mkdir(exist_ok=True)
    return Exports(place)


@pytest.fixture(scope="session")
def oracle_python() -> str:
    """The interpreter of the environment with transformers 4.57.6; without it a test fails, for a set-up step is missing."""
    beside = Path(__file__).parent.parent / ".venv-tf" / "bin" / "python"
    path = Path(os.environ.get("LXMERT_TF_ORACLE_PYTHON", beside))
    assert path.is_file(), f"{path} is not there: 'make test' sets it up"
    return str(path)


@pytest.fixture(scope="session")
def bundled_graph(exports: Exports) -> Artifact:
    """The ONNX artifact of ``bundle``."""
    return exports.lively("onnx", "pretraining", TINY)


@pytest.fixture(scope="session")
def bundle(bundled_graph: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """What a device builds and verifies an engine from."""
    place = tmp_path_factory.mktemp("bundle")
    return lx.build_engine(bundled_graph.path, place / "sent", compute_capability="8.9", bundle=True)
