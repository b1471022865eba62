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

OUTPUTS = ("prediction_logits", "cross_relationship_score", "question_answering_score")

# Runs in the other environment. No visual mask: TFLxmert reshapes it with the text's length.
ORACLE = """
import sys
import numpy as np
from safetensors.numpy import load_file, save_file
framework, checkpoint, inputs, outputs = sys.argv[1:]
arrays = load_file(inputs)
if framework == "tensorflow":
    import tensorflow as tf
    from transformers import TFLxmertForPreTraining
    model, told = TFLxmertForPreTraining.from_pretrained(checkpoint, output_loading_info=True)
    found = model({n: tf.constant(a) for n, a in arrays.items()}, training=False)
else:
    import torch
    from transformers import LxmertForPreTraining
    model, told = LxmertForPreTraining.from_pretrained(checkpoint, output_loading_info=True)
    with torch.no_grad():
        found = model.eval()(**{n: torch.from_numpy(a) for n, a in arrays.items()})
assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
names = ("prediction_logits", "cross_relationship_score", "question_answering_score")
save_file({n: np.ascontiguousarray(np.asarray(found[n])) for n in names}, outputs)
"""


@pytest.fixture(scope="module")
def model() -> PreTrainedLxmert:
    return lively_model("pretraining", SMALL)


@pytest.mark.parametrize(("framework", "dialect"), [("tensorflow", "tf"), ("pytorch", "hf")])
def test_transformers_4_loads_ours_and_computes_the_same(
    framework: str, dialect: Dialect, oracle_python: str, model: PreTrainedLxmert, tmp_path: Path
) -> None:
    lx.save_checkpoint(model, tmp_path / "checkpoint", dialect=dialect)
    inputs = {name: tensor for name, tensor in lively_inputs(SMALL).items() if name != "visual_attention_mask"}
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items()}, tmp_path / "inputs")
    done = subprocess.run(
        [oracle_python, "-c", ORACLE, framework, *(str(tmp_path / name) for name in ("checkpoint", "inputs", "outputs"))],
        capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_file(tmp_path / "outputs")
    with torch.no_grad():
        wanted = model(**inputs)
    for name in OUTPUTS:
        ours = wanted[name].numpy()
        # Two float32 implementations of one function: 4e-6 of the largest value was seen between them upstream.
        assert np.abs(found[name] - ours).max() <= 2e-5 * np.abs(ours).max(), name
