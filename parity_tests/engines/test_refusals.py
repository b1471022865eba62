"""What no engine is built of is refused in one line, before anything is converted; real inputs for the linter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import ENGINE_FILE, Artifact
from lxmert_export.errors import ArtifactError, ConfigError, ConversionError, InputError, MissingExtra
from parity_tests.engines.test_converter import built
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.missing_modules import run_without
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.stress_models import outlier_model, rescale_residual_stream


def test_what_fp16_does_not_bear_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    """Weights of a residual stream beyond fp16's range: the gate was skipped, the linter sees it."""
    model = outlier_model("question-answering", TINY)
    rescale_residual_stream(model, 2.0**14)
    graph = lx.export("onnx", model, tmp_path / "graph", precision="fp16", parity=False)
    with pytest.raises(ConversionError, match="activation-overflow: .* beyond fp16's 65504; --fp32-islands auto"):
        built(graph.path, tmp_path / "out")


def real_inputs(file: Path, *, largest: float, rows: int = 3) -> Path:
    """A file as a user has it: features of ordinary size, or larger."""
    generator = np.random.default_rng(0)
    arrays = {
        "input_ids": generator.integers(1, TINY.vocab_size, (rows, 6)),
        "visual_feats": (generator.uniform(-largest, largest, (rows, 5, TINY.visual_feat_dim))).astype(np.float32),
        "visual_pos": generator.uniform(0, 1, (rows, 5, 4)).astype(np.float32),
    }
    np.savez(file, **arrays)
    return file


def test_the_linter_measures_ranges_on_inputs_of_the_users_own(graph: Artifact, tmp_path: Path) -> None:
    """Features of a hundred thousand overflow the projection that reads them; drawn ones do not."""
    calm, wild = (real_inputs(tmp_path / f"{size:g}.npz", largest=size) for size in (1, 1e5))
    engine = built(graph.path, tmp_path / "calm", calibration=calm)
    assert engine.manifest.options["lint_inputs"] == "1.npz"
    with pytest.raises(ConversionError, match=r"numbers in fp16: error: activation-overflow: .* beyond fp16's 65504"):
        built(graph.path, tmp_path / "wild", calibration=wild)
    with pytest.raises(InputError, match="no such file; calibration inputs are"):
        built(graph.path, tmp_path / "out", calibration=tmp_path / "none.npz")
    with pytest.raises(
        ConversionError, match="calibration: only the fp16 linter and int8 use it, and this engine is fp32"
    ):
        built(lively_model("question-answering", TINY), tmp_path / "out", calibration=calm)
    assert not (tmp_path / "out").exists() and not (tmp_path / "wild").exists()


def test_inspect_lints_without_building(graph: Artifact, exports: Exports, tmp_path: Path) -> None:
    """An fp16 artifact as it is, a float32 one as it would be in fp16; bf16 and checkpoints are refused."""
    wild = str(real_inputs(tmp_path / "wild.npz", largest=1e5))
    float32 = exports.lively("onnx", "question-answering", TINY)
    for path in (graph.path, float32.path):
        found = run("inspect", str(path), "--lint", "--json", cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert not [finding for finding in json.loads(found.stdout)["lint"] if finding["severity"] == "error"]
        found = run("inspect", str(path), "--lint", "--calibration", wild, cwd=tmp_path)
        assert "fp16 lint      error: activation-overflow: " in found.stdout
    half = exports.lively("onnx", "question-answering", TINY, precision="bf16")
    refused = run("inspect", str(half.path), "--lint", cwd=tmp_path)
    assert (
        refused.returncode == 1
        and "is bf16 onnx; the fp16 linter reads ONNX artifacts of fp16 or fp32" in refused.stderr
    )
    assert run("inspect", "demo", "--lint", cwd=tmp_path).returncode == 2


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "precision": ({"precision": "bf16"}, ConversionError, "is fp16, and an engine has its ONNX graph's precision"),
    "onnx option": ({"attentions": True}, ConversionError, "attentions cannot be changed in an ONNX artifact"),
    "orin": ({"target": "orin-jp6"}, MissingExtra, "needs the extra 'tensorrt': sudo apt-get install .* --bundle"),
    "range": ({"batch": ["8:4:1"]}, ConfigError, "min above opt"),
    "no range": ({"text": ["many"]}, ConfigError, "must be min:opt:max"),
    "long text": ({"text": ["1:20:9999"]}, ConfigError, "beyond the position table"),
    "strip": ({"options": lx.BuildOptions(strip=True)}, ConversionError, "--target rtx refuses --strip"),
}


@pytest.mark.parametrize(("options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_one_line(
    options: dict[str, Any], error: type[Exception], message: str, graph: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as told:
        lx.build_engine(graph.path, tmp_path / "out", **options)
    assert "\n" not in str(told.value) and not any(tmp_path.iterdir())


def test_what_is_no_onnx_artifact_is_refused(graph: Artifact, tmp_path: Path) -> None:
    engine = built(graph.path, tmp_path / "engine")
    with pytest.raises(ArtifactError, match="is a tensorrt artifact; an engine is built from a checkpoint or an ONNX"):
        built(engine.path, tmp_path / "out")
    with pytest.raises(ArtifactError, match="exists already"):
        built(graph.path, tmp_path / "engine")
    engine.file(ENGINE_FILE).write_bytes(b"tampered" * 100)
    with pytest.raises(ArtifactError, match=r"model\.engine has 800 bytes instead of"):
        lx.verify(engine.path)


def test_a_runtime_that_is_not_installed_is_named(graph: Artifact, tmp_path: Path) -> None:
    found = run_without(("tensorrt_rtx",), "tensorrt", str(graph.path), "-o", "out", cwd=tmp_path)
    assert found.returncode == 1 and "pip install 'tensorrt-rtx>=1.7,<2' 'polygraphy>=0.53'" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("named", [True, False], ids=["named", "default name"])
@pytest.mark.parametrize("bundle", [False, True], ids=["engine", "bundle"])
def test_what_exists_is_refused_before_anything_is_converted(
    bundle: bool, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lxmert_export.exporting.write.write_artifact", lambda *arguments, **options: pytest.fail("converted")
    )
    lx.save_checkpoint(lively_model("question-answering", TINY), "small")
    final = f"small-question-answering-tensorrt{'-bundle' if bundle else ''}-fp16"
    taken = Path(f"{final}.tar.gz" if bundle else final)
    taken.write_text("another") if bundle else taken.mkdir()
    with pytest.raises(ArtifactError, match=f"{taken.name}: exists already"):
        lx.build_engine("small", final if named else None, precision="fp16", bundle=bundle)
    assert {path.name for path in tmp_path.iterdir()} == {"small", taken.name}
