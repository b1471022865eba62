"""Scenes and the objects in their pictures, as arrays, and seeded batches of sentences about them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lxmert_export.demo.drawing import draw_scene
from lxmert_export.demo.features import FEATURE_WIDTH, PIXEL_SCALE, find_objects
from lxmert_export.demo.questions import FAMILIES, Question, draw_caption, draw_question
from lxmert_export.demo.scenes import CANVAS, Scene, scene_of_seed
from lxmert_export.demo.words import ANSWERS, COLORS, MOST_SHAPES, SHAPES, VOCABULARY
from lxmert_export.model.losses import IGNORE_INDEX

ROOMS = Path(__file__).parent.parent
SOURCES = (ROOMS / "demo", ROOMS / "training")
PAD, UNK, CLS, SEP, MASK = range(5)
WORD_IDS = {word: number for number, word in enumerate(VOCABULARY)}
ANSWER_IDS = {answer: number for number, answer in enumerate(ANSWERS)}
# How often each family is asked in training. In trials, where two shapes lie was learnt last.
WEIGHTS = {family: 3 if family in ("left-right", "above-below") else 1 for family in FAMILIES}
MASKED_SHARE = 0.15  # of the words and objects of a masked sentence


@dataclass(frozen=True)
class Scenes:
    """Many scenes, and the objects that their pictures show.

    - ``pixels`` uint8 [scenes, MOST_SHAPES, FEATURE_WIDTH]; ``boxes`` float32 [scenes, MOST_SHAPES, 4].
    - ``kinds`` and ``colors`` int64 [scenes, MOST_SHAPES]: the classes of each object.
    - ``shapes`` int64 [scenes, MOST_SHAPES]: which of the scene's shapes each object is.

    Beyond a scene's last object, pixels and boxes are zero, and the others are -100.
    """

    scenes: tuple[Scene, ...]
    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    kinds: NDArray[np.int64]
    colors: NDArray[np.int64]
    shapes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scenes)

    def first(self, count: int) -> Scenes:
        """Returns the first ``count`` scenes."""
        arrays = {name: getattr(self, name)[:count] for name in ("pixels", "boxes", "kinds", "colors", "shapes")}
        return Scenes(self.scenes[:count], **arrays)


def look_at_scenes(seeds: range, cache: Path) -> Scenes:
    """Draws the scenes of the seeds and finds their objects, or reads them from ``cache`` if an earlier run did so."""
    file = cache / f"scenes-{seeds.start}-{seeds.stop}-{sources_hash()[:12]}.npz"
    if not file.is_file():
        with ProcessPoolExecutor(max_workers=2) as pool:
            found = list(pool.map(look_at_scene, seeds, chunksize=250))
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part.npz")
        np.savez(partial, allow_pickle=False, **{name: np.stack([scene[name] for scene in found]) for name in found[0]})
        partial.rename(file)
    with np.load(file) as arrays:
        return Scenes(tuple(map(scene_of_seed, seeds)), **arrays)


def sources_hash() -> str:
    """Returns the hash of the demo world's and the training's code: files of an earlier run with another hash are stale."""
    digest = hashlib.sha256()
    for room in SOURCES:
        for file in sorted(room.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def look_at_scene(seed: int) -> dict[str, NDArray[np.generic]]:
    """Returns the arrays of one scene: the objects that its picture shows, each with the classes of the nearest shape.

    ``ValueError``: the picture shows more or fewer objects than the scene has shapes.
    """
    scene = scene_of_seed(seed)
    objects = find_objects(draw_scene(scene))
    count = len(scene.shapes)
    if len(objects.boxes) != count:
        raise ValueError(f"scene {seed} has {count} shapes, but its picture shows {len(objects.boxes)}")
    middles = (objects.boxes[:, :2] + objects.boxes[:, 2:]) * (CANVAS / 2)  # [objects, 2] pixels
    centres = np.array([(shape.x, shape.y) for shape in scene.shapes])
    nearest = np.square(middles[:, None] - centres).sum(axis=-1).argmin(axis=1)
    pixels = np.zeros((MOST_SHAPES, FEATURE_WIDTH), np.uint8)
    boxes = np.zeros((MOST_SHAPES, 4), np.float32)
    kinds, colors, shapes = (np.full(MOST_SHAPES, IGNORE_INDEX) for _ in range(3))
    pixels[:count], boxes[:count] = objects.pixels, objects.boxes
    kinds[:count] = [SHAPES.index(scene.shapes[n].kind) for n in nearest]
    colors[:count] = [COLORS.index(scene.shapes[n].color) for n in nearest]
    shapes[:count] = nearest
    return {"pixels": pixels, "boxes": boxes, "kinds": kinds, "colors": colors, "shapes": shapes}


def word_ids(text: str) -> list[int]:
    """Returns the token ids of a sentence of this world, special tokens included."""
    return [CLS, *(number for word in text.split() for number in _pieces(word)), SEP]


def padded_ids(sentences: Sequence[str]) -> NDArray[np.int64]:
    """Returns the token ids of sentences of this world, special tokens and padding included: [sentences, longest]."""
    rows = [word_ids(sentence) for sentence in sentences]
    ids = np.full((len(rows), max(map(len, rows))), PAD)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids


@cache
def _pieces(word: str) -> tuple[int, ...]:
    if word in WORD_IDS:
        return (WORD_IDS[word],)
    ending = "es" if word.removesuffix("es") in WORD_IDS else "s"
    return (WORD_IDS[word.removesuffix(ending)], WORD_IDS[f"##{ending}"])


def question_batch(scenes: Scenes, rows: Sequence[int], questions: Sequence[Question]) -> dict[str, Tensor]:
    """Returns the model's inputs for questions about whole scenes."""
    seen = [range(len(scenes.scenes[row].shapes)) for row in rows]
    return _gathered(scenes, rows, seen, [question.text for question in questions])[0]


def training_batch(
    scenes: Scenes,
    size: int,
    random: Random,
    *,
    most_shapes: int,
    captions: float,
    masked_questions: float,
    blind: bool = False,
) -> dict[str, object]:
    """Returns a seeded batch with the labels of all five objectives.

    - ``most_shapes``: the most shapes of a scene that are shown, picked at random.
    - ``captions``: the share of sentences that are captions, half of them of another scene.
    - ``masked_questions``: the share of questions that have masked words instead of an answer.
    - ``blind``: hide the picture.
    """
    rows, seen, sentences, answers, matches, masked = [], [], [], [], [], []
    for _ in range(size):
        row, scene, objects = _part_of_scene(scenes, random, most_shapes)
        if random.random() < captions:
            true = random.random() < 0.5
            _, other, _ = _part_of_scene(scenes, random, most_shapes)
            text = draw_caption(scene, other, random, true=true)
            answers.append(IGNORE_INDEX)
            matches.append(int(true))
            masked.append(true)  # the picture does not show the words of a false caption
        else:
            question = _training_question(scene, random)
            text = question.text
            masked.append(random.random() < masked_questions)
            answers.append(IGNORE_INDEX if masked[-1] else ANSWER_IDS[question.answer])
            matches.append(IGNORE_INDEX)
        if random.random() < 0.2:
            text = text.removesuffix("?").removesuffix(".")  # people forget the sign at the end
        rows.append(row)
        seen.append(objects)
        sentences.append(text)
    inputs, object_labels = _gathered(scenes, rows, seen, sentences)
    labels = _mask(inputs, np.array(masked), np.random.default_rng(random.getrandbits(64)))
    asked = {"labels": labels, "matched_label": torch.tensor(matches), "ans": torch.tensor(answers)}
    # Without any label the mean of a loss would be NaN.
    batch = {name: wanted for name, wanted in asked.items() if bool((wanted != IGNORE_INDEX).any())}
    if blind:
        return {**blindfolded(inputs), **batch}
    return {**inputs, **batch, "obj_labels": object_labels}


def _training_question(scene: Scene, random: Random) -> Question:
    (family,) = random.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))
    try:
        return draw_question(scene, random, family)
    except ValueError:  # this scene allows none of the family; every scene allows counting
        return draw_question(scene, random)


def blindfolded(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the same sentences, each with one empty box instead of its picture."""
    nothing = {name: torch.zeros_like(inputs[name][:, :1]) for name in ("visual_feats", "visual_pos")}
    return {**inputs, **nothing, "visual_attention_mask": torch.ones_like(inputs["visual_attention_mask"][:, :1])}


def _part_of_scene(scenes: Scenes, random: Random, most: int) -> tuple[int, Scene, list[int]]:
    """Returns a random scene's row, the scene cut down to some of its shapes, and the objects that are those shapes."""
    row = random.randrange(len(scenes))
    scene = scenes.scenes[row]
    count = len(scene.shapes)
    if most < count or random.random() < 0.2:
        kept = set(random.sample(range(count), random.randint(1, min(most, count))))
        objects = [n for n in range(count) if scenes.shapes[row, n] in kept]
        return row, Scene(scene.seed, tuple(scene.shapes[n] for n in sorted(kept))), objects
    return row, scene, list(range(count))


def _gathered(
    scenes: Scenes, rows: Sequence[int], seen: Sequence[Sequence[int]], sentences: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Returns the model's inputs, padded to the longest sentence and the most objects, and the objects' labels."""
    ids = padded_ids(sentences)
    objects = np.zeros((len(seen), max(map(len, seen))), np.int64)
    present = np.zeros(objects.shape, np.float32)
    for row, places in enumerate(seen):
        objects[row, : len(places)] = places
        present[row, : len(places)] = 1
    where = (np.asarray(rows)[:, None], objects)
    features = scenes.pixels[where].astype(np.float32) / PIXEL_SCALE * present[..., None]
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy((ids != PAD).astype(np.int64)),
        "visual_feats": torch.from_numpy(features),
        "visual_pos": torch.from_numpy(scenes.boxes[where] * present[..., None]),
        "visual_attention_mask": torch.from_numpy(present),
    }
    weight = torch.from_numpy(present)
    labels = {
        "obj": (torch.from_numpy(scenes.kinds[where]), weight),
        "attr": (torch.from_numpy(scenes.colors[where]), weight),
        "feat": (inputs["visual_feats"].clone(), weight),
    }
    return inputs, labels


def _mask(inputs: dict[str, Tensor], rows: NDArray[np.bool_], generator: np.random.Generator) -> Tensor:
    """Masks words and objects of some rows in place; returns the words' labels, -100 where no word is masked."""
    ids = inputs["input_ids"].numpy()
    words = (ids > MASK) & rows[:, None] & (generator.random(ids.shape) < MASKED_SHARE)
    labels = np.where(words, ids, IGNORE_INDEX)
    ids[words] = MASK
    features = inputs["visual_feats"].numpy()
    features[rows[:, None] & (generator.random(features.shape[:2]) < MASKED_SHARE)] = 0
    return torch.from_numpy(labels)


def draw_questions(scenes: Scenes, each: int, seed: int) -> tuple[list[int], list[Question]]:
    """Draws ``each`` questions of every family about random scenes; returns the scenes' rows, and the questions."""
    rows, questions = [], []
    for family in FAMILIES:
        random = Random(f"{seed} {family}")
        found = 0
        while found < each:
            row = random.randrange(len(scenes))
            try:
                question = draw_question(scenes.scenes[row], random, family)
            except ValueError:  # this scene allows none
                continue
            rows.append(row)
            questions.append(question)
            found += 1
    return rows, questions
