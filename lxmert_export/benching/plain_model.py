"""transformers' own LXMERT as its documentation uses it: called, compiled, and exported with plain torch.onnx.export.

Run: python -m lxmert_export.benching.plain_model CHECKPOINT DIRECTORY    (exports CHECKPOINT to DIRECTORY/model.onnx)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import Dim

if TYPE_CHECKING:
    from torch import Tensor

PLAIN_FILE = "model.onnx"
OPSET = 18


class PlainModel(nn.Module):
    """Returns some outputs alone, in order, because the exporter does not take a ``ModelOutput``."""

    def __init__(self, model: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.outputs = model, tuple(outputs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        visual_feats: Tensor,
        visual_pos: Tensor,
        visual_attention_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """Returns the outputs of transformers' model."""
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, visual_feats=visual_feats,
            visual_pos=visual_pos, visual_attention_mask=visual_attention_mask,
        )  # fmt: skip
        return tuple(getattr(found, name) for name in self.outputs)


def plain_model(checkpoint: str | Path, model_class: str, outputs: Sequence[str]) -> PlainModel:
    """Loads a checkpoint of Hugging Face's dialect in float32, into a class of transformers."""
    import transformers

    loaded: Any = getattr(transformers, model_class).from_pretrained(checkpoint, dtype=torch.float32)
    return PlainModel(loaded, outputs).eval()


def export_plain(model: PlainModel, directory: Path) -> None:
    """Exports with ``torch.onnx.export(dynamo=True)``: dynamic batch, text and objects."""
    config: Any = model.model.config
    words = {0: Dim("batch"), 1: Dim("text", max=config.max_position_embeddings)}
    objects = {0: Dim("batch"), 1: Dim("objects")}
    text, boxes = min(20, config.max_position_embeddings), 36
    arguments = {
        "input_ids": (torch.ones(2, text, dtype=torch.int64), words),
        "attention_mask": (torch.ones(2, text, dtype=torch.int64), words),
        "token_type_ids": (torch.zeros(2, text, dtype=torch.int64), words),
        "visual_feats": (torch.zeros(2, boxes, config.visual_feat_dim), objects),
        "visual_pos": (torch.zeros(2, boxes, config.visual_pos_dim), objects),
        "visual_attention_mask": (torch.ones(2, boxes), objects),
    }
    torch.onnx.export(
        model,
        kwargs={name: tensor for name, (tensor, _) in arguments.items()},
        f=directory / PLAIN_FILE,
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes={name: axes for name, (_, axes) in arguments.items()},
        output_names=list(model.outputs),
        external_data=True,
    )


def main() -> None:
    """Exports a question-answering checkpoint."""
    checkpoint, directory = sys.argv[1], Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    export_plain(plain_model(checkpoint, "LxmertForQuestionAnswering", ["question_answering_score"]), directory)


if __name__ == "__main__":
    main()
