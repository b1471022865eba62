"""Every planted fault that can be told from rounding must fail the gate; no sound export may."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
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
from lxmert_export.spec.sample_inputs import SampleInputs, sample_inputs
from lxmert_export.spec.signature import Precision, task_signature
from parity_tests.faults.onnx_faults import FILE_FAULTS, plant_in_file
from parity_tests.faults.torch_faults import FAULTS
from parity_tests.fixtures.random_models import SMALL, lively_model

# One layer of each kind more than the least: a fault in one of two layers must show as well.
CONFIG = SMALL.replace(l_layers=2, x_layers=1, r_layers=1)
# A fault whose float64 effect is this many floors is one that the gate owes us.
DETECTABLE = 20.0
LIMITS = InputLimits.of(CONFIG)
SIGNATURE = task_signature(CONFIG, "pretraining", object_heads=True)


@dataclass(frozen=True)
class Sound:
    """A sound model, its sound file, and what it is judged by."""

    module: nn.Module
    directory: Path
    samples: SampleInputs
    reference: Recording
    floors: Floors
    precision: Precision


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    precision = request.param
    module = lively_model("pretraining", CONFIG)
    directory = tmp_path_factory.mktemp(f"sound-{precision}")
    convert_to_onnx(module, SIGNATURE, LIMITS, directory, precision=precision)
    samples = sample_inputs(SIGNATURE, CONFIG)
    reference = run_reference(module, SIGNATURE, CONFIG, samples)
    floors = run_floors(module, SIGNATURE, CONFIG, samples, reference, precision)
    return Sound(module, directory, samples, reference, floors, precision)


def judged(sound: Sound, directory: Path) -> ParityReport:
    manifest = Manifest("onnx", sound.precision, "pretraining", CONFIG, SIGNATURE, checkpoint={})
    artifact = Artifact(directory, manifest, name="planted")
    cells = judge_artifact(JudgingRequest(artifact, sound.samples, sound.reference, sound.floors, (CPU,))).cells
    return ParityReport(tuple(cells))


def effect(sound: Sound, faulty: nn.Module) -> float:
    """The largest float64 effect of a fault, in floors, over all outputs and families."""
    computed = run_reference(faulty, SIGNATURE, CONFIG, sound.samples)
    return max(errors(chunks, computed[key]).rms / sound.floors[key].rms for key, chunks in sound.reference.items())


def test_sound_file_passes(sound: Sound) -> None:
    assert judged(sound, sound.directory).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_the_source_module(sound: Sound, fault: str, tmp_path: Path) -> None:
    faulty = copy.deepcopy(sound.module)
    FAULTS[fault](faulty)
    convert_to_onnx(faulty, SIGNATURE, LIMITS, tmp_path, precision=sound.precision)
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
def test_which_faults_float64_can_tell(sound: Sound, fault: str) -> None:
    faulty = copy.deepcopy(sound.module)
    FAULTS[fault](faulty)
    assert (effect(sound, faulty) >= DETECTABLE) == (fault not in UNDETECTABLE[sound.precision])


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
