"""`--optimize-for cpu`: the manifest carries session settings, and the runner applies those of the installed onnxruntime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import lxmert_export as lx
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.artifact.session_settings import (
    CPU_SETTINGS,
    LOWEST_KNOWN,
    SessionSetting,
    carried_settings,
    chosen_settings,
    session_line,
)
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.runners.onnx import session
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest
from parity_tests.fixtures.random_models import TINY, lively_model

pytestmark = pytest.mark.quick
TASK = "question-answering"
NO_SKIP = {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}


@pytest.fixture
def optimized(exports: Exports) -> Artifact:
    return exports.lively("onnx", TASK, TINY, optimize_for="cpu")


@pytest.mark.parametrize(
    ("version", "chosen"),
    [
        ("1.23.0", {}),
        ("1.29.9", {}),
        ("1.30.0", NO_SKIP),
        ("1.30.0rc1", NO_SKIP),
        ("1.32.0+cpu", NO_SKIP),
        ("2.0", NO_SKIP),
    ],
)
def test_the_version_of_onnxruntime_chooses(version: str, chosen: dict[str, str]) -> None:
    assert chosen_settings(CPU_SETTINGS, version) == chosen


def test_a_row_ends_before_a_version() -> None:
    row = SessionSetting("key", "value", first="1.28", end="1.30")
    assert [row.helps(version) for version in ("1.27.2", "1.28", "1.29.1", "1.30.0", "1.100")] == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_the_manifest_carries_the_table_and_the_runner_applies_it(
    optimized: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert carried_settings(open_artifact(optimized.path).manifest.options) == list(CPU_SETTINGS)
    given: list[dict[str, str]] = []
    opened = session.open_session
    monkeypatch.setattr(
        session,
        "open_session",
        lambda *a, settings=None, **k: (given.append(settings), opened(*a, settings=settings, **k))[1],
    )
    for version, chosen in (("1.29.0", {}), ("1.32.0", NO_SKIP)):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        lx.load_artifact(optimized.path).close()
        assert given.pop() == chosen


def test_without_the_option_nothing_is_set(exports: Exports) -> None:
    plain = exports.lively("onnx", TASK, TINY)
    assert session.session_settings(plain) == {} and "optimize_for" not in plain.manifest.options


def test_the_setting_takes_the_fusion_out(optimized: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held to onnxruntime's own optimised graph: an unknown key would be ignored without a word."""
    options, kinds = onnxruntime.SessionOptions, []
    for settings in ({}, NO_SKIP):
        file = tmp_path / f"optimized-{len(settings)}.onnx"

        def saving(file: Path = file) -> Any:
            made = options()
            made.optimized_model_filepath, made.log_severity_level = str(file), 3
            return made

        monkeypatch.setattr(onnxruntime, "SessionOptions", saving)
        session.open_session(optimized.file("model.onnx"), ("CPUExecutionProvider",), True, settings=settings)
        kinds.append(b"SkipLayerNormalization" in file.read_bytes())
    assert kinds == [True, False]


def test_an_onnxruntime_too_old_is_one_line(optimized: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    with pytest.raises(ArtifactError, match=f"are known for onnxruntime {LOWEST_KNOWN} and later, and 1.22.1 is"):
        lx.load_artifact(optimized.path)


def test_reports_and_inspect_show_the_choice(optimized: Artifact) -> None:
    report = check_here([optimized.path])
    assert report.passed
    (setting,) = report.runners[0].settings
    assert setting.startswith("optimization.disable_specified_optimizers=SkipLayerNormFusion (onnxruntime 1.")
    shown = dict(summary_rows(inspect_artifact(optimized.path)))["session line"]
    assert shown.startswith(session_line(CPU_SETTINGS[0])) and shown.endswith("(onnxruntime 1.30 or later)")
    options = onnxruntime.SessionOptions()
    exec(session_line(CPU_SETTINGS[0]), {"options": options})
    assert options.get_session_config_entry("optimization.disable_specified_optimizers") == "SkipLayerNormFusion"


def test_it_is_for_float32_onnx(tmp_path: Path) -> None:
    model = lively_model(TASK, TINY)
    for target, options in (("onnx", {"precision": "fp16"}), ("tensorflow", {})):
        with pytest.raises(ConversionError, match="optimize_for: not an option of"):
            lx.export(target, model, tmp_path / "out", optimize_for="cpu", **options)  # type: ignore[arg-type]
    with pytest.raises(ConversionError, match="unknown optimize_for 'gpu'; choose from cpu"):
        lx.export("onnx", model, tmp_path / "out", optimize_for="gpu")
    assert run("onnx", "demo", "--optimize-for", "gpu", cwd=tmp_path).returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["key", "value"])
def test_a_strangers_manifest_hands_onnxruntime_no_other_setting(
    field: str, optimized: Artifact, tmp_path: Path
) -> None:
    """Some of its settings name files that it reads or writes."""
    directory = shutil.copytree(optimized.path, tmp_path / "out")
    row = {**CPU_SETTINGS[0].to_dict(), field: "session.model_external_initializers_file_folder_path"}
    edit_manifest(directory, options={**optimized.manifest.options, "session_settings": [row]})
    with pytest.raises(ArtifactError, match=f"session_settings.*{field}"):
        open_artifact(directory)
