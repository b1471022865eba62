"""Times a file in the onnxruntime that is installed here, with and without one of its optimisers: a script without our package.

FILE OPTIMISER BATCH ROUNDS THREADS. Prints one JSON object: the version, and the seconds of every call of both, made in turn.
"""

import json
import sys
import time

import numpy as np
import onnxruntime

TEXT, OBJECTS, WORDS = 20, 36, 30522
WARM = 3  # calls before the first that counts
REST = 0.25  # seconds between calls: threads spin on for up to 0.2 s after a call


def main() -> None:
    """Makes the calls."""
    file, optimiser, batch, rounds, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    sessions = {
        "with": opened(file, threads, disabled=None),
        "without": opened(file, threads, disabled=[optimiser]),
    }
    inputs = drawn(batch)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(WARM + rounds):
        order = list(sessions) if number % 2 else list(sessions)[::-1]
        for name in order:
            time.sleep(REST)
            began = time.perf_counter()
            sessions[name].run(None, inputs)
            if number >= WARM:
                seconds[name].append(time.perf_counter() - began)
    print(json.dumps({"version": onnxruntime.__version__, "seconds": seconds}))


def opened(file: str, threads: int, disabled: "list[str] | None") -> onnxruntime.InferenceSession:
    """Opens a session with a number of threads, without the optimisers that are named."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)


def drawn(batch: int) -> "dict[str, np.ndarray]":
    """Draws the inputs of a call."""
    generator = np.random.default_rng(0)
    return {
        "input_ids": generator.integers(1, WORDS, (batch, TEXT)),
        "attention_mask": np.ones((batch, TEXT), np.int64),
        "token_type_ids": np.zeros((batch, TEXT), np.int64),
        "visual_feats": generator.random((batch, OBJECTS, 2048), np.float32),
        "visual_pos": generator.random((batch, OBJECTS, 4), np.float32),
        "visual_attention_mask": np.ones((batch, OBJECTS), np.float32),
    }


if __name__ == "__main__":
    main()
