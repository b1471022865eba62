"""What a call of a tokenizer returns: a dict that also reads as Hugging Face's BatchEncoding does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args

from lxmert_export.errors import InputError, MissingExtra
from lxmert_export.tokenizer.batching import Row, lay_out

TensorKind = Literal["np", "pt"]
Value = TypeVar("Value")


class Layout(NamedTuple):
    """How the rows of a batch were laid out: their lengths with padding, and the special tokens, by name.

    ``special`` says whether [CLS] and [SEP] stand around the texts; the padding is there in any case.
    """

    rows: Sequence[Row]
    lengths: Sequence[int]
    special: bool
    cls: str
    sep: str
    pad: str


class BatchEncoding(dict[str, Any]):
    """Fields by key or by name: ``input_ids``, ``token_type_ids``, ``attention_mask`` and what else was asked for.

    Lists of integers for one text, lists of those for a batch; with ``return_tensors`` int64 arrays or tensors
    [batch, text]. Source: transformers ``BatchEncoding``.
    """

    def __init__(self, values: Mapping[str, Any], layout: Layout) -> None:
        super().__init__(values)
        self._layout = layout

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; its fields are {', '.join(self)}") from None

    @property
    def is_fast(self) -> bool:
        """Whether ``tokens`` and ``word_ids`` are known: they are where the fast tokenizer was called."""
        return self._layout.rows[0].first_source is not None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of one row, special tokens and padding included (fast tokenizer only)."""
        layout = self._layout
        return self._told("tokens", batch_index, (layout.cls, layout.sep, layout.sep), layout.pad)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The number of the word that each token is part of, None for special tokens (fast tokenizer only).

        The words of a second text are counted anew.
        """
        return self._told("word_ids", batch_index, (None, None, None), None)

    def offsets(self, batch_index: int = 0) -> list[tuple[int, int]]:
        """Each token's first character in its text and the one after its last, (0, 0) for special tokens (fast only)."""
        return self._told("offsets", batch_index, ((0, 0), (0, 0), (0, 0)), (0, 0))

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """0 for the tokens of a text, 1 for those of the one paired with it, None for special tokens."""
        row = self._layout.rows[batch_index]
        zeros, ones = [0] * len(row.first), None if row.second is None else [1] * len(row.second)
        return self._laid_out(batch_index, zeros, ones, (None, None, None), None)

    def convert_to_tensors(self, tensor_type: str | None) -> Self:
        """Makes int64 numpy arrays (``np``) or PyTorch tensors (``pt``) of all fields; ``InputError`` for uneven rows."""
        if tensor_type is not None:
            self.update({name: to_tensor(name, value, tensor_type) for name, value in self.items()})
        return self

    def to(self, device: Any) -> Self:
        """Moves PyTorch tensors to a device."""
        self.update({name: value.to(device) for name, value in self.items() if hasattr(value, "to")})
        return self

    def _told(self, what: str, index: int, around: tuple[Any, Any, Any], pad: Any) -> list[Any]:
        """What the sources of a row say of its tokens, cut as the row was cut."""
        row = self._layout.rows[index]
        if row.first_source is None:
            raise InputError(f"{what}() is known to LxmertTokenizerFast only, and another tokenizer made this")
        first = getattr(row.first_source, what)[: len(row.first)]
        second = None if row.second is None else getattr(row.second_source, what)[: len(row.second)]
        return self._laid_out(index, first, second, around, pad)

    def _laid_out(
        self,
        index: int,
        first: Sequence[Value],
        second: Sequence[Value] | None,
        around: tuple[Value, Value, Value],
        pad: Value,
    ) -> list[Value]:
        layout = self._layout
        return lay_out(first, second, around if layout.special else None, pad, layout.lengths[index])


def check_tensor_kind(tensor_type: object) -> None:
    """``InputError`` for what is no kind of tensor, ``MissingExtra`` where PyTorch is not installed."""
    if tensor_type not in get_args(TensorKind):
        raise InputError(
            f"return_tensors must be None or one of {', '.join(get_args(TensorKind))}, not {tensor_type!r}"
        )
    if tensor_type == "pt" and find_spec("torch") is None:
        raise MissingExtra("return_tensors='pt'", "torch")


def to_tensor(name: str, value: Any, tensor_type: str) -> Any:
    """An int64 array or tensor of a list of numbers, or of lists of them; ``InputError`` where those differ in length."""
    check_tensor_kind(tensor_type)
    import numpy as np

    if value and isinstance(value[0], list) and len({len(row) for row in value}) > 1:
        raise InputError(f"{name}: rows of different lengths make no array; use padding=True or padding='max_length'")
    array = np.array(value, dtype=np.int64)
    if tensor_type == "np":
        return array
    import torch

    return torch.from_numpy(array)
