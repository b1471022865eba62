"""Every word and every answer of the demo world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a shape can be. The object heads' classes have this order, so the trained weights depend on it.
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart", "moon", "arrow")
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "gray", "cyan")
SIZES = ("small", "medium", "large")
MOST_SHAPES = 10

ANSWERS = (
    *COLORS, *SHAPES, *SIZES,
    *(str(count) for count in range(MOST_SHAPES + 1)),
    "yes", "no", "left", "right", "above", "below",
)  # fmt: skip

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ENDINGS = ("##s", "##es")  # circle + ##s, cross + ##es
WORDS = (
    *COLORS, *SHAPES, *SIZES, *(str(count) for count in range(2, MOST_SHAPES + 1)),
    "?", ".", "a", "an", "the", "is", "are", "there", "of", "to", "or", "in", "any", "on",
    "what", "which", "how", "many", "number", "count", "color", "colour", "shape", "size", "thing", "object", "picture",
    "left", "right", "above", "below", "side", "middle", "do", "does", "you", "see", "can", "have", "tell", "me",
)  # fmt: skip
VOCABULARY = (*SPECIAL_TOKENS, *WORDS, *ENDINGS)


def plural(noun: str) -> str:
    """Returns ``crosses`` for ``cross``."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


# A field of the checkpoint's config.json that every conversion keeps: its features are crops of such pictures.
WORLD_FIELD, WORLD = "demo_world", "coloured shapes 1"


def is_demo_world(fields: Mapping[str, Any]) -> bool:
    """Whether a config's extra fields say that the checkpoint reads pictures of the demo world."""
    return fields.get(WORLD_FIELD) == WORLD
