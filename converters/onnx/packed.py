"""How a file stores parameters: transposed, or several side by side as one, so that one product computes what three did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

# Marks an initializer, in memory only: the file stores the transpose of the parameter that it is named after.
TRANSPOSED = "lxmert-export.transposed"
# Marks an initializer, in memory only: the file stores several parameters in it.
PACKED = "lxmert-export.packed"


def store_as_transpose(weight: ir.Value) -> None:
    """Makes the file store the transpose of a matrix; all who read it read that."""
    assert weight.shape is not None
    weight.meta[TRANSPOSED] = True
    weight.shape = ir.Shape(tuple(weight.shape)[::-1])


@dataclass(frozen=True)
class Packed:
    """Query, key and value's parameters as one: side by side [in, 3 · out], or head by head if ``heads`` is given.

    ``parts``: the names of the parameters. ``transposed``: whether the file stores a part's transpose.
    """

    parts: tuple[str, ...]
    heads: int | None
    transposed: tuple[bool, ...]

    @property
    def name(self) -> str:
        """``layers.0.query+key+value.weight``."""
        split = [part.split(".") for part in self.parts]
        if len({len(words) for words in split}) > 1:
            return "+".join(self.parts)
        differing = [place for place, words in enumerate(zip(*split, strict=True)) if len(set(words)) > 1]
        if len(differing) != 1:
            return "+".join(self.parts)
        words = list(split[0])
        words[differing[0]] = "+".join(part[differing[0]] for part in split)
        return ".".join(words)

    def stack(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns the parameter that the file stores, of its parts."""
        tensors = [
            part.detach().t() if turned else part.detach() for part, turned in zip(parts, self.transposed, strict=True)
        ]
        return side_by_side(tensors, self.heads)


def side_by_side(tensors: Sequence[Tensor], heads: int | None) -> Tensor:
    """[…, out] each → […, 3 · out]; with ``heads``, of [head, part, number of the head] instead of [part, head, number]."""
    if heads is None:
        return torch.cat(list(tensors), dim=-1)
    split = [tensor.reshape(*tensor.shape[:-1], heads, -1) for tensor in tensors]
    return torch.stack(split, dim=-2).reshape(*tensors[0].shape[:-1], -1)
