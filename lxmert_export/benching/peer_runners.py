"""Runs the peers: transformers' model, eager and compiled, and files of a plain export in onnxruntime and OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxmert_export.runners.runner import Runner
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

MOST_SHAPES = 64  # for which torch.compile may compile anew; its own limit of 8 would fall back to eager in silence


class PlainRunner(Runner):
    """Runs transformers' model in PyTorch."""

    failures = (RuntimeError,)

    def __init__(self, module: Any, signature: Signature, config: LxmertConfig, name: str) -> None:
        super().__init__(name, signature, InputLimits.of(config))
        self._module = module

    def compute(self, inputs: Arrays) -> Arrays:
        """Returns the outputs."""
        import torch

        tensors = [torch.from_numpy(inputs[spec.name]) for spec in self.signature.inputs]
        with torch.inference_mode():
            outputs = self._module(*tensors)
        names = (spec.name for spec in self.signature.outputs)
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


def open_eager(directory: Path, signature: Signature, config: LxmertConfig, threads: int) -> Runner:
    """Opens transformers' model as its documentation does."""
    return PlainRunner(_plain(directory, signature, threads), signature, config, "transformers")


def open_compiled(directory: Path, signature: Signature, config: LxmertConfig, threads: int) -> Runner:
    """Opens the same in ``torch.compile``, compiled for each shape, which is fastest; the first call of a shape compiles."""
    import torch

    torch._dynamo.config.recompile_limit = MOST_SHAPES
    module = torch.compile(_plain(directory, signature, threads), dynamic=False)
    return PlainRunner(module, signature, config, "transformers, torch.compile")


def _plain(directory: Path, signature: Signature, threads: int) -> Any:
    import torch

    from lxmert_export.benching.plain_model import plain_model
    from lxmert_export.reference.transformers_module import CLASSES

    torch.set_num_threads(threads)
    task = signature.lxmert_task
    assert task is not None  # peers are refused for modules of the user's own
    return plain_model(directory, CLASSES[task], [spec.name for spec in signature.outputs])


def open_onnx(directory: Path, signature: Signature, config: LxmertConfig, threads: int) -> Runner:
    """Opens an ONNX file of other tools in onnxruntime, with its default settings."""
    from lxmert_export.runners.onnx.session import OnnxRuntimeRunner

    limits = InputLimits.of(config)
    return OnnxRuntimeRunner(directory / "model.onnx", signature, limits, precision="fp32", threads=threads)


def open_openvino(directory: Path, signature: Signature, config: LxmertConfig, threads: int) -> Runner:
    """Opens an ONNX file of other tools in OpenVINO, in float32."""
    from lxmert_export.runners.openvino.compiled import OpenVinoRunner

    return OpenVinoRunner(directory / "model.onnx", signature, InputLimits.of(config), threads=threads)


def open_nncf(directory: Path, signature: Signature, config: LxmertConfig, threads: int) -> Runner:
    """Opens OpenVINO's own file, quantised by NNCF; what is not int8 computes in float32."""
    from lxmert_export.benching.peer_files import NNCF_FILE
    from lxmert_export.runners.openvino.compiled import OpenVinoRunner

    limits = InputLimits.of(config)
    return OpenVinoRunner(directory / NNCF_FILE, signature, limits, quantized=True, threads=threads)
