"""Reads pickles of strangers that hold plain data: numbers, texts, lists, dictionaries, numpy's arrays. None of their code runs.

A pickle is a program that may call any function that it names. Here the few names that numpy's arrays need stand for functions
of this module, which check what they are given; any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import first_line, shortened

NUMBERS_AND_TEXTS = re.compile(r"[biufcSU]\d{1,6}")  # kinds of arrays, and the bytes of one element
OBJECTS = re.compile(r"O\d{1,2}")
MEMO = ("PUT", "BINPUT", "LONG_BINPUT")  # instructions that name a place; Python makes room for all places below it


class RefusedPickleError(ValueError):
    """A pickle names something that is no plain data; the message names it."""


def load_pickle(content: bytes | memoryview) -> Any:
    """Returns what a pickle holds, with numpy's arrays as arrays.

    ``ValueError``: it is damaged, or (``RefusedPickleError``) holds more than plain data.
    """
    held = bytes(content)
    try:
        for instruction, argument, _ in pickletools.genops(held):
            if instruction.name in MEMO and not 0 <= int(str(argument)) <= len(held):
                raise ValueError(f"names the place {argument} in a pickle of {len(held)} bytes")
        return _plain(_Unpickler(io.BytesIO(held), encoding="latin1").load(), {})
    except RefusedPickleError:
        raise
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, IndexError, KeyError, EOFError, ImportError,
            OverflowError, MemoryError, RecursionError) as error:  # fmt: skip
        raise ValueError(f"its pickle is damaged: {first_line(error)}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2
        if (known := KNOWN.get((module, name))) is not None:
            return known
        raise RefusedPickleError(
            f"its pickle names {shortened([module])}.{shortened([name])}: only numbers, texts, lists, dictionaries and numpy's "
            "arrays are read, because anything else could run code"
        )


class _Known:
    """A function that a pickle may call. It takes no state: a pickle could otherwise change the function."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work

    def __call__(self, *arguments: Any) -> Any:
        return self._work(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickleError("its pickle changes a function of numpy")


class _Dtype:
    """The type of an array's elements, until all of it is read."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not (NUMBERS_AND_TEXTS.fullmatch(code) or OBJECTS.fullmatch(code)):
            raise RefusedPickleError(
                f"its pickle holds an array of {str(code)[:20]!r}, which is neither numbers nor texts"
            )
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        _, order, inner, names, fields, *_ = state
        if (inner, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise RefusedPickleError("its pickle holds an array of records")
        self.order = order

    @property
    def numpy(self) -> np.dtype[Any]:
        if OBJECTS.fullmatch(self.code):
            raise RefusedPickleError("its pickle holds Python objects where numbers belong")
        return np.dtype(self.code if self.order in "|=" else self.order + self.code)


class _Array:
    """An array, until all of it is read."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, held = state
        self.value = (held, dtype, shape, "F" if by_columns else "C")


def _scalar(dtype: _Dtype, held: Any) -> Any:
    return _numbers(held, dtype, (), "C")[()]


def _of_buffer(held: Any, dtype: _Dtype, shape: Any, order: str) -> _Array:
    array = _Array()
    array.value = (held, dtype, shape, order)
    return array


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, as Python 3 writes them in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError("its pickle encodes something that is no text")
    return text.encode("latin1")


KNOWN: Mapping[tuple[str, str], Any] = {
    ("numpy._core.multiarray", "_reconstruct"): _Known(_Array),
    ("numpy._core.multiarray", "scalar"): _Known(_scalar),
    ("numpy._core.numeric", "_frombuffer"): _Known(_of_buffer),
    ("numpy", "ndarray"): _Known(_Array),
    ("numpy", "dtype"): _Known(_Dtype),
    ("_codecs", "encode"): _Known(_encoded),
    ("collections", "OrderedDict"): _Known(dict),
    ("__builtin__", "bytes"): _Known(lambda: b""),  # no bytes at all, as Python 3 writes them in old protocols
}


def _numbers(held: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if isinstance(held, str):  # bytes of Python 2
        held = held.encode("latin1")
    if not isinstance(held, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise ValueError("an array in it has no bytes")
    kind, sizes = dtype.numpy, tuple(int(size) for size in shape)
    if min(sizes, default=0) < 0 or math.prod(sizes) * kind.itemsize != len(held):
        raise ValueError(f"an array in it has {len(held)} bytes, not those of {list(sizes)}")
    return np.frombuffer(held, kind).reshape(sizes, order="F" if order == "F" else "C")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The same with arrays as arrays. ``done``: what was made of arrays and containers that stand in several places."""
    if isinstance(value, _Known | _Dtype):
        raise RefusedPickleError("its pickle holds a function or a type")
    if not isinstance(value, _Array | dict | list | tuple | set | frozenset):
        return value
    if id(value) in done:
        if done[id(value)] is done:
            raise ValueError("its pickle holds a container that holds itself")
        return done[id(value)]
    done[id(value)] = done
    made: Any
    if isinstance(value, _Array):
        made = _array(value, done)
    elif isinstance(value, dict):
        made = {key: _plain(item, done) for key, item in value.items() if not isinstance(key, _Known | _Dtype | _Array)}
    else:
        made = [_plain(item, done) for item in value]
    done[id(value)] = made
    return made


def _array(value: _Array, done: dict[int, Any]) -> Any:
    """An array of numbers; of one of Python objects, what it holds."""
    held, dtype, shape, order = value.value
    if not isinstance(dtype, _Dtype) or not OBJECTS.fullmatch(dtype.code):
        return _numbers(held, dtype, shape, order)
    items = [_plain(item, done) for item in held]
    return items[0] if tuple(shape) == () and len(items) == 1 else items
