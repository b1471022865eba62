"""Exports transformers' own model with plain torch.onnx.export(dynamo=True), as its documentation shows."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers
from torch import nn
from torch.export import Dim


class Answers(nn.Module):
    """Returns the scores alone, because the exporter does not take a ModelOutput."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        visual_feats: torch.Tensor,
        visual_pos: torch.Tensor,
        visual_attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the answers' scores."""
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            visual_feats=visual_feats,
            visual_pos=visual_pos,
            visual_attention_mask=visual_attention_mask,
        )
        scores: torch.Tensor = output.question_answering_score
        return scores


def main() -> None:
    """Exports CHECKPOINT to DIRECTORY/model.onnx."""
    checkpoint, directory = sys.argv[1], Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    model: nn.Module = transformers.LxmertForQuestionAnswering.from_pretrained(checkpoint)
    words = {0: Dim("batch"), 1: Dim("text", max=512)}
    objects = {0: Dim("batch"), 1: Dim("objects")}
    arguments = {
        "input_ids": (torch.ones(2, 20, dtype=torch.int64), words),
        "attention_mask": (torch.ones(2, 20, dtype=torch.int64), words),
        "token_type_ids": (torch.zeros(2, 20, dtype=torch.int64), words),
        "visual_feats": (torch.zeros(2, 36, 2048), objects),
        "visual_pos": (torch.zeros(2, 36, 4), objects),
        "visual_attention_mask": (torch.ones(2, 36), objects),
    }
    torch.onnx.export(
        Answers(model).eval(),
        kwargs={name: tensor for name, (tensor, _) in arguments.items()},
        f=directory / "model.onnx",
        dynamo=True,
        opset_version=18,
        dynamic_shapes={name: axes for name, (_, axes) in arguments.items()},
        output_names=["question_answering_score"],
        external_data=True,
    )


if __name__ == "__main__":
    main()
