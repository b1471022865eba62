"""Strings that tokenizers disagree about, and a vocabulary that shows it: the same on every Python, by arithmetic alone.

Nothing here asks ``unicodedata``, whose tables differ from one Python to the next; of ``random`` it takes only ``random()``,
whose sequence is promised to stay. Also run by the oracle's environment (record_tokenizer.py): the standard library only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

STRINGS = 20_000
LAST_CODE_POINT = 0x11000  # every code point below is tried by itself
SURROGATES = range(0xD800, 0xE000)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

WORDS = """what color is the man on left of a dog how many people are in this picture there cat sitting table where who why
which kind red blue green yellow black white woman wearing hat bus street sign train water tennis playing ball umbrella
kitchen number does it he she they holding phone one two three yes no not do can see behind under next to front eating
hello world unaffable café cafe naïve naive straße fiancée über uber élan señor don isn 2021 100 42 3""".split()
PIECES = """
ing ed er est ly s es tion un re aff able ness ment ful less th he in an on at or en te nd st ar 00 20 é ç ñ""".split()

# Blocks whose letters are in the vocabulary, as the beginning and as the continuation of words.
KNOWN_BLOCKS = (
    (0x21, 0x7E), (0xA1, 0xFF), (0x100, 0x13F), (0x300, 0x315), (0x391, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA),
    (0x620, 0x652), (0x904, 0x94D), (0xE01, 0xE3A), (0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2),
    (0x2010, 0x2027), (0x20A0, 0x20AC), (0x3041, 0x3093), (0x30A1, 0x30F3), (0x4E00, 0x4E7F), (0xAC00, 0xAC1F),
    (0xFF01, 0xFF20), (0x1F600, 0x1F60F),
)  # fmt: skip
# A sample of every plane that holds letters, and of those that hold none yet.
SCRIPTS = (
    (0x41, 0x7A), (0xC0, 0x24F), (0x250, 0x2FF), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58F), (0x591, 0x5F4),
    (0x600, 0x6FF), (0x700, 0x74F), (0x780, 0x7BF), (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xAFF), (0xB00, 0xBFF),
    (0xC00, 0xCFF), (0xD00, 0xDFF), (0xE00, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F),
    (0x13A0, 0x13FF), (0x1400, 0x167F), (0x1680, 0x16FF), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1E00, 0x1FFF),
    (0x2C00, 0x2DFF), (0x3040, 0x30FF), (0x3105, 0x312F), (0xA000, 0xA4CF), (0xA640, 0xA7FF), (0xAC00, 0xD7A3),
    (0xFB00, 0xFDFF), (0x10000, 0x1018E), (0x10330, 0x1034A), (0x10400, 0x1044F), (0x11000, 0x1107F), (0x12000, 0x123FF),
    (0x16A00, 0x16AFF), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F),
)  # fmt: skip
MARKS = (
    (0x300, 0x36F),
    (0x483, 0x489),
    (0x591, 0x5BD),
    (0x64B, 0x65F),
    (0x93C, 0x94D),
    (0x20D0, 0x20F0),
    (0x3099, 0x309A),
)
CHINESE = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0x2F800, 0x2FA1F),
    (0x3000, 0x303F), (0x2E80, 0x2FDF), (0x30000, 0x3134A),
)  # fmt: skip
CONTROLS = (
    (0x0, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x180B, 0x180E), (0x200B, 0x200F),
    (0x202A, 0x202E), (0x2060, 0x206F), (0xE000, 0xE010), (0xFDD0, 0xFDD3), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFF), (0x1D173, 0x1D17A), (0xE0001, 0xE007F), (0xF0000, 0xF0005), (0x10FFFD, 0x10FFFF),
)  # fmt: skip
UNASSIGNED = (
    (0x378, 0x379), (0x380, 0x383), (0x530, 0x530), (0x5C8, 0x5CF), (0x85F, 0x85F), (0xE3B, 0xE3E), (0x1CBB, 0x1CBC),
    (0x2065, 0x2065), (0x218C, 0x218F), (0x2FE0, 0x2FEF), (0xFBC3, 0xFBD2), (0x1FFFE, 0x1FFFF), (0x40000, 0x40010),
)  # fmt: skip
WHITE_SPACE = [
    *"\t\n\r\v\f\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000",
    *map(chr, range(0x2000, 0x200B)),
]
SIGNS = (
    (0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x2027), (0x2030, 0x205E),
    (0x20A0, 0x20BF), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2460, 0x24FF), (0x2E00, 0x2E5D), (0x3001, 0x3020), (0xFE10, 0xFE6B),
    (0xFF01, 0xFF20), (0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0xFF10, 0xFF19), (0xB2, 0xB3), (0x2160, 0x2188),
)  # fmt: skip
EMOJI = (
    "😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇺🇸🇫", "❤️", "1️⃣", "☎", "🫠", "🧑🏿‍🚀", "©️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
)  # fmt: skip
BROKEN_SPECIAL = (
    "[mask]",
    "[MASK",
    "MASK]",
    "[ MASK ]",
    "[MA\0SK]",
    "[MA\u200bSK]",
    "[ＭＡＳＫ]",
    "[MÄSK]",
    "[CLS]]",
    "[[SEP]",
    "##ing",
)
CASES = "ßẞſﬁǅİıΣσςŸÅKµ"


def vocabulary() -> list[str]:
    """Laid out as BERT's: [PAD] at 0, [UNK] [CLS] [SEP] [MASK] at 100 to 103, then letters, words and pieces."""
    letters = [chr(code) for first, last in KNOWN_BLOCKS for code in range(first, last + 1)]
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(99)), *SPECIAL[1:], *letters, *WORDS, *CASES]
    tokens += [f"##{piece}" for piece in (*letters, *PIECES, *WORDS, *CASES)]
    return list(dict.fromkeys(tokens))


def strings(count: int = STRINGS) -> list[str]:
    """Different strings of one to three parts, each part of a random kind."""
    pick = Pick(20_210_405)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(KINDS[pick.below(len(KINDS))](pick) for _ in range(pick.below(3) + 1))] = None
    return list(found)


def code_point_strings() -> list[str]:
    """Each code point by itself and inside a word: so that what is dropped, split at or unknown shows."""
    return [f"{chr(code)} a{chr(code)}b" for code in range(LAST_CODE_POINT) if code not in SURROGATES]


def pairs(count: int) -> list[tuple[str, str]]:
    """Pairs of up to nine words a side, for truncation: every word is one token."""
    pick = Pick(7)
    words = ("dog", "cat", "bus", "red", "hat", "man", "one", "two", "sign")
    return [tuple(" ".join(words[: pick.below(10)]) for _ in range(2)) for _ in range(count)]  # type: ignore[misc]


def fingerprint(texts: Sequence[str]) -> str:
    """Tells whether this Python makes the very strings that were recorded."""
    return hashlib.sha256("\0\0".join(texts).encode()).hexdigest()


class Pick:
    """Choices made of ``random()`` alone."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, limit: int) -> int:
        return int(self._random() * limit)

    def one(self, choices: Sequence[str]) -> str:
        return choices[self.below(len(choices))]

    def character(self, blocks: Sequence[tuple[int, int]]) -> str:
        first, last = blocks[self.below(len(blocks))]
        return chr(first + self.below(last - first + 1))


def sentence(pick: Pick) -> str:
    words = [pick.one(WORDS) for _ in range(pick.below(6) + 1)]
    return " ".join(words) + pick.one(("?", ".", "", " "))


def capitals(pick: Pick) -> str:
    return "".join(c.upper() if pick.below(2) else c for c in sentence(pick)) + pick.one(CASES)


def script(pick: Pick) -> str:
    block = (SCRIPTS[pick.below(len(SCRIPTS))],)
    return "".join(pick.character(block) for _ in range(pick.below(6) + 1))


def marked(pick: Pick) -> str:
    parts = []
    for _ in range(pick.below(4) + 1):
        parts.append(pick.character(SCRIPTS[:6]))
        parts += [pick.character(MARKS) for _ in range(pick.below(4))]
    return "".join(parts)


def chinese(pick: Pick) -> str:
    return "".join(pick.character(CHINESE) if pick.below(4) else "a" for _ in range(pick.below(5) + 1))


def among_letters(blocks: Sequence[tuple[int, int]]) -> Callable[[Pick], str]:
    def kind(pick: Pick) -> str:
        return "".join(pick.character(blocks) if pick.below(2) else pick.one("abé1") for _ in range(pick.below(8) + 1))

    return kind


def spaces(pick: Pick) -> str:
    return "".join(pick.one(WHITE_SPACE) if pick.below(2) else pick.one("ab") for _ in range(pick.below(8) + 1))


def emoji(pick: Pick) -> str:
    return "".join(pick.one(EMOJI) for _ in range(pick.below(3) + 1))


def special(pick: Pick) -> str:
    parts = (*SPECIAL, *BROKEN_SPECIAL)
    return "".join(pick.one((pick.one(parts), "hi", " ", "ing")) for _ in range(pick.below(5) + 1))


def long_word(pick: Pick) -> str:
    """Around the limit of 100 characters, which accents cross: they count after they are stripped or composed."""
    unit = pick.one(("a", "th", "e\u0301", "é", "ü", "한"))
    return (unit * 130)[: 96 + pick.below(9)] + pick.one((unit, "", "!", "x")) if not pick.below(3) else unit * 9


def anything(pick: Pick) -> str:
    codes = [pick.below(0x110000) for _ in range(pick.below(5) + 1)]
    return "".join(chr(code) for code in codes if code not in SURROGATES)


KINDS: tuple[Callable[[Pick], str], ...] = (
    sentence, sentence, capitals, script, script, marked, chinese, among_letters(CONTROLS), among_letters(UNASSIGNED),
    among_letters(SIGNS), among_letters(SIGNS), spaces, emoji, special, long_word, anything,
)  # fmt: skip
