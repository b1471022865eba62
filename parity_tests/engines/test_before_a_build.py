"""What is refused before a checkpoint is converted: another version of TensorRT, another device, what the target cannot do."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lxmert_export as lx
from lxmert_export.engines import devices as engine_targets
from lxmert_export.engines import library as tensorrt_library
from lxmert_export.engines.gpus import INSTEAD, Capability, Gpu
from lxmert_export.errors import ConversionError
from parity_tests.fixtures.random_models import SMALL, lively_model


def on_machine(monkeypatch: pytest.MonkeyPatch, version: str, *capabilities: Capability | None) -> None:
    """This machine has a TensorRT of a version, and GPUs; where anything is exported the test fails."""

    def found() -> tuple[Gpu, ...]:
        if not capabilities:
            raise ConversionError(f"no NVIDIA GPU found here (there is no nvidia-smi): {INSTEAD}")
        return tuple(Gpu(capability, "Some GPU", "999.1") for capability in capabilities)

    monkeypatch.setattr(tensorrt_library, "open_library", lambda runtime, install: SimpleNamespace(__version__=version))
    monkeypatch.setattr(engine_targets, "find_gpus", found)
    monkeypatch.setattr("lxmert_export.api.engine._write_graph", lambda *arguments: pytest.fail("converted"))


def refused(place: Path, **options: Any) -> str:
    """The one line with which a build is refused; nothing is written."""
    with pytest.raises(lx.LxmertExportError) as told:
        lx.build_engine(lively_model("question-answering", SMALL), place / "out", **options)
    assert "\n" not in str(told.value) and not any(place.iterdir())
    return str(told.value)


@pytest.mark.parametrize(
    ("target", "version", "capability", "reason"),
    [("thor", "11.1.0", (11, 0), "takes tensorrt >=10.13,<11 or >=11.4.1,<12, and 11.1.0 is installed: pip install"),
     ("rtx", "1.6.0", (8, 9), "takes tensorrt-rtx >=1.7,<2, and 1.6.0 is installed: pip install"),
     ("orin-jp7", "10.3.0", (8, 7), "and 10.3.0 is installed"),
     ("thor", "10.13.3", (8, 0), "on the device, and this machine has Some GPU, compute capability 8.0"),
     ("datacenter", "10.13.3", (8, 7), "and this machine has Some GPU, compute capability 8.7"),
     ("datacenter", "10.13.3", None, "and this machine has Some GPU, compute capability unknown")],
)  # fmt: skip
def test_another_version_or_another_gpu(
    target: str,
    version: str,
    capability: Capability | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_machine(monkeypatch, version, capability)
    assert reason in refused(tmp_path, target=target)


def test_classic_engines_are_not_built_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, "10.13.3")
    message = refused(tmp_path, target="thor")
    assert (
        "no NVIDIA GPU found here (there is no nvidia-smi): build it on a device" in message and "--bundle" in message
    )


@pytest.mark.parametrize("bundle", [False, True])
@pytest.mark.parametrize(
    ("ranges", "reason"),
    [({"text": ["1:20:9999"]}, "profile 0: --text 1:20:9999 goes beyond the position table"),
     ({"batch": ["1", "1"]}, "profile 1 repeats profile 0")],
)  # fmt: skip
def test_profiles_that_do_not_fit_the_checkpoint(
    ranges: dict[str, Any], reason: str, bundle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, "1.7.1")
    assert reason in refused(tmp_path, target="rtx", bundle=bundle, **ranges)


def test_a_graph_that_the_parser_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a checkpoint by its options, and from an artifact by its manifest: both before a bundle is begun."""
    on_machine(monkeypatch, "10.3.0", (8, 7))
    for options in ({"opset": 22}, {"attention": "operator"}):
        message = refused(tmp_path, target="orin-jp6", bundle=True, **options)
        assert "at most opset 20" in message
        assert ("--attention decomposed" in message) is ("attention" in options)
    graph = lx.export("onnx", lively_model("question-answering", SMALL), tmp_path / "graph", opset=22, parity=False)
    with pytest.raises(ConversionError, match="at most opset 20, and the graph has opset 22"):
        lx.build_engine(graph.path, tmp_path / "out", target="orin-jp6", bundle=True)


def test_a_dla_takes_one_size_of_each_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, "11.4.1", (8, 7))
    asked: dict[str, Any] = {"target": "orin-jp7", "precision": "fp16", "options": lx.BuildOptions(dla=True)}
    for bundle in (False, True):
        message = refused(tmp_path, bundle=bundle, batch=["1"], text=["20"], **asked)
        assert "--dla: a DLA takes one size of each axis: give --objects one size each" in message
        assert "give --batch, --objects one" in refused(tmp_path, bundle=bundle, batch=["1", "2"], text=["20"], **asked)
    with pytest.raises(pytest.fail.Exception, match="converted"):
        lx.build_engine(
            lively_model("question-answering", SMALL),
            tmp_path / "out",
            batch=["1"],
            text=["20"],
            objects=["5"],
            **asked,
        )


def test_a_timing_cache_has_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, "10.13.3", (11, 0))
    for place in (tmp_path, tmp_path / "none" / "cache"):
        message = refused(tmp_path, target="thor", options=lx.BuildOptions(timing_cache=str(place)))
        assert message.startswith(f"timing_cache {place}: must be a file in an existing directory")


def test_what_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    for target, version, capabilities in (("thor", "11.4.1", [(11, 0), (8, 0)]), ("rtx", "1.7.1", [])):
        on_machine(monkeypatch, version, *capabilities)
        assert tensorrt_library.open_builder(engine_targets.resolve(target)).__version__ == version


def test_what_is_converted_is_not_replaced(tmp_path: Path) -> None:
    onnx = lx.export("onnx", lively_model("question-answering", SMALL), tmp_path / "onnx", parity=False)
    lx.save_checkpoint(lively_model("question-answering", SMALL), tmp_path / "checkpoint")
    for place in (onnx.path, tmp_path / "checkpoint"):
        for convert in (lx.build_engine, lambda *paths, **options: lx.export("onnx", *paths, **options)):
            with pytest.raises(lx.LxmertExportError, match="the source|is an artifact, not a checkpoint"):
                convert(place, place, overwrite=True)
    assert lx.load_artifact(onnx.path) and lx.load_checkpoint(tmp_path / "checkpoint")


def test_an_interrupt_that_a_callback_would_lose_comes_at_the_end() -> None:
    finished = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), tensorrt_library.interrupt_kept():
            signal.raise_signal(signal.SIGINT)
            finished = True
        assert finished and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_onnx_model_that_is_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as what it is, before torch is imported; a checkpoint beside it is one still."""
    on_machine(monkeypatch, "1.7.1")
    lx.export("onnx", lively_model("question-answering", SMALL), tmp_path / "ours", parity=False)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "model.onnx").write_bytes((tmp_path / "ours" / "model.onnx").read_bytes())
    with pytest.raises(lx.ArtifactError, match=r"holds an ONNX model, but is not an artifact directory \(no manifest"):
        lx.build_engine(foreign, tmp_path / "out")
    with pytest.raises(lx.ArtifactError, match=f"name the directory that holds it: {tmp_path / 'ours'}$"):
        lx.build_engine(tmp_path / "ours" / "model.onnx", tmp_path / "out")
    (foreign / "model.safetensors").write_bytes(b"")
    with pytest.raises(lx.CheckpointError):
        lx.build_engine(foreign, tmp_path / "out")
