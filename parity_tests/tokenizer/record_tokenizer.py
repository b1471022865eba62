"""Records what transformers 4.57.6's slow LxmertTokenizer makes of the corpus: fixtures/tokenizer/.

Runs in the oracle's environment, on Python 3.11 (Unicode 14), never in the tests:
    .venv-tf/bin/python -m parity_tests.tokenizer.record_tokenizer
"""

from __future__ import annotations

import itertools
import json
import logging
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import transformers

from parity_tests.tokenizer import tokenizer_corpus as corpus
from parity_tests.tokenizer.tokenizer_recording import (
    CALLS,
    DECODINGS,
    FIXTURES,
    OPTIONS,
    RECORDING,
    STRATEGIES,
    VOCABULARY,
    call_texts,
    pairs_to_truncate,
    texts_to_decode,
)


def main() -> None:
    """Writes both files."""
    assert transformers.__version__ == "4.57.6" and unicodedata.unidata_version == "14.0.0"
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    VOCABULARY.write_text("".join(f"{token}\n" for token in corpus.vocabulary()), encoding="utf-8", newline="\n")
    tokenizer = transformers.LxmertTokenizer(str(VOCABULARY))
    strings, code_points = corpus.strings(), corpus.code_point_strings()
    recorded = {
        **ragged("strings", (tokenizer.encode(text, add_special_tokens=False) for text in strings)),
        **ragged("code_points", (tokenizer.encode(text, add_special_tokens=False) for text in code_points)),
        **categories(strings),
    }
    for number, options in enumerate(OPTIONS):
        other = transformers.LxmertTokenizer(str(VOCABULARY), **options)
        recorded |= ragged(
            f"options_{number}", (other.encode(text, add_special_tokens=False) for text in strings[::10])
        )
    for strategy in STRATEGIES:
        recorded |= ragged(
            strategy,
            (tokenizer.encode(*pair, truncation=strategy, max_length=length) for pair, length in pairs_to_truncate()),
        )
    calls = [called(tokenizer, call_texts(strings), keywords) for keywords in CALLS]
    decoded = [
        [tokenizer.decode(tokenizer.encode(text), **keywords) for keywords in DECODINGS]
        for text in texts_to_decode(strings)
    ]
    told = {"strings": corpus.fingerprint(strings), "calls": calls, "decoded": decoded, "unicode": "14.0.0"}
    recorded["told"] = np.frombuffer(json.dumps(told, ensure_ascii=False).encode(), np.uint8)
    np.savez_compressed(RECORDING, **recorded)


def ragged(name: str, rows: Iterable[Sequence[int]]) -> dict[str, np.ndarray]:
    """Rows of different lengths as two arrays."""
    kept = list(rows)
    flat = np.fromiter(itertools.chain.from_iterable(kept), np.int16)
    return {f"{name}.ids": flat, f"{name}.lengths": np.array([len(row) for row in kept], np.uint16)}


def categories(strings: Sequence[str]) -> dict[str, np.ndarray]:
    """The category of every character that occurs, as this Python knows it: another may know more of them."""
    codes = sorted({ord(c) for text in strings for c in text} | set(range(corpus.LAST_CODE_POINT)))
    return {
        "characters": np.array(codes, np.uint32),
        "categories": np.array([unicodedata.category(chr(code)) for code in codes], "S2"),
    }


def called(tokenizer: Any, batch: list[str], keywords: dict[str, Any]) -> dict[str, Any] | None:
    """A batch and its pairs; None where the keywords contradict each other."""
    try:
        alone = tokenizer(batch, return_special_tokens_mask=True, **keywords)
        paired = tokenizer(batch, batch[::-1], return_special_tokens_mask=True, **keywords)
    except ValueError:
        return None
    return {"alone": dict(alone), "paired": dict(paired)}


if __name__ == "__main__":
    main()
