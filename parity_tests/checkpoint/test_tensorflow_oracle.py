"""What we write, transformers 4.57.6 loads and computes the same: TFLxmert and PyTorch, in an environment of its own.

`make test` sets the environment up (.venv-tf) and names its interpreter in LXMERT_TF_ORACLE_PYTHON.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import lxmert_export as lx
from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.model.pretrained import PreTrainedLxmert
from parity_tests.fixtures.random_models import SMALL, lively_inputs, lively_model

DIALECTS: tuple[Dialect, Dialect] = ("tf", "hf")  # in the order in which the other environment is given them
OUTPUTS = ("prediction_logits", "cross_relationship_score", "question_answering_score")

# Runs in the other environment. No visual mask: TFLxmert reshapes it with the text's length.
ORACLE = """
import sys
import numpy as np
from safetensors.numpy import load_file, save_file
import tensorflow as tf
import torch
from transformers import LxmertForPreTraining, TFLxmertForPreTraining
arrays = load_file(sys.argv[1])

def computed(kind, checkpoint, run):
    model, told = kind.from_pretrained(checkpoint, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    found = run(model)
    names = ("prediction_logits", "cross_relationship_score", "question_answering_score")
    save_file({n: np.ascontiguousarray(np.asarray(found[n])) for n in names}, f"{checkpoint}.outputs")

computed(TFLxmertForPreTraining, sys.argv[2],
         lambda model: model({n: tf.constant(a) for n, a in arrays.items()}, training=False))
with torch.no_grad():
    computed(LxmertForPreTraining, sys.argv[3],
             lambda model: model.eval()(**{n: torch.from_numpy(a) for n, a in arrays.items()}))
"""


@pytest.fixture(scope="module")
def model() -> PreTrainedLxmert:
    return lively_model("pretraining", SMALL)


def test_transformers_4_loads_ours_and_computes_the_same(
    oracle_python: str, model: PreTrainedLxmert, tmp_path: Path
) -> None:
    """TensorFlow reads our "tf", PyTorch our "hf", both in one process, whose imports take most of the time."""
    places = {dialect: tmp_path / dialect for dialect in DIALECTS}
    for dialect, place in places.items():
        lx.save_checkpoint(model, place, dialect=dialect)
    inputs = {name: tensor for name, tensor in lively_inputs(SMALL).items() if name != "visual_attention_mask"}
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items()}, tmp_path / "inputs")
    done = subprocess.run(
        [oracle_python, "-c", ORACLE, str(tmp_path / "inputs"), *map(str, places.values())],
        capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with torch.no_grad():
        wanted = model(**inputs)
    for dialect, place in places.items():
        found = load_file(f"{place}.outputs")
        for name in OUTPUTS:
            ours = wanted[name].numpy()
            # Two float32 implementations of one function: 4e-6 of the largest value was seen between them upstream.
            assert np.abs(found[name] - ours).max() <= 2e-5 * np.abs(ours).max(), (dialect, name)
