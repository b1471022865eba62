"""The demo world: scenes, their pictures, what is found in them, and questions whose answers another program agrees with."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from lxmert_export.demo.drawing import draw_scene
from lxmert_export.demo.features import FEATURE_WIDTH, find_objects
from lxmert_export.demo.questions import FAMILIES, draw_caption, draw_question
from lxmert_export.demo.scenes import CANVAS, GAP, Scene, Shape, scene_of_seed
from lxmert_export.demo.words import ANSWERS, COLORS, MOST_SHAPES, SHAPES, SIZES, VOCABULARY
from lxmert_export.errors import InputError
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.tokenizer.opening import load_tokenizer
from lxmert_export.training.data import MASK, PAD, UNK, word_ids

SEEDS = range(120)


def described(text: str, scene: Scene) -> list[Shape]:
    """The shapes of a scene that a noun phrase speaks of, read word by word."""
    words = [re.sub(r"(?<=cross)es$|(?<!s)s$", "", word) for word in text.split()]
    found = list(scene.shapes)
    for word in words:
        if word in COLORS:
            found = [shape for shape in found if shape.color == word]
        elif word in SHAPES:
            found = [shape for shape in found if shape.kind == word]
        elif word in SIZES:
            found = [shape for shape in found if shape.size == word]
    return found


def answer(question: str, family: str, scene: Scene) -> str:
    """The answer to a question of this world, by taking it apart: written without a look at how it was put together."""
    if family in ("left-right", "above-below"):
        sides = ("left", "right") if family == "left-right" else ("above", "below")
        pattern = r"is the (.+?) (?:to the |on the )?(left|right|above|below)( or \w+)?(?: side)?(?: of)? the (.+) \?"
        match = re.fullmatch(pattern, question)
        assert match, question
        (one,) = described(match[1], scene)
        middle = Shape("", "", "", CANVAS // 2, CANVAS // 2, 0)
        (other,) = [middle] if match[4] == "middle" else described(match[4], scene)
        is_first = one.x < other.x if family == "left-right" else one.y < other.y
        side = sides[0] if is_first else sides[1]
        return side if match[3] else "yes" if match[2] == side else "no"
    found = described(question, scene)
    if family == "count":
        return str(len(found))
    if family == "existence":
        return "yes" if found else "no"
    (only,) = found
    return {"color": only.color, "shape": only.kind, "size": only.size}[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_what_another_program_finds(family: str) -> None:
    random, asked = Random(family), Counter[str]()
    for seed in range(600):
        scene = scene_of_seed(seed)
        try:
            question = draw_question(scene, random, family)
        except ValueError:  # a scene of shapes that cannot be told apart in words
            continue
        assert question.family == family
        assert answer(question.text, family, scene) == question.answer, (seed, question)
        asked[question.answer] += 1
    assert asked.total() > 500
    if "yes" in asked:
        assert 0.4 < asked["yes"] / (asked["yes"] + asked["no"]) < 0.6
    else:
        assert asked.most_common(1)[0][1] < 0.5 * asked.total()


def test_the_other_program_can_disagree() -> None:
    scene = scene_of_seed(3)
    wrong = Scene(3, tuple(Shape(s.kind, s.color, s.size, CANVAS - s.x, CANVAS - s.y, s.radius) for s in scene.shapes))
    question = draw_question(scene, Random(1), "left-right")
    assert answer(question.text, "left-right", wrong) != question.answer


def test_captions_are_true_or_false_as_asked() -> None:
    random = Random(5)
    counted = re.compile(r"there (?:are (\d+)|is an?) (.+) \.")
    placed = re.compile(r"the (.+) is (left|right) of the (.+) \.")
    middle = Shape("", "", "", CANVAS // 2, CANVAS // 2, 0)
    seen = Counter[tuple[bool, bool]]()
    for seed in range(400):
        scene, other, true = scene_of_seed(seed), scene_of_seed(seed + 1000), random.random() < 0.5
        caption = draw_caption(scene, other, random, true=true)
        if match := counted.fullmatch(caption):
            found = len(described(match[2], scene))
            assert (found == int(match[1]) if match[1] else found > 0) is true, seed
        else:
            match = placed.fullmatch(caption)
            assert match, caption
            ones, others = described(match[1], scene), described(match[3], scene)
            others = [middle] if match[3] == "middle" else others
            # Of a scene that the words do not single shapes out in, false means: no two so described stand so.
            holds = any((a.x < b.x) is (match[2] == "left") for a in ones for b in others if a is not b)
            assert holds is true, (seed, caption)
        seen[true, bool(counted.fullmatch(caption))] += 1
    assert len(seen) == 4 and min(seen.values()) > 20


def test_everything_said_is_in_the_vocabulary_and_every_answer_has_a_label() -> None:
    tokenizer, random, answers = load_tokenizer(DEMO_DIRECTORY), Random(7), set()
    used: set[int] = set()
    for seed in range(1500):
        scene = scene_of_seed(seed)
        question = draw_question(scene, random)
        answers.add(question.answer)
        for sentence in (question.text, draw_caption(scene, scene, random, true=True)):
            ids = tokenizer.encode(sentence)
            assert ids == word_ids(sentence)  # training had a quicker way to the same ids
            used |= set(ids)
    assert used == set(range(len(VOCABULARY))) - {PAD, UNK, MASK}
    assert answers == set(ANSWERS) and len(ANSWERS) == len(set(ANSWERS)) == 40
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_scenes_are_those_of_their_seeds() -> None:
    """What accuracy was measured on must stay what it was."""
    text = json.dumps([[vars(shape) for shape in scene_of_seed(seed).shapes] for seed in SEEDS])
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "53b5db1ef1b309c7b6878f038138b521147c9fb7b24abaf058aed549addb0887"
    )
    assert {len(scene_of_seed(seed).shapes) for seed in SEEDS} == set(range(3, MOST_SHAPES + 1))


@pytest.mark.parametrize("seed", SEEDS[::4])
def test_what_was_drawn_is_found_in_the_picture(seed: int) -> None:
    scene = scene_of_seed(seed)
    for number, one in enumerate(scene.shapes):
        for other in scene.shapes[:number]:
            assert np.hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius + GAP
    objects = find_objects(draw_scene(scene))
    assert objects.features.shape == (len(scene.shapes), FEATURE_WIDTH)
    assert objects.features.min() >= 0 and objects.features.max() < 1
    assert np.array_equal(objects.features.astype(np.float16).astype(np.float32), objects.features)
    x1, y1, x2, y2 = (objects.boxes * CANVAS).T
    for shape in scene.shapes:
        around = (x1 >= shape.x - shape.radius - 1) & (x2 <= shape.x + shape.radius + 1)
        around &= (y1 >= shape.y - shape.radius - 1) & (y2 <= shape.y + shape.radius + 1)
        assert around.sum() == 1, shape


def test_the_same_picture_twice_as_large_shows_the_same() -> None:
    picture = draw_scene(scene_of_seed(11))
    one = find_objects(picture)
    other = find_objects(picture.resize((2 * CANVAS, 2 * CANVAS), Image.Resampling.NEAREST))
    assert np.array_equal(one.boxes, other.boxes)
    # Pillow's box filter takes whole pixels, so that edges of a crop move by half of one: 0.02 was seen.
    assert np.sqrt(np.square(one.features - other.features).mean()) < 0.03


def test_another_background_and_dust_do_not_matter() -> None:
    picture = draw_scene(scene_of_seed(11))
    one = find_objects(picture)
    values = np.array(picture)
    values[(values > 250).all(axis=-1)] = (230, 235, 225)
    values[0, 0] = values[3, 200] = (0, 0, 0)
    other = find_objects(Image.fromarray(values))
    assert len(one.boxes) == len(other.boxes)
    assert np.abs(one.boxes - other.boxes).max() < 0.02


def test_a_picture_of_nothing() -> None:
    with pytest.raises(InputError, match="no shape"):
        find_objects(Image.new("RGB", (64, 64), "white"))


def test_the_files_beside_the_checkpoint_are_this_world_s() -> None:
    assert (DEMO_DIRECTORY / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == list(VOCABULARY)
    assert json.loads((DEMO_DIRECTORY / "labels.json").read_text(encoding="utf-8")) == list(ANSWERS)
