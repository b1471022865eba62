"""How VQA's official program makes two spellings of an answer equal, with its quirks: they decide scores.

Source: vqaEval.py of GT-Vision-Lab/VQA, commit c4e6a0e. The tables are that program's, written more briefly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

DIGITS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# Meant is "no digit before, no digit after". The first group asks for no "<=" and a digit at the place of the period, which is
# never there: every period without a digit after it goes.
PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
# The program hands the flag re.UNICODE to the parameter for the number of replacements: later periods stay.
MOST_PERIODS = int(re.UNICODE)
CACHED = 1 << 17  # answers: those of VQA repeat
COMMA_IN_NUMBER = re.compile(r"(\d)(\,)(\d)")

# Found when their apostrophe was left out.
ONE_APOSTROPHE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd it'll
    ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll somebody's
    someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
    wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're
    why's won't would've wouldn't y'all you'd you'll you're you've
""".split()
# Found when either apostrophe was left out, but not when both were.
TWO_APOSTROPHES = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've there'd've
    they'd've we'd've who'd've wouldn't've y'all'll you'd've
""".split()
ODD = {
    "somebody'd": "somebodyd",
    **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
    **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
}


def _contractions() -> Iterator[tuple[str, str]]:
    for word in ONE_APOSTROPHE:
        yield word.replace("'", ""), word
    for word in TWO_APOSTROPHES:
        first, second, third = word.split("'")
        yield f"{first}{second}'{third}", word
        yield f"{first}'{second}{third}", word
    yield from ODD.items()


# The program's entries that change nothing (let's, she's) or begin with a capital, which no answer has by then, are left out.
CONTRACTIONS = dict(_contractions())


@lru_cache(maxsize=CACHED)
def trimmed(answer: str) -> str:
    """Returns an answer without line breaks, tabs, and white space around it."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=CACHED)
def normalised(answer: str) -> str:
    """Returns an answer without punctuation and articles, in lower case, with digits for numbers and full contractions."""
    return with_digits(without_punctuation(answer))


def without_punctuation(answer: str) -> str:
    """Removes punctuation: a mark goes if white space touches one like it, or if there is a 1,000; else a space replaces it."""
    has_number = COMMA_IN_NUMBER.search(answer) is not None
    shorter = answer
    for mark in PUNCTUATION:
        goes = has_number or f"{mark} " in answer or f" {mark}" in answer
        shorter = shorter.replace(mark, "" if goes else " ")
    return PERIOD.sub("", shorter, count=MOST_PERIODS)


def with_digits(answer: str) -> str:
    """Returns the words in lower case without articles, numbers up to ten as digits, and contractions with apostrophes."""
    words = [DIGITS.get(word, word) for word in answer.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
