"""Every planted fault that can be told from rounding must fail the gate; no sound export may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from torch import nn

from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE, Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.files.hashing import sha256
from lxmert_export.judging.artifact import JudgingRequest, judge_artifact
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import errors
from lxmert_export.reference.yardstick import run_floors, run_reference
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import sample_inputs
from lxmert_export.spec.signature import Precision, task_signature
from parity_tests.faults.onnx_faults import FILE_FAULTS, plant_in_file
from parity_tests.faults.torch_faults import FAULTS, WEIGHTS_ALONE
from parity_tests.fixtures.random_models import SMALL, lively_model

# One layer of each kind more than the least: a fault in one of two layers must show as well.
CONFIG = SMALL.replace(l_layers=2, x_layers=1, r_layers=1)
# A fault whose float64 effect is this many floors is one that the gate owes us.
DETECTABLE = 20.0
# Faults of a constant, of an operator, of what two operators share and of the order of modules, which conversion must not lose.
TRACED_ANEW = {"layer_norm_eps", "ignored_vision_mask", "untied_decoder", "sequential_cross_attention"}
LIMITS = InputLimits.of(CONFIG)
SIGNATURE = task_signature(CONFIG, "pretraining", object_heads=True)
SAMPLES = sample_inputs(SIGNATURE, CONFIG)


@dataclass(frozen=True)
class Planted:
    """A module with a fault, or without, and its float64 outputs."""

    module: nn.Module
    reference: Recording


@dataclass(frozen=True)
class Sound:
    """A sound file, and what it is judged by."""

    directory: Path
    reference: Recording
    floors: Floors
    precision: Precision


@pytest.fixture(scope="module")
def planted() -> Callable[[str | None], Planted]:
    """A model with the named fault; its float64 outputs are computed once for both precisions."""

    @cache
    def plant(fault: str | None) -> Planted:
        module = lively_model("pretraining", CONFIG)
        if fault is not None:
            FAULTS[fault](module)
        return Planted(module, run_reference(module, SIGNATURE, CONFIG, SAMPLES))

    return plant


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def sound(
    request: pytest.FixtureRequest, planted: Callable[[str | None], Planted], tmp_path_factory: pytest.TempPathFactory
) -> Sound:
    precision, found = request.param, planted(None)
    directory = tmp_path_factory.mktemp(f"sound-{precision}")
    convert_to_onnx(found.module, SIGNATURE, LIMITS, directory, precision=precision)
    floors = run_floors(found.module, SIGNATURE, CONFIG, SAMPLES, found.reference, precision)
    return Sound(directory, found.reference, floors, precision)


def judged(sound: Sound, directory: Path) -> ParityReport:
    manifest = Manifest("onnx", sound.precision, "pretraining", CONFIG, SIGNATURE, checkpoint={})
    artifact = Artifact(directory, manifest, name="planted")
    cells = judge_artifact(JudgingRequest(artifact, SAMPLES, sound.reference, sound.floors, (CPU,))).cells
    return ParityReport(tuple(cells))


def effect(sound: Sound, faulty: Recording) -> float:
    """The largest float64 effect of a fault, in floors, over all outputs and families."""
    return max(errors(chunks, faulty[key]).rms / sound.floors[key].rms for key, chunks in sound.reference.items())


def test_sound_file_passes(sound: Sound) -> None:
    assert judged(sound, sound.directory).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_the_source_module(
    sound: Sound, fault: str, planted: Callable[[str | None], Planted], tmp_path: Path
) -> None:
    """The faulty module's file is judged by the sound module.

    For most faults of the graph, which must be traced anew, the sound file is judged by the faulty module: a file that holds
    the fault is judged in ``test_fault_in_the_written_file``.
    """
    faulty = planted(fault)
    traced_anew = sound.precision == "fp32" and fault in TRACED_ANEW
    if fault not in WEIGHTS_ALONE and not traced_anew:
        expect(sound, fault, judged(replace(sound, reference=faulty.reference), sound.directory))
    else:
        convert_to_onnx(faulty.module, SIGNATURE, LIMITS, tmp_path, precision=sound.precision)
        expect(sound, fault, judged(sound, tmp_path))


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_fault_in_the_written_file(sound: Sound, fault: str, tmp_path: Path) -> None:
    plant_in_file(sound.directory / ONNX_FILE, tmp_path / ONNX_FILE, FILE_FAULTS[fault])
    before, after = (
        [sha256(place / name) for name in (ONNX_FILE, ONNX_DATA_FILE)] for place in (sound.directory, tmp_path)
    )
    assert before != after, "the fault changed no byte"
    expect(sound, fault, judged(sound, tmp_path))


@pytest.mark.parametrize("fault", FAULTS)
def test_which_faults_float64_can_tell(sound: Sound, fault: str, planted: Callable[[str | None], Planted]) -> None:
    assert (effect(sound, planted(fault).reference) >= DETECTABLE) == (fault not in UNDETECTABLE[sound.precision])


# Their largest float64 effect over all outputs and families, in floors, as measured here; all others have 20 or more.
UNDETECTABLE = {
    "fp32": {"fp16_overflow": 0.0},  # the same function: only fp16's range makes it a fault
    "fp16": {"gelu_tanh": 0.1, "layer_norm_eps": 0.01, "fp16_overflow": 0.0},
}


def expect(sound: Sound, fault: str, report: ParityReport) -> None:
    """Detectable faults fail, and so does fp16 overflow in fp16; in float32 the same change must not alarm."""
    if fault == "fp16_overflow":
        assert report.passed == (sound.precision == "fp32")
        if sound.precision == "fp16":
            emulated = [cell for cell in report.failures if cell.arithmetic == "emulated"]
            assert any(cell.reason == "NaN or infinity" for cell in emulated)
    elif fault not in UNDETECTABLE[sound.precision]:
        assert not report.passed


def test_plain_cpu_results_never_pass_alone(sound: Sound) -> None:
    report = judged(sound, sound.directory)
    alone = replace(report, cells=tuple(cell for cell in report.cells if cell.arithmetic == "cpu-fp32-arithmetic"))
    assert not alone.passed
