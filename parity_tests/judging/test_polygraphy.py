"""Polygraphy as a second opinion: it judges our golden files, its inputs judge our artifacts, and our runners are its own."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lxmert_export as lx
from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.artifact.golden import read_golden
from lxmert_export.engines.library import prepare_polygraphy
from lxmert_export.files.array_files import read_batches
from lxmert_export.spec.sample_inputs import FAMILY_KINDS
from parity_tests.faults.onnx_faults import one_weight_changed, plant_in_file
from parity_tests.fixtures.checking import check_here, judging_here
from parity_tests.fixtures.command import Done, refused, run
from parity_tests.fixtures.random_models import SMALL, lively_model

# Of 8 rows with 8 words each, the word logits of 150 words are more than a golden file keeps; with 6 words they are not.
CONFIG = SMALL.replace(l_layers=1, x_layers=1, r_layers=1, vocab_size=150)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an artifact, its checkpoint, its golden file as Polygraphy's, and a faulty graph of the same names."""
    place = tmp_path_factory.mktemp("place")
    lx.save_checkpoint(lively_model("pretraining", CONFIG), place / "checkpoint")
    lx.export("onnx", place / "checkpoint", place / "artifact")
    plant_in_file(place / "artifact" / ONNX_FILE, place / "faulty" / ONNX_FILE, one_weight_changed)
    done = run("verify", "artifact", "--polygraphy", "golden files", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "wrote golden files: sh 'golden files/check.sh' artifact/model.onnx" in done.stderr
    left_out = "prediction_logits: left out of these families, where the golden file keeps only samples of it: "
    assert left_out in " ".join(done.stderr.split())
    return place


def batches_of(family: str) -> int:
    """Two, of different lengths; and in some families a row alone."""
    return 3 if FAMILY_KINDS[family].row_alone else 2


def check(place: Path, model: str) -> Done:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        ["sh", "golden files/check.sh", f"{model}/{ONNX_FILE}"],
        capture_output=True, text=True, cwd=place, env={**os.environ, "PATH": path}, check=False,
    )  # fmt: skip


def test_polygraphy_agrees_on_a_sound_artifact(place: Path) -> None:
    done = check(place, "artifact")
    assert done.returncode == 0, done.stdout + done.stderr
    artifact = json.loads((place / "artifact" / "manifest.json").read_text())
    compared = done.stdout.count("Comparing Output: ")
    families, batches, outputs = 7, sum(map(batches_of, FAMILY_KINDS)), len(artifact["signature"]["outputs"])
    too_large = 6  # the first batch of each family but two-tokens
    assert compared == batches * outputs - too_large
    assert done.stdout.count("Pass Rate: 100.00%") == families


def test_polygraphy_sees_a_fault(place: Path) -> None:
    done = check(place, "faulty")
    assert done.returncode != 0
    assert "Mismatched outputs: " in done.stdout + done.stderr


def test_the_files_hold_what_the_golden_file_holds(place: Path) -> None:
    signature = lx.Manifest.from_dict(json.loads((place / "artifact" / "manifest.json").read_text())).signature
    golden = read_golden(place / "artifact" / "golden.safetensors", signature)
    for family in golden.samples.families:
        read = read_batches(place / "golden files" / f"{family.name}.inputs.json", "inputs")
        assert len(read) == len(family.batches) == batches_of(family.name)
        for got, wanted in zip(read, family.batches, strict=True):
            assert got.keys() == wanted.keys()
            assert all(np.array_equal(got[n], wanted[n]) and got[n].dtype == wanted[n].dtype for n in wanted)


def test_what_cannot_be_written_is_refused_in_one_line(place: Path, tmp_path: Path) -> None:
    refused(run("verify", "artifact", "--polygraphy", "golden files", cwd=place), "exists already; name another")
    lx.export("onnx", place / "checkpoint", tmp_path / "unjudged", parity=False)
    refused(run("verify", "unjudged", "--polygraphy", "out", cwd=tmp_path), "has no golden file")
    assert not (tmp_path / "out").exists()


def test_inputs_that_polygraphy_saved_judge_artifacts(place: Path) -> None:
    inputs = place / "golden files" / "ragged.inputs.json"
    arguments = ("artifact", "--checkpoint", "checkpoint", "--inputs", str(inputs), "--no-laws", "--json", "-")
    with judging_here():
        done = run("parity", *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    own = [cell for cell in json.loads(done.stdout)["cells"] if cell["family"] == "own"]
    assert len(own) == 3 and all(cell["status"] == "pass" and cell["samples"] == 16 for cell in own)
    # Both batches, which differ in their lengths, and every value: nothing is sampled here.
    assert next(c for c in own if c["output"] == "prediction_logits")["values"] == 8 * (8 + 6) * CONFIG.vocab_size


def npy(array: np.ndarray) -> dict[str, str]:
    stream = io.BytesIO()
    np.save(stream, array)
    return of_bytes(stream.getvalue())


def claiming(shape: tuple[int, ...]) -> dict[str, str]:
    """An array of 16 bytes whose header says otherwise."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return of_bytes(stream.getvalue() + bytes(16))


def of_bytes(content: bytes) -> dict[str, str]:
    return {"polygraphy_class": "ndarray", "array": base64.b64encode(content).decode()}


class Planted:
    """Would leave a file behind if anything unpickled it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def torch_tensor() -> dict[str, str]:
    stream = io.BytesIO()
    torch.save(torch.ones(2), stream)
    return {"polygraphy_class": "Tensor", "tensor": base64.b64encode(stream.getvalue()).decode()}


@pytest.mark.parametrize(
    ("stored", "saying"),
    [
        ([], "not a list of named arrays"),
        (["input_ids"], "not a list of named arrays"),
        ({"polygraphy_class": "RunResults", "lst": []}, "not a list of named arrays"),
        ([{"input_ids": [1, 2]}], "input_ids is not a numpy array"),
        ([{"input_ids": torch_tensor()}], "input_ids is not a numpy array"),
        ([{"input_ids": npy(np.array([Planted()], dtype=object))}], "input_ids holds Python objects"),
        ([{"input_ids": of_bytes(b"PK\x03\x04 an archive")}], "input_ids does not hold a .npy file"),
        ([{"input_ids": of_bytes(b"\x80\x04 a pickle")}], "input_ids does not hold a .npy file"),
        ([{"input_ids": {"polygraphy_class": "ndarray", "array": "é"}}], "cannot be read as inputs"),
        ([{"input_ids": claiming((10**14,))}], "cannot be read as inputs"),
        ([{"words": npy(np.ones((1, 2)))}], "holds words, which is neither an input nor an output"),
        ([{"visual_feats": npy(np.full((1, 2, 3), np.nan))}], "visual_feats holds NaN"),
        ([{"input_ids": npy(np.ones((1, 2), dtype=np.int64))}], "missing input visual_feats"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_inputs_that_are_none_are_refused_in_one_line(place: Path, stored: Any, saying: str, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text(json.dumps(stored))
    with pytest.raises(lx.InputError) as caught:
        check_here(
            [place / "artifact"], checkpoint=place / "checkpoint", inputs=tmp_path / "inputs.json", time_limit=None
        )
    assert saying in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "null"])
def test_inputs_that_are_no_json_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(lx.InputError, match="cannot be read as inputs"):
        read_batches(tmp_path / "inputs.json", "inputs")


@pytest.mark.parametrize(("graph", "agrees"), [("artifact", True), ("faulty", False)])
def test_an_artifact_is_a_runner_of_polygraphys(place: Path, graph: str, agrees: bool) -> None:
    prepare_polygraphy()
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator, SimpleCompareFunc

    from lxmert_export.runners.polygraphy_runner import ArtifactRunner

    ours = ArtifactRunner(place / "artifact", name="ours")
    theirs = OnnxrtRunner(SessionFromOnnx(str(place / graph / ONNX_FILE)), name="theirs")
    batches = read_batches(place / "golden files" / "plain.inputs.json", "inputs")
    results = Comparator.run([ours, theirs], data_loader=batches)
    assert [len(iterations) for _, iterations in results.items()] == [batches_of("plain")] * 2
    # The same graph in the same runtime: what differs is the order of threads, if anything.
    compared = Comparator.compare_accuracy(results, compare_func=SimpleCompareFunc(atol=1e-5, rtol=1e-5))
    assert bool(compared) is agrees
    with ours, pytest.raises(lx.InputError):
        ours.infer({**batches[0], "input_ids": batches[0]["input_ids"] + CONFIG.vocab_size})


BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_of_the_docs_runs_with_its_data_loader(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_polygraphy()
    page = Path(__file__).parents[2] / "docs" / "polygraphy.md"
    loader, example = BLOCK.findall(page.read_text(encoding="utf-8"))
    (place / "real_inputs.py").write_text(loader)
    for name in ("fp32", "saved"):
        (place / name).symlink_to(place / "artifact")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    exec(compile(example, str(page), "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "True"


def test_polygraphys_own_inputs_are_refused(place: Path) -> None:
    """Their masks hold fractions."""
    prepare_polygraphy()
    from polygraphy.common import TensorMetadata
    from polygraphy.comparator import Comparator, DataLoader

    from lxmert_export.runners.polygraphy_runner import ArtifactRunner

    shapes = {"input_ids": (1, 4), "visual_feats": (1, 3, 16), "visual_pos": (1, 3, 4)}
    masks = {"attention_mask": (1, 4), "token_type_ids": (1, 4), "visual_attention_mask": (1, 3)}
    specs = {**shapes, **masks}
    whole = {"input_ids", "attention_mask", "token_type_ids"}
    ranges = dict.fromkeys(specs, (0, 1))
    metadata = TensorMetadata()
    for name, shape in specs.items():
        metadata.add(name, dtype=np.int64 if name in whole else np.float32, shape=shape)
    drawn = DataLoader(input_metadata=metadata, val_range=ranges, iterations=1)
    with pytest.raises(lx.InputError, match="visual_attention_mask holds 0.*; a mask holds 1 for what is seen"):
        Comparator.run([ArtifactRunner(place / "artifact", name="ours")], data_loader=drawn)
