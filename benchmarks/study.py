"""Correct checkpoints that must not alarm, and planted faults that must: the evidence for the parity threshold.

A few architectures are traced once; each trial swaps in another random checkpoint's weights, writes the file and passes it
through the gate. Writes benchmarks/study.json and benchmarks/study.md. Run: make study
"""

from __future__ import annotations

from pathlib import Path

from lxmert_export.config import LxmertConfig
from lxmert_export.signature import Precision, Task

HERE = Path(__file__).parent
SMALL = LxmertConfig(
    vocab_size=150, hidden_size=32, num_attention_heads=4, intermediate_size=64, max_position_embeddings=32,
    l_layers=2, x_layers=2, r_layers=1, num_qa_labels=7, num_object_labels=9, num_attr_labels=5, visual_feat_dim=16,
)  # fmt: skip
WIDE = SMALL.replace(hidden_size=96, num_attention_heads=3, intermediate_size=384, visual_feat_dim=64, visual_pos_dim=6)
DEEP = SMALL.replace(l_layers=9, x_layers=5, r_layers=5, num_attention_heads=2)
# (config, task, precision): every task and every precision, three shapes of network.
ARCHITECTURES: tuple[tuple[LxmertConfig, Task, Precision], ...] = (
    (SMALL, "pretraining", "fp32"),
    (WIDE, "question-answering", "fp32"),
    (DEEP, "model", "fp32"),
    (SMALL, "nlvr2", "fp32"),
    (WIDE, "pretraining", "fp16"),
    (DEEP, "question-answering", "fp16"),
    (SMALL, "nlvr2", "fp16"),
    (WIDE, "model", "bf16"),
)
