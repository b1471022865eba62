"""What a call of a tokenizer returns: a dict that can also be read like Hugging Face's BatchEncoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

from lxmert_export.errors import InputError, MissingExtra
from lxmert_export.tokenizer.batching import Row, lay_out

if TYPE_CHECKING:
    from typing_extensions import Self

TensorKind = Literal["np", "pt"]
Value = TypeVar("Value")


class Layout(NamedTuple):
    """How the rows of a batch were laid out: the rows, their lengths with padding, and the special tokens as strings.

    ``special`` says whether [CLS] and [SEP] were put around the texts; padding does not depend on it.
    """

    rows: Sequence[Row]
    lengths: Sequence[int]
    special: bool
    cls: str
    sep: str
    pad: str


class BatchEncoding(dict[str, Any]):
    """The fields of a call, by key or attribute: ``input_ids``, ``token_type_ids``, ``attention_mask``, …

    A field is a list of integers for one text, and a list of such lists for a batch. With ``return_tensors`` it is an
    int64 array or tensor [batch, text]. Source: transformers ``BatchEncoding``.
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
        """Whether the fast tokenizer made this encoding. Only then do ``tokens``, ``word_ids`` and ``offsets`` work."""
        return self._layout.rows[0].first_source is not None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Returns the tokens of a row, special ones and padding too. ``InputError``: not made by the fast tokenizer."""
        layout = self._layout
        return self._from_source("tokens", batch_index, (layout.cls, layout.sep, layout.sep), layout.pad)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Returns the number of the word that each token belongs to; None for special tokens and padding.

        Words are counted from 0, in each text of a pair separately. ``InputError``: not made by the fast tokenizer.
        """
        return self._from_source("word_ids", batch_index, (None, None, None), None)

    def offsets(self, batch_index: int = 0) -> list[tuple[int, int]]:
        """Returns (start, end) of each token in its text, in characters, end excluded.

        Special tokens and padding have (0, 0). ``InputError``: not made by the fast tokenizer.
        """
        return self._from_source("offsets", batch_index, ((0, 0), (0, 0), (0, 0)), (0, 0))

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Returns 0 for tokens of the first text, 1 for those of the second, None for special tokens and padding."""
        row = self._layout.rows[batch_index]
        zeros, ones = [0] * len(row.first), None if row.second is None else [1] * len(row.second)
        return self._laid_out(batch_index, zeros, ones, (None, None, None), None)

    def convert_to_tensors(self, tensor_type: str | None) -> Self:
        """Turns all fields into int64 numpy arrays (``np``) or PyTorch tensors (``pt``), in place; None does nothing.

        ``InputError``: rows of different lengths, or another ``tensor_type``. ``MissingExtra``: ``pt`` without PyTorch.
        """
        if tensor_type is not None:
            self.update({name: to_tensor(name, value, tensor_type) for name, value in self.items()})
        return self

    def to(self, device: Any) -> Self:
        """Moves the PyTorch tensors among the fields to a device, in place."""
        self.update({name: value.to(device) for name, value in self.items() if hasattr(value, "to")})
        return self

    def _from_source(self, name: str, index: int, around: tuple[Any, Any, Any], pad: Any) -> list[Any]:
        """Reads an attribute of a row's sources, cut and padded as the row was."""
        row = self._layout.rows[index]
        if row.first_source is None:
            raise InputError(f"{name}() needs an encoding made by LxmertTokenizerFast; LxmertTokenizer made this one")
        first = getattr(row.first_source, name)[: len(row.first)]
        second = None if row.second is None else getattr(row.second_source, name)[: len(row.second)]
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
    """Raises ``InputError`` unless the kind is ``np`` or ``pt``, and ``MissingExtra`` for ``pt`` without PyTorch."""
    if tensor_type not in get_args(TensorKind):
        raise InputError(
            f"return_tensors must be None or one of {', '.join(get_args(TensorKind))}, not {tensor_type!r}"
        )
    if tensor_type == "pt" and find_spec("torch") is None:
        raise MissingExtra("return_tensors='pt'", "torch")


def to_tensor(name: str, value: Any, tensor_type: str) -> Any:
    """Turns a list of integers, or a list of such lists, into an int64 array (``np``) or tensor (``pt``).

    ``InputError``: the lists differ in length, or another ``tensor_type``. ``MissingExtra``: ``pt`` without PyTorch.
    """
    check_tensor_kind(tensor_type)
    import numpy as np

    if value and isinstance(value[0], list) and len({len(row) for row in value}) > 1:
        raise InputError(f"{name}: rows of different lengths make no array; use padding=True or padding='max_length'")
    array = np.array(value, dtype=np.int64)
    if tensor_type == "np":
        return array
    import torch

    return torch.from_numpy(array)
