"""Compares our tokenizers with transformers' fast one: the same questions, one thread, in turn in one process.

Writes benchmarks/tokenizers.json and .md. Run: make benchmark
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from transformers import LxmertTokenizerFast as TheirTokenizer  # type: ignore[attr-defined]  # transformers creates it on demand

from benchmarks.measuring import machine, spread
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.tokenizer.pure import LxmertTokenizer

HERE = Path(__file__).parent
OURS, THEIRS, PURE = "LxmertTokenizerFast", "transformers' fast", "LxmertTokenizer (pure Python)"
VOCABULARY_SIZE = 30_522  # BERT's
PADDED: dict[str, Any] = {"padding": "max_length", "max_length": 20, "truncation": True, "return_tensors": "np"}
WAYS = ("one batch, padded to 20, numpy", "one batch, lists", "one call a question, numpy")

SYLLABLES = "ba be ca co da de el en fa go ha in ja ka la lo ma mi na no on pa ra ri sa so ta ti un va".split()
OPENINGS = (
    "what color is the", "how many people are near the", "is there a", "what is on the", "who is holding the",
    "where is the", "what kind of", "is the man looking at the",
)  # fmt: skip


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each tokenizer")
    arguments = parser.parse_args()
    # One thread each, so that the work is compared; other cores may be busy.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    results = measure(arguments.questions, arguments.runs)
    (HERE / "tokenizers.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "tokenizers.md").write_text(page, encoding="utf-8")
    print(page)


def measure(count: int, runs: int) -> dict[str, Any]:
    """Measures CPU seconds for all questions, of each way and tokenizer in each run; other programs hardly matter."""
    words = vocabulary()
    texts = questions(words, count)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-benchmark-") as place:
        file = Path(place) / "vocab.txt"
        file.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        tokenizers: dict[str, Any] = {
            OURS: LxmertTokenizerFast(file),
            THEIRS: TheirTokenizer(str(file)),
            PURE: LxmertTokenizer(file),
        }
    wanted = tokenizers[THEIRS](texts, **PADDED)
    for tokenizer in tokenizers.values():  # the warm-up; equal arrays make the figures comparable
        found = tokenizer(texts, **PADDED)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    seconds: dict[str, dict[str, list[float]]] = {way: {name: [] for name in tokenizers} for way in WAYS}
    for run in range(runs):
        for name, tokenizer in tokenizers.items():
            for way, work in workloads(tokenizer, texts).items():
                if name == PURE:
                    tokenizer._prepare(tokenizer.get_vocab(), tokenizer.settings)  # forgets the words of the last run
                started = time.process_time()
                work()
                seconds[way][name].append(time.process_time() - started)
        print(f"run {run + 1} of {runs}", flush=True)
    return {
        "machine": f"{machine()}, tokenizers {version('tokenizers')}",
        "questions": count,
        "tokens": int(wanted["attention_mask"].sum()),
        "seconds": seconds,
    }


def workloads(tokenizer: Any, texts: list[str]) -> dict[str, Callable[[], object]]:
    """Returns what is timed; single calls take only a tenth of the questions, and the page says so."""
    few = texts[: len(texts) // 10]
    return {
        WAYS[0]: lambda: tokenizer(texts, **PADDED),
        WAYS[1]: lambda: tokenizer(texts),
        WAYS[2]: lambda: [tokenizer(text, **PADDED) for text in few],
    }


def vocabulary() -> list[str]:
    """Returns BERT's special tokens in their places, letters, the openings' words, and made-up words and pieces."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    tokens += [word for opening in OPENINGS for word in opening.split()]
    tokens += [f"##{piece}" for piece in (*letters, *SYLLABLES)]
    tokens += [a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", *SYLLABLES)]
    tokens += [f"##{a}{b}" for a in SYLLABLES for b in SYLLABLES]
    tokens += [f"##{a}{b}{c}" for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]
    return list(dict.fromkeys(tokens))[:VOCABULARY_SIZE]


def questions(words: list[str], count: int) -> list[str]:
    """Returns openings with one to four words each; every fourth question ends in a word that the vocabulary lacks."""
    generator = random.Random(0)
    whole = [word for word in words[200:] if word.isalpha()]
    texts = []
    for number in range(count):
        more = [generator.choice(whole) for _ in range(1 + number % 4)]
        if number % 4 == 3:
            more[-1] += generator.choice(SYLLABLES) + "x"
        texts.append(f"{generator.choice(OPENINGS).capitalize()} {' '.join(more)}?")
    return texts


def report(results: dict[str, Any]) -> str:
    """Returns the page: medians, spreads and ratios."""
    count, seconds = results["questions"], results["seconds"]
    lines = [
        "# Tokenizers beside transformers' fast one",
        "",
        f"Measured by `make benchmark` on {results['machine']}.",
        "",
        f"{count:,} made-up questions ({results['tokens'] / count:.1f} tokens each, special tokens included), and a made-up",
        f"vocabulary of BERT's size ({VOCABULARY_SIZE:,}). CPU seconds with one thread, median (least to largest) of",
        f"{len(seconds[WAYS[0]][OURS])} runs, in turn in one process. The pure tokenizer begins each run with an empty cache of",
        "words. Ratios are those of medians: below 1 is faster than transformers. All three give the same arrays.",
        "",
        "| | " + " | ".join(seconds[WAYS[0]]) + " | ratio, fast | ratio, pure |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        times = seconds[way]
        theirs = statistics.median(times[THEIRS])
        ratios = " | ".join(f"{statistics.median(times[name]) / theirs:.2f}" for name in (OURS, PURE))
        note = f" ({count // 10:,})" if way == WAYS[2] else ""
        lines.append(
            f"| {way}{note} | " + " | ".join(spread(values, 2) for values in times.values()) + f" | {ratios} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
