"""What every test of the suite runs under."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

import converters.to_onnx
import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.engines.library import prepare_polygraphy
from lxmert_export.runners.onnx.cuda.opening import lacks_gpu
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY
from parity_tests.fixtures.traces import SharedTraces

# Polygraphy decides as it is first imported, by whichever test comes first, which TensorRT it speaks to.
prepare_polygraphy()
# torch remembers what each operator does to each shape. Small networks repeat few of them: it costs a third of a trace.
torch._dynamo.config.fake_tensor_cache_enabled = False
# Tracing makes objects by the hundred thousand, which Python's collector goes through again and again: a fifth of an export.
gc.set_threshold(200_000, 20, 50)
# Tests run two at a time on two cores: more threads in each would only wait for one another.
torch.set_num_threads(1)


# What the tests of a folder or a file need, those that use a fixture, and those of a parameter whose name begins so. Other
# tests say it themselves.
FOLDERS = {"tensorflow": "tensorflow", "tflite": "tensorflow"}
FILES = {
    "artifact/test_awkward_names": "tensorflow",
    "artifact/test_damaged_models": "tensorflow",
    "benchmarks/test_study_slice": "tensorflow",
    "engines/test_before_a_build": "tensorrt",
    "engines/test_converter": "tensorrt",
    "engines/test_refusals": "tensorrt",
    "engines/test_runner": "tensorrt",
    "judging/test_artifacts_golden": "tensorflow",
    "judging/test_runners": "tensorflow",
    "project/test_errors": "tensorflow",
}
PARAMETERS = {"tensorflow": "tensorflow", "tflite": "tensorflow", "saved": "tensorflow", "keras": "tensorflow"}
FIXTURES = {"oracle_python": "oracle", "browser": "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with what it needs."""
    for item in items:
        folder, file = item.path.parent.name, f"{item.path.parent.name}/{item.path.stem}"
        given = getattr(getattr(item, "callspec", None), "params", {}).values()
        needs = {FIXTURES.get(name) for name in getattr(item, "fixturenames", ())} | {
            FOLDERS.get(folder),
            FILES.get(file),
        }
        needs |= {need for value in given for start, need in PARAMETERS.items() if str(value).startswith(start)}
        for need in needs - {None}:
            item.add_marker(str(need))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none; with one, what is missing is a failure that names it."""
    if item.get_closest_marker("gpu") is not None and lacks_gpu() is not None:
        pytest.skip("no GPU")


def pytest_collection_finish() -> None:
    """Takes what all test modules have imported out of garbage collection, which would go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def light_collection() -> Iterator[None]:
    """Takes what a module's tests leave behind out of garbage collection; TFLite's conversions collect each time."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this run that all worker processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def exports(shared_place: Path) -> Exports:
    """Artifacts that are made once for all tests."""
    place = shared_place / "exports"
    place.mkdir(exist_ok=True)
    return Exports(place)


@pytest.fixture(scope="session", autouse=True)
def shared_traces(shared_place: Path) -> Iterator[SharedTraces]:
    """Graphs that are traced once for all tests."""
    place = shared_place / "traces"
    place.mkdir(exist_ok=True)
    traces = SharedTraces(converters.to_onnx.trace, place)
    with mock.patch.object(converters.to_onnx, "trace", traces):
        yield traces


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
