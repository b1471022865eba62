"""A scene of the demo world → questions about it with their answers, and captions that are true or false of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from lxmert_export.demo.scenes import CANVAS, Scene, Shape
from lxmert_export.demo.words import COLORS, SHAPES, SIZES, plural

LEAST_DISTANCE = CANVAS // 12  # pixels between two centres along the axis that a question asks about
ANY_KIND = ("thing", "object", "shape")
TRIES = 12  # draws to find a question of a family; a scene of equal shapes allows few


@dataclass(frozen=True)
class Question:
    """A question, its only right answer, and its family."""

    text: str
    answer: str
    family: str


@dataclass(frozen=True)
class Description:
    """A description of shapes; None leaves an attribute open."""

    size: str | None = None
    color: str | None = None
    kind: str | None = None

    def fits(self, shape: Shape) -> bool:
        """Whether a shape fits the description."""
        return self.size in (None, shape.size) and self.color in (None, shape.color) and self.kind in (None, shape.kind)

    def count(self, scene: Scene) -> int:
        """Returns the number of shapes of a scene that fit the description."""
        return sum(map(self.fits, scene.shapes))

    def text(self, random: Random, *, many: bool = False) -> str:
        """Returns ``small red circle``; or ``small red things`` for many whose kind is left open."""
        noun = self.kind or random.choice(ANY_KIND)
        return " ".join(word for word in (self.size, self.color, plural(noun) if many else noun) if word)

    def with_article(self, random: Random) -> str:
        """Returns ``a small circle``, or ``an orange circle``."""
        text = self.text(random)
        return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


@dataclass(frozen=True)
class Place:
    """A place to compare with another: a shape, described so that only it fits, or the middle of the picture."""

    text: str
    x: int
    y: int
    described: Description | None = None


MIDDLE = Place("middle", CANVAS // 2, CANVAS // 2)
Asker = Callable[[Scene, Random], Question | None]


def draw_question(scene: Scene, random: Random, family: str | None = None) -> Question:
    """Returns a question about a scene, of ``family`` or of a random one. ``ValueError``: the scene allows none."""
    families = [family] if family else random.sample(tuple(FAMILIES), len(FAMILIES))
    for name in families:
        for _ in range(TRIES):
            if question := FAMILIES[name](scene, random):
                return question
    raise ValueError(f"scene {scene.seed} allows no question of family {family}")


def ask_color(scene: Scene, random: Random) -> Question | None:
    """What colour is the large circle?"""
    forms = (
        "what color is the {} ?", "what colour is the {} ?", "what is the color of the {} ?",
        "which color does the {} have ?", "tell me the color of the {} .",
    )  # fmt: skip
    return _ask_of_one(scene, random, "color", "color", forms)


def ask_shape(scene: Scene, random: Random) -> Question | None:
    """What shape is the small red thing?"""
    forms = (
        "what shape is the {} ?", "what is the shape of the {} ?", "which shape does the {} have ?", "what is the {} ?",
    )  # fmt: skip
    return _ask_of_one(scene, random, "shape", "kind", forms)


def ask_size(scene: Scene, random: Random) -> Question | None:
    """What size is the red circle?"""
    forms = ("what size is the {} ?", "what is the size of the {} ?", "which size does the {} have ?")
    return _ask_of_one(scene, random, "size", "size", forms)


def ask_count(scene: Scene, random: Random) -> Question | None:
    """How many red circles are there?"""
    described = _absent(scene, random) if random.random() < 0.15 else _present(scene, random)
    if described is None:
        return None
    things = described.text(random, many=True)
    text = random.choice((
        f"how many {things} are there ?", f"how many {things} are in the picture ?", f"count the {things} .",
        f"how many {things} can you see ?", f"what is the number of {things} ?", f"how many {things} do you see ?",
    ))  # fmt: skip
    return Question(text, str(described.count(scene)), "count")


def ask_existence(scene: Scene, random: Random) -> Question | None:
    """Is there a red circle?"""
    exists = random.random() < 0.5
    # A description that fits no shape takes several draws to find; with one draw, yes would outnumber no.
    draws = (_present(scene, random) if exists else _absent(scene, random) for _ in range(TRIES))
    described = next((drawn for drawn in draws if drawn not in (None, Description())), None)
    if described is None:
        return None
    thing = described.with_article(random)
    things = described.text(random, many=True)
    text = random.choice((
        f"is there {thing} ?", f"is there {thing} in the picture ?", f"are there any {things} ?", f"do you see {thing} ?",
        f"can you see any {things} ?", f"does the picture have {thing} ?",
    ))  # fmt: skip
    return Question(text, "yes" if exists else "no", "existence")


def ask_left_right(scene: Scene, random: Random) -> Question | None:
    """Is the red circle left of the blue square?"""
    return _ask_place(scene, random, "left-right", ("left", "right"), _x)


def ask_above_below(scene: Scene, random: Random) -> Question | None:
    """Is the red circle above the blue square?"""
    return _ask_place(scene, random, "above-below", ("above", "below"), _y)


FAMILIES: dict[str, Asker] = {
    "color": ask_color,
    "shape": ask_shape,
    "size": ask_size,
    "count": ask_count,
    "existence": ask_existence,
    "left-right": ask_left_right,
    "above-below": ask_above_below,
}


def questions_of_every_family(scene: Scene, random: Random) -> Iterator[Question]:
    """Yields one question of each family that the scene allows."""
    for family in FAMILIES:
        with suppress(ValueError):
            yield draw_question(scene, random, family)


def draw_caption(scene: Scene, other: Scene, random: Random, *, true: bool) -> str:
    """Returns a sentence that is true of ``scene``; unless ``true``, one that is false of it and true of ``other``."""
    described = scene if true else other
    for _ in range(TRIES):
        text, holds = _claim(described, random)
        if true or not holds(scene):
            return text
    return f"there are {len(scene.shapes) % 9 + 2} things ."  # never the true count


def _claim(scene: Scene, random: Random) -> tuple[str, Callable[[Scene], bool]]:
    """Returns a sentence that is true of a scene, and a function: whether it is true of another scene."""
    pair = _two_places(scene, random, _x) if random.random() < 0.4 else None
    if pair is not None:
        first, second = pair
        left = first.x < second.x
        text = f"the {first.text} is {'left' if left else 'right'} of the {second.text} ."
        return text, lambda other: _holds_of_pair(other, first, second, left)
    described = _present(scene, random)
    count = described.count(scene)
    if count == 1:
        return f"there is {described.with_article(random)} .", lambda other: described.count(other) > 0
    return f"there are {count} {described.text(random, many=True)} .", lambda other: described.count(other) == count


def _holds_of_pair(scene: Scene, first: Place, second: Place, left: bool) -> bool:
    """Whether any two shapes that fit the descriptions stand like that: a false caption is false of all such pairs."""
    firsts, seconds = (
        [s for s in scene.shapes if place.described and place.described.fits(s)] for place in (first, second)
    )
    if second.described is None:
        return any((shape.x < second.x) == left for shape in firsts)
    return any((a.x < b.x) == left for a in firsts for b in seconds if a is not b)


def _ask_of_one(scene: Scene, random: Random, family: str, attribute: str, forms: Sequence[str]) -> Question | None:
    """Asks for one attribute of a shape; the description fits only that shape and leaves the attribute out."""
    shape = random.choice(scene.shapes)
    described = _unique(scene, shape, random, leave_out=attribute)
    if described is None:
        return None
    thing = described.text(random)
    if family == "shape":
        thing = thing.replace("shape", "thing")  # not: what shape is the red shape?
    return Question(random.choice(forms).format(thing), getattr(shape, attribute), family)


def _ask_place(
    scene: Scene, random: Random, family: str, sides: tuple[str, str], along: Callable[[Place], int]
) -> Question | None:
    pair = _two_places(scene, random, along)
    if pair is None:
        return None
    first, second = pair
    side = sides[0] if along(first) < along(second) else sides[1]
    a, b = f"the {first.text}", f"the {second.text}"
    of = " of" if family == "left-right" else ""
    if random.random() < 0.5:
        names = random.sample(sides, 2)
        return Question(f"is {a} {names[0]} or {names[1]}{of} {b} ?", side, family)
    asked = random.choice(sides)
    forms = (f"is {a} {asked}{of} {b} ?", f"is {a} to the {asked} of {b} ?", f"is {a} on the {asked} side of {b} ?")
    text = random.choice(forms if family == "left-right" else forms[:1])
    return Question(text, "yes" if asked == side else "no", family)


def _two_places(scene: Scene, random: Random, along: Callable[[Place], int]) -> tuple[Place, Place] | None:
    """Returns a shape, and another shape or the middle, far enough apart; each is described so that only it fits."""
    shape, *others = random.sample(scene.shapes, min(2, len(scene.shapes)))
    first = _place(scene, shape, random)
    # To compare a shape with the middle is learnt before comparing two shapes.
    second = MIDDLE if not others or random.random() < 0.3 else _place(scene, others[0], random)
    if first is None or second is None or abs(along(first) - along(second)) < LEAST_DISTANCE:
        return None
    return first, second


def _place(scene: Scene, shape: Shape, random: Random) -> Place | None:
    described = _unique(scene, shape, random)
    return None if described is None else Place(described.text(random), shape.x, shape.y, described)


def _x(place: Place) -> int:
    return place.x


def _y(place: Place) -> int:
    return place.y


def _unique(scene: Scene, shape: Shape, random: Random, leave_out: str | None = None) -> Description | None:
    """Returns a description that only this shape fits, mostly a short one; None if there is none."""
    full = {"size": shape.size, "color": shape.color, "kind": shape.kind}
    full = {name: value for name, value in full.items() if name != leave_out}
    choices = [
        described
        for names in _subsets(tuple(full))
        if (described := Description(**{name: full[name] for name in names})).count(scene) == 1
    ]
    if not choices:
        return None
    return choices[0] if random.random() < 0.5 else random.choice(choices)


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns all subsets but the empty one, the shortest first."""
    found = [tuple(n for bit, n in enumerate(names) if mask >> bit & 1) for mask in range(1, 1 << len(names))]
    return sorted(found, key=len)


def _present(scene: Scene, random: Random) -> Description:
    """Returns a description that at least one shape fits."""
    shape = random.choice(scene.shapes)
    return Description(
        size=shape.size if random.random() < 0.3 else None,
        color=shape.color if random.random() < 0.5 else None,
        kind=shape.kind if random.random() < 0.6 else None,
    )


def _absent(scene: Scene, random: Random) -> Description | None:
    """Returns a description that no shape fits, mostly of kinds and colours that are in the scene; None if one fits."""
    near = random.random() < 0.7
    kinds = [s.kind for s in scene.shapes] if near else SHAPES
    colors = [s.color for s in scene.shapes] if near else COLORS
    described = Description(
        size=random.choice(SIZES) if random.random() < 0.3 else None,
        color=random.choice(colors) if random.random() < 0.8 else None,
        kind=random.choice(kinds) if random.random() < 0.8 else None,
    )
    return described if described.count(scene) == 0 else None
