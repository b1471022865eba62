"""Keras on another framework than TensorFlow, or no TensorFlow at all: one line that names the mend, and Keras left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lxmert_export.errors import ConversionError
from lxmert_export.extras import check_keras_backend
from parity_tests.fixtures.missing_modules import without

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "lxmert_export.cli"]
IMPORT = """
import sys
try:
    import converters.tensorflow_model
except Exception as error:
    print(type(error).__name__, error)
print("keras" in sys.modules)
"""
MEND = "set KERAS_BACKEND=tensorflow before Keras is first imported"


def run(
    *command: str | Path, cwd: Path, keras_home: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    variables |= {"PYTHONPATH": str(ROOT), "KERAS_HOME": str(keras_home or cwd), **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["jax", "numpy", "nonsense"])
def test_another_backend_is_refused_before_keras_is_imported(backend: str, tmp_path: Path) -> None:
    done = run(sys.executable, "-c", IMPORT, cwd=tmp_path, KERAS_BACKEND=backend)
    assert done.stdout == f"ConversionError Keras uses the backend {backend!r} (KERAS_BACKEND): {MEND}\nFalse\n"
    (tmp_path / "keras.json").write_text(json.dumps({"backend": backend}))
    done = run(sys.executable, "-c", IMPORT, cwd=tmp_path)
    assert (
        done.stdout
        == f"ConversionError Keras uses the backend {backend!r} ({tmp_path / 'keras.json'}): {MEND}\nFalse\n"
    )


@pytest.mark.parametrize("target", ["tensorflow", "tflite"])
def test_the_command_line_says_so_in_one_line(target: str, tmp_path: Path) -> None:
    home = tmp_path / "keras"
    done = run(*COMMAND, target, "demo", "-o", "out", cwd=tmp_path, keras_home=home, KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert done.stderr == f"error: Keras uses the backend 'jax' (KERAS_BACKEND): {MEND}\n"
    assert not list(tmp_path.iterdir())


def test_what_keras_would_run_on_tensorflow_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for content in ('{"backend": "tensorflow"}', '{"floatx": "float32"}', "no json"):
        (tmp_path / "keras.json").write_text(content)
        for backend in ("tensorflow", ""):  # Keras takes an empty variable for none
            monkeypatch.setenv("KERAS_BACKEND", backend)
            check_keras_backend()
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    with pytest.raises(ConversionError, match="'jax'"):
        check_keras_backend()
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # wins over the file, as in Keras
    check_keras_backend()


def test_keras_that_is_imported_already_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setenv("KERAS_BACKEND", "jax")  # too late to matter to Keras
    check_keras_backend()
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ConversionError, match=r"Keras uses the backend 'jax' \(imported already\)"):
        check_keras_backend()


def test_without_tensorflow_the_keras_models_name_the_pip_line(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", without("tensorflow") + IMPORT, cwd=tmp_path)
    assert (
        "MissingExtra building a Keras model needs the extra 'tensorflow': pip install 'lxmert-export[tensorflow]'"
        in (done.stdout)
    )
