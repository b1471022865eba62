"""The wheel and the sdist: built, installed into an empty environment without any extra, and run there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import lxmert_export
from parity_tests.fixtures.command import ROOT
from parity_tests.fixtures.exports import Exports

EXTRAS = ("torch", "onnx", "onnxruntime", "onnxscript", "h5py", "transformers", "PIL", "scipy")


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that holds the wheel and the core dependencies; bytecode is of what is imported alone."""
    environment = tmp_path_factory.mktemp("bare") / "environment"
    venv.create(environment, with_pip=False)
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    run(
        sys.executable, "-m", "pip", "--python", str(commands / "python"), "install", "--quiet", "--no-compile",
        "-c", str(ROOT / "constraints.txt"), str(wheel), cwd=environment,
    )  # fmt: skip
    return commands


@pytest.fixture(scope="module")
def artifact(exports: Exports) -> Path:
    return exports.demo("onnx", task="pretraining").path


def run(*command: str, cwd: Path, expected: int = 0) -> subprocess.CompletedProcess[str]:
    # Outside the checkout, whose packages must not be found in place of the installed ones.
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=clean, check=False)
    assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def test_what_the_wheel_holds(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("lxmert_export", "converters"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file()}
        files = {name for name in files if "__pycache__" not in name}
        assert {name for name in names if name.startswith(f"{package}/")} == files
    others = [name for name in names if not name.startswith(("lxmert_export/", "converters/"))]
    assert all(name.startswith("lxmert_export-") and ".dist-info/" in name for name in others), others
    assert any(name.endswith("LICENSE") for name in others)


def test_what_the_sdist_holds(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "lxmert_export/demo/config.json",
        "lxmert_export/demo/model.safetensors",
        "lxmert_export/demo/held_out.safetensors",
        "lxmert_export/training/train.py",
        "converters/to_onnx.py",
    } <= names


def test_the_bare_install_holds_no_extra(bare: Path, tmp_path: Path) -> None:
    code = "import importlib.util, sys; print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)), sep='\\n')"
    assert run(str(bare / "python"), "-c", code, "lxmert_export", *EXTRAS, cwd=tmp_path).stdout.split() == [
        "lxmert_export"
    ]
    run(sys.executable, "-m", "pip", "--python", str(bare / "python"), "check", cwd=tmp_path)


def test_the_bare_install_shows_its_help(bare: Path, tmp_path: Path) -> None:
    text = run(str(bare / "lxmert-export"), "--help", cwd=tmp_path).stdout
    for command in ("onnx", "convert", "parity", "verify", "inspect", "ask", "doctor"):
        assert re.search(rf"^\W*{command}\b", text, re.MULTILINE), text


def test_the_bare_install_gives_each_public_name_or_its_pip_line(bare: Path, tmp_path: Path) -> None:
    code = """
import lxmert_export, json
told = {}
for name in lxmert_export.__all__:
    try:
        getattr(lxmert_export, name)
        told[name] = None
    except lxmert_export.MissingExtra as error:
        told[name] = str(error)
print(json.dumps(told))
"""
    told = json.loads(run(str(bare / "python"), "-c", code, cwd=tmp_path).stdout)
    assert set(told) == set(lxmert_export.__all__)
    lacking = {name: line for name, line in told.items() if line}
    of_torch = {"LxmertModel", "LxmertForPreTraining", "LxmertForQuestionAnswering", "LxmertForNLVR2"}
    of_onnx = {"Finding", "lint_artifact", "lint_fp16", "lint_ranges"}
    assert set(lacking) == of_torch | of_onnx
    for name, line in lacking.items():
        assert f"pip install 'lxmert-export[{'torch' if name in of_torch else 'onnx'}]'" in line


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("onnx",), "torch"),
        (("convert", "demo", "--to", "hf", "-o", "out"), "torch"),
        (("inspect", "demo"), "torch"),
        (("verify", "ARTIFACT"), "onnx"),
        (("parity", "ARTIFACT"), "onnx"),
        (("parity", "ARTIFACT", "--checkpoint", "demo"), "torch"),
        (("ask", "ARTIFACT", "how many?", "--image", "gone.png"), "demo"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_bare_install_names_the_extra_it_needs(
    arguments: tuple[str, ...], extra: str, bare: Path, artifact: Path, tmp_path: Path
) -> None:
    given = [str(artifact) if argument == "ARTIFACT" else argument for argument in arguments]
    done = run(str(bare / "lxmert-export"), *given, cwd=tmp_path, expected=1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"pip install 'lxmert-export[{extra}]'" in done.stderr
    assert not any(tmp_path.iterdir())


STUB = """
import sys
from types import ModuleType
__version__, cuda_version = "1.31.1", "13.0"
get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
capi, state = ModuleType("onnxruntime.capi"), ModuleType("onnxruntime.capi.onnxruntime_pybind11_state")
for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException"):
    setattr(state, name, type(name, (Exception,), {}))
sys.modules.update({capi.__name__: capi, state.__name__: state})
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A folder with an onnxruntime-gpu that holds nothing, and the nvidia-smi of a machine with a GPU."""
    place = tmp_path / "stub"
    (place / "onnxruntime").mkdir(parents=True)
    (place / "onnxruntime" / "__init__.py").write_text(STUB, encoding="utf-8")
    _distribution(place, "onnxruntime-gpu", "1.31.1")
    smi = place / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '9.0, NVIDIA H200, 580.159.04'\n", encoding="utf-8")
    smi.chmod(0o755)
    return place


def _distribution(place: Path, name: str, version: str) -> None:
    facts = place / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def with_stub(stub: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(stub), "PATH": f"{stub}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, cwd=stub, env=environment, check=False)


def test_the_extra_cuda_has_the_build_for_gpus_in_place_of_that_for_cpus(wheel: Path) -> None:
    (name,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA")]
    lines = zipfile.ZipFile(wheel).read(name).decode().splitlines()

    def needed(extra: str) -> set[str]:
        marked = [line for line in lines if line.startswith("Requires-Dist:") and line.endswith(f"extra == '{extra}'")]
        return {re.split("[ ;<>=]", line.removeprefix("Requires-Dist: "))[0] for line in marked}

    assert needed("cuda") == {*needed("onnx"), "onnxruntime-gpu"} - {"onnxruntime"} and "onnxruntime" in needed("onnx")


def test_a_build_for_gpus_is_recorded_and_two_builds_are_told(bare: Path, artifact: Path, stub: Path) -> None:
    """In an installation of the wheel without any extra; the build for CPUs comes second."""
    tools = "from lxmert_export.artifact.manifest import TOOLS, tool_versions; print(tool_versions(TOOLS))"
    recorded = with_stub(stub, str(bare / "python"), "-c", tools).stdout
    assert "'onnxruntime-gpu': '1.31.1'" in recorded and "'onnxruntime'" not in recorded
    told = with_stub(stub, str(bare / "lxmert-export"), "doctor", "--json").stdout
    rows = {row["what"]: row for row in json.loads(told)["capabilities"]}
    row = rows["run and verify ONNX artifacts @cuda"]
    assert row["works"] and row["detail"].startswith("onnxruntime-gpu 1.31.1; NVIDIA H200, compute capability 9.0"), row
    _distribution(stub, "onnxruntime", "1.32.0")
    done = with_stub(stub, str(bare / "lxmert-export"), "verify", f"{artifact}@cuda")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed, and overwrite one another" in done.stderr
    assert done.stderr.endswith(
        "pip uninstall --yes onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1\n"
    )


def test_the_bare_install_inspects_an_artifact_and_tells_what_it_lacks(
    bare: Path, artifact: Path, tmp_path: Path
) -> None:
    facts = json.loads(run(str(bare / "lxmert-export"), "inspect", str(artifact), "--json", cwd=tmp_path).stdout)
    assert facts["manifest"]["target"] == "onnx"
    told = run(str(bare / "lxmert-export"), "doctor", cwd=tmp_path).stdout
    assert all(f"pip install 'lxmert-export[{extra}]'" in told for extra in ("torch", "h5", "onnx", "demo"))
