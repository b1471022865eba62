"""Loads one model and times a call for each line on stdin, so that workers can be timed in turn.

Run with the Python of either environment: tensorflow_worker.py saved-model|transformers|tflite PATH. Each line is a
batch size, and optionally the name of a file for the outputs. The answer is the milliseconds of one call.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # transformers 4.57.6 needs it; a SavedModel needs no Keras
TEXT, OBJECTS = 20, 36
Serve = Callable[[dict[str, Any]], dict[str, Any]]


def open_saved_model(path: str) -> Serve:
    """Opens our SavedModel as any TensorFlow program does."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    return lambda inputs: {
        name: value.numpy()
        for name, value in serve(**{n: tf.constant(v) for n, v in inputs.items()}).items()
        if loaded is not None  # keeps the loaded model, and so its functions, alive
    }


def open_transformers(path: str) -> Serve:
    """Opens TFLxmertForPreTraining in a tf.function, transformers' fastest way; it has no class for answers alone."""
    import tensorflow as tf
    from transformers import TFLxmertForPreTraining  # type: ignore[attr-defined]  # 4.57.6 has it

    model = TFLxmertForPreTraining.from_pretrained(path)
    # No visual mask: with one, TFLxmert fails if the numbers of objects and words differ.
    call = tf.function(lambda inputs: dict(model(inputs, training=False)))
    return lambda inputs: {
        name: value.numpy()
        for name, value in call(
            {n: tf.constant(v) for n, v in inputs.items() if n != "visual_attention_mask"}
        ).items()
    }  # fmt: skip


def open_tflite(path: str) -> Serve:
    """Opens a TFLite file in ai-edge-litert with XNNPACK and one thread for each core."""
    from ai_edge_litert.interpreter import Interpreter

    serve = Interpreter(model_path=path, num_threads=os.cpu_count()).get_signature_runner("serving_default")
    return lambda inputs: dict(serve(**inputs))


def inputs_of(batch: int) -> dict[str, Any]:
    """Returns the inputs of a batch, the same in every worker."""
    generator = np.random.default_rng(batch)
    return {
        "input_ids": generator.integers(1, 30522, (batch, TEXT)).astype(np.int32),
        "attention_mask": np.ones((batch, TEXT), np.int32),
        "token_type_ids": np.zeros((batch, TEXT), np.int32),
        "visual_feats": generator.random((batch, OBJECTS, 2048), np.float32),
        "visual_pos": generator.random((batch, OBJECTS, 4), np.float32),
        "visual_attention_mask": np.ones((batch, OBJECTS), np.float32),
    }


def main() -> None:
    """Answers until stdin ends."""
    kind, path = sys.argv[1:]
    serve = {"saved-model": open_saved_model, "transformers": open_transformers, "tflite": open_tflite}[kind](path)
    print("ready", flush=True)
    for line in sys.stdin:
        batch, *file = line.split()
        inputs = inputs_of(int(batch))
        started = time.perf_counter()
        outputs = serve(inputs)
        print(1000 * (time.perf_counter() - started), flush=True)
        if file:
            np.savez(file[0], **outputs)


if __name__ == "__main__":
    main()
