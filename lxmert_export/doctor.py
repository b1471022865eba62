"""What works on this machine, and the exact pip line for what does not."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from lxmert_export.artifact import tool_versions
from lxmert_export.errors import PACKAGE


@dataclass(frozen=True)
class Capability:
    """One thing that the tool can do: whether this machine can, what it rests on, and what would mend it."""

    what: str
    works: bool
    detail: str
    mend: str | None


# The same module in another distribution.
SAME_AS = {"tensorflow": ("tensorflow-cpu",)}
# What each capability needs: module → distribution and extra.
NEEDS = {
    "read .pth, .bin and .safetensors checkpoints": {"torch": ("torch", "torch")},
    "read and write tf_model.h5": {"h5py": ("h5py", "h5")},
    "convert to ONNX": {
        "torch": ("torch", "torch"),
        "onnx": ("onnx", "onnx"),
        "onnxscript": ("onnxscript", "onnx"),
    },
    "convert to TensorFlow (SavedModel, .keras)": {
        "torch": ("torch", "torch"),
        "tensorflow": ("tensorflow", "tensorflow"),
    },
    "convert to TFLite": {
        "torch": ("torch", "torch"),
        "tensorflow": ("tensorflow", "tensorflow"),
        "ai_edge_litert": ("ai-edge-litert", "tflite"),
    },
    "ask about pictures": {"PIL": ("pillow", "demo"), "scipy": ("scipy", "demo")},
    "run and verify ONNX artifacts": {"onnxruntime": ("onnxruntime", "onnx")},
    "run and verify TensorFlow artifacts": {"tensorflow": ("tensorflow", "tensorflow")},
    "run and verify TFLite artifacts": {"ai_edge_litert": ("ai-edge-litert", "tflite")},
    "judge fp16 and bf16 of ONNX on a CPU (emulator)": {
        "onnxruntime": ("onnxruntime", "onnx"),
        "onnx_ir": ("onnx-ir", "onnx"),
    },
}


def examine() -> list[Capability]:
    """Every capability, judged by what is installed; nothing is imported but onnxruntime, to ask for its providers."""
    found = []
    for what, needs in NEEDS.items():
        missing = [module for module in needs if find_spec(module) is None]
        versions = tool_versions(alias for name, _ in needs.values() for alias in (name, *SAME_AS.get(name, ())))
        extras = sorted({needs[module][1] for module in missing})
        found.append(
            Capability(
                what=what,
                works=not missing,
                detail=", ".join(f"{name} {number}" for name, number in versions.items()) or "nothing installed",
                mend=f"pip install '{PACKAGE}[{','.join(extras)}]'" if missing else None,
            )
        )
    return [*found, _half_precision_on_gpu()]


def machine() -> dict[str, Any]:
    """This machine, in the words that a bug report needs."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "tools": tool_versions((PACKAGE, "numpy", "safetensors", "huggingface_hub", "tokenizers")),
        "capabilities": [asdict(capability) for capability in examine()],
    }


def _half_precision_on_gpu() -> Capability:
    what = "run fp16 and bf16 in their own arithmetic (GPU)"
    if find_spec("onnxruntime") is None:
        return Capability(what, False, "onnxruntime is not installed", f"pip install '{PACKAGE}[onnx]'")
    import onnxruntime

    from lxmert_export.runners.providers import HALF_PRECISION

    providers = onnxruntime.get_available_providers()
    works = any(provider in HALF_PRECISION for provider in providers)
    mend = None if works else "pip install onnxruntime-gpu, on a machine with an NVIDIA GPU"
    return Capability(what, works, f"onnxruntime has {', '.join(providers)}", mend)
