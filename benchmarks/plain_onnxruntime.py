"""Runs an artifact's model.onnx in an onnxruntime below our floor, beside numpy 1: a script without our package.

Compares every output that the golden file holds whole with its reference, and prints the largest root-mean-square
difference as a share of the reference's root mean square. The exit code tells whether it is at most LARGEST_SHARE.
"""

import sys

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

LARGEST_SHARE = 0.01  # fp16's rounding is 0.001 of a value, and adds up over the layers; a wrong kernel's is about 1


def main() -> None:
    """Runs the first batch of every family of the golden file."""
    golden = load_file(f"{sys.argv[1]}/golden.safetensors")
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/model.onnx", providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    shares = []
    types = {one.name: DTYPES[one.type] for one in session.get_inputs()}
    for family in sorted({key.split("/")[1] for key in golden if key.startswith("input/")}):
        batch = f"input/{family}/0/"
        if any(batch + name not in golden for name in types):
            continue  # a family without masks: our runner would make them
        given = {name: golden[batch + name].astype(dtype) for name, dtype in types.items()}
        for name, found in zip(outputs, session.run(outputs, given), strict=True):
            wanted = golden[f"reference/{family}/{name}/0"].ravel()
            if wanted.size == found.size:
                shares.append(rms(found.ravel().astype(np.float64) - wanted) / rms(wanted))
    print(
        f"onnxruntime {onnxruntime.__version__}: {len(shares)} outputs, largest difference {max(shares):.2g} of the RMS"
    )
    sys.exit(max(shares) > LARGEST_SHARE)


DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def rms(array: np.ndarray) -> float:
    """The root mean square of an array."""
    return float(np.sqrt(np.mean(np.square(array))))


if __name__ == "__main__":
    main()
