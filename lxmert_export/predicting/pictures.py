"""Answers a question about a picture with an artifact of the built-in checkpoint. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.companions import labels_of, tokenizer_of
from lxmert_export.artifact.directory import Artifact, open_named, split_runtime
from lxmert_export.demo.answer_picture import draw_answer
from lxmert_export.demo.drawing import draw_scene
from lxmert_export.demo.features import Objects, find_objects
from lxmert_export.demo.pictures import read_picture
from lxmert_export.demo.questions import Question, questions_of_every_family
from lxmert_export.demo.scenes import scene_of_seed
from lxmert_export.demo.words import MOST_SHAPES, WORDS, is_demo_world
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.files.appearing_together import finish_killed_runs
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import answering_way, check_answers, check_takes_providers
from lxmert_export.runners.runner import name_answers
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import ANSWER_OUTPUT, CROSS_ATTENTIONS, Signature
from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer

if TYPE_CHECKING:
    from PIL import Image

NO_ATTENTIONS = "the artifact has no attention outputs: export it again with --attentions"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 0.5  # largest side of a box ÷ the picture's side; in training at most a quarter


@dataclass(frozen=True)
class Answered:
    """What an artifact answered to a question about a picture.

    ``answers`` holds every answer with its probability, the likeliest first. ``attention`` (float64 [tokens, objects]) is the
    attention of each token to each object in the last cross-modality layer, averaged over its heads. It is None if the artifact
    was exported without attentions.
    """

    question: str
    answers: tuple[tuple[str, float], ...]
    tokens: tuple[str, ...]
    objects: Objects
    attention: NDArray[np.float64] | None

    def attention_of(self, word: str) -> NDArray[np.float64]:
        """Returns the attention (float64 [objects]) of a word of the question, averaged over the word's tokens.

        ``InputError``: the artifact has no attention outputs, or the question does not hold the word.
        """
        if self.attention is None:
            raise InputError(NO_ATTENTIONS)
        return np.asarray(self.attention[_pieces_of(word, self.tokens)].mean(axis=0))

    def to_dict(self, top: int) -> dict[str, Any]:
        """Returns what ``ask --json`` prints: the ``top`` likeliest answers, and the boxes."""
        return {
            "question": self.question,
            "answers": [{"answer": answer, "probability": share} for answer, share in self.answers[:top]],
            "boxes": self.objects.boxes.tolist(),
        }


def ask_about_picture(
    artifact: str | Path, question: str, picture: str | Path, *, providers: Sequence[str] = (CPU,)
) -> Answered:
    """Asks an artifact about a picture file.

    ``ArtifactError``: the artifact is not of the built-in checkpoint, or gives no answers. ``InputError``: the picture or the
    question does not fit the artifact.
    """
    opened = open_named(artifact)
    check_takes_providers([opened], providers)
    check_answers(opened, providers)
    _check_takes_pictures(opened)
    labels = labels_of(opened)
    objects = find_shapes(picture)
    ids, tokens = _tokens(question, tokenizer_of(opened), opened)
    _, open_one = answering_way(opened, providers)
    with open_one() as runner:
        outputs = runner.run(_inputs(ids, objects, opened.manifest.signature))
    answers = tuple(name_answers(outputs[ANSWER_OUTPUT][:1], labels, str(opened.path), top=len(labels))[0])
    return Answered(question, answers, tokens, objects, _last_attention(outputs, len(tokens), len(objects.boxes)))


def check_request(
    artifact: str | Path, question: str | None, word: str | None, *, providers: Sequence[str] = (CPU,)
) -> None:
    """Checks the artifact, the question and the word whose attention is wanted, before any file is drawn.

    Raises the errors of ``ask_about_picture`` and ``Answered.attention_of``.
    """
    opened = open_named(artifact)
    _check_takes_pictures(opened)
    if question is None:
        return
    check_answers(opened, providers)
    _, tokens = _tokens(question, tokenizer_of(opened), opened)
    if word is None:
        return
    if not any(spec.name.startswith(CROSS_ATTENTIONS) for spec in opened.manifest.signature.outputs):
        raise InputError(NO_ATTENTIONS)
    _pieces_of(word, tokens)


def check_destination(
    file: str | Path, artifact: str | Path, *, overwrite: bool, picture: str | Path | None = None
) -> None:
    """Checks that a PNG may be written to ``file``.

    ``ArtifactError``: it is the picture asked about, lies inside the artifact, is a directory, or exists already (with
    ``overwrite``: exists and is not a PNG).
    """
    place = Path(file)
    try:
        target = place.resolve()
        if picture is not None and target == Path(picture).resolve():
            raise ArtifactError(f"{place}: is the picture that is asked about; save to another file")
        if target.is_relative_to(Path(split_runtime(artifact)[0]).resolve()):
            raise ArtifactError(f"{place}: lies inside the artifact {artifact}; save outside it")
        if place.is_dir():
            raise ArtifactError(f"{place}: is a directory; name a file")
        finish_killed_runs(target.parent)
        if place.exists() and not overwrite:
            raise ArtifactError(f"{place}: exists already; give --overwrite to replace a PNG, or choose another name")
        if place.exists() and not place.read_bytes().startswith(PNG_SIGNATURE):
            raise ArtifactError(f"{place}: exists and is not a PNG, so it is not replaced; choose another name")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{place}: cannot be written: {error}") from error


def save_answer(
    answered: Answered, picture: str | Path, file: str | Path, *, word: str, overwrite: bool = True
) -> None:
    """Writes a PNG of the picture, with its boxes shaded by the attention of ``word`` and the answer below.

    ``InputError``: the artifact has no attention outputs, or the question does not hold the word. ``ArtifactError``: the file
    cannot be written.
    """
    attention = answered.attention_of(word)
    (best, share), *_ = answered.answers
    lines = [answered.question, f"{best} ({share:.1%})", f"boxes: attention of {word}, last cross-modality layer"]
    drawn = draw_answer(read_picture(picture), answered.objects, attention, lines)
    _write_picture(drawn, Path(file), overwrite=overwrite)


def draw_picture(seed: int, file: str | Path, *, overwrite: bool = True) -> list[Question]:
    """Draws the random scene of a seed into a PNG file. Returns a question of every possible kind about it, with its answer.

    ``InputError``: a negative seed. ``ArtifactError``: the file cannot be written.
    """
    if seed < 0:
        raise InputError(f"the seed of a scene must be zero or more, not {seed}")
    scene = scene_of_seed(seed)
    _write_picture(draw_scene(scene), Path(file), overwrite=overwrite)
    return list(questions_of_every_family(scene, Random(seed)))


def _write_picture(picture: Image.Image, file: Path, *, overwrite: bool) -> None:
    stream = BytesIO()
    picture.save(stream, format="PNG")
    try:
        replace_files(file.parent, {file.name: stream.getvalue()}, overwrite=overwrite)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be written: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{file}: cannot be written: {error}") from error


def find_shapes(picture: str | Path) -> Objects:
    """Finds the shapes in a picture file. ``InputError``: the file is unreadable, or not like the pictures of training."""
    seen = read_picture(picture)
    try:
        objects = find_objects(seen)
    except InputError as error:
        raise InputError(f"{picture}: {error}") from error
    if len(objects.boxes) > MOST_SHAPES:
        raise InputError(
            f"{picture}: shows {len(objects.boxes)} separate shapes; the built-in checkpoint knows pictures with at most "
            f"{MOST_SHAPES}"
        )
    if (objects.boxes[:, 2:] - objects.boxes[:, :2]).max() > LARGEST_SIDE:
        raise InputError(
            f"{picture}: one shape spans more than half of it; the built-in checkpoint knows small, separate shapes on a plain "
            "background"
        )
    return objects


def _check_takes_pictures(artifact: Artifact) -> None:
    manifest = artifact.manifest
    if not is_demo_world(manifest.config.extra):
        spec = manifest.signature.input("visual_feats")
        raise ArtifactError(
            f"{artifact.path}: takes features, not pictures: visual_feats [{', '.join(map(str, spec.axes))}], features of an "
            f"object detector, {spec.axes[-1]} wide; only artifacts of the built-in checkpoint, 'demo', take pictures"
        )
    if ANSWER_OUTPUT not in {spec.name for spec in manifest.signature.outputs}:
        raise ArtifactError(
            f"{artifact.path}: task {manifest.task} gives no answers; export it with --task question-answering"
        )


def _tokens(
    question: str, tokenizer: PreTrainedLxmertTokenizer, artifact: Artifact
) -> tuple[list[int], tuple[str, ...]]:
    """Ids and tokens of a question. ``InputError``: it is empty, too long, or has words that the checkpoint does not know."""
    if not question.strip():
        raise InputError("the question is empty; ask something, such as: how many circles are there?")
    try:
        question.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that Python could not decode
        raise InputError("the question holds bytes that are not UTF-8; type it again in a UTF-8 terminal") from error
    ids = tokenizer.encode(question)
    manifest = artifact.manifest
    longest = manifest.signature.fixed_sizes.get("text", manifest.config.max_position_embeddings)
    if len(ids) > longest:
        raise InputError(
            f"the question has {len(ids)} tokens; {artifact.path} takes at most {longest}: ask a shorter question"
        )
    words = [word.strip("?!.,;:") for word in question.split()]
    unknown = [word for word in words if tokenizer.unk_token in tokenizer.tokenize(word)]
    if unknown:
        near = [match for word in unknown for match in get_close_matches(word.lower(), WORDS, n=1)]
        known = " ".join(word for word in WORDS if word.isalpha())
        hint = f"did you mean {', '.join(near)}?" if near else f"it knows: {known}"
        raise InputError(f"the built-in checkpoint does not know the word {', '.join(map(repr, unknown))}; {hint}")
    tokens = tuple(tokenizer.convert_ids_to_tokens(ids))
    if not any(token.isalpha() for token in tokens):
        raise InputError("the question has no words; ask something, such as: how many circles are there?")
    return ids, tokens


def _pieces_of(word: str, tokens: Sequence[str]) -> list[int]:
    """The positions of a word's tokens. ``InputError``: the word is not in the question."""
    words = _words(tokens)
    found = next((places for text, places in words if text in (word, word.lower())), None)
    if found is None:
        raise InputError(f"{word!r} is not a word of the question; choose from {' '.join(text for text, _ in words)}")
    return found


def _words(tokens: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Joins tokens to words, each with the positions of its tokens: ``circle ##s`` is ``circles``."""
    words: list[tuple[str, list[int]]] = []
    for place, token in enumerate(tokens):
        if token.startswith("##") and words:
            text, places = words[-1]
            words[-1] = (text + token.removeprefix("##"), [*places, place])
        else:
            words.append((token, [place]))
    return words


def _inputs(ids: Sequence[int], objects: Objects, signature: Signature) -> Arrays:
    """The inputs of one question. Fixed text and objects axes are padded and masked; a fixed batch repeats the row."""
    fixed = signature.fixed_sizes
    found = len(objects.boxes)
    room = fixed.get("objects", found)
    if found > room:
        raise InputError(f"the picture shows {found} shapes; the artifact was exported for {room}")
    word_padding, object_padding = (0, fixed.get("text", len(ids)) - len(ids)), (0, room - found)
    row: Arrays = {
        "input_ids": np.pad(np.asarray(ids, np.int64), word_padding),
        "attention_mask": np.pad(np.ones(len(ids), np.int64), word_padding),
        "visual_feats": np.pad(objects.features, (object_padding, (0, 0))),
        "visual_pos": np.pad(objects.boxes.astype(np.float32), (object_padding, (0, 0))),
        "visual_attention_mask": np.pad(np.ones(found, np.float32), object_padding),
    }
    return {name: np.repeat(array[None], fixed.get("batch", 1), axis=0) for name, array in row.items()}


def _last_attention(outputs: Arrays, tokens: int, objects: int) -> NDArray[np.float64] | None:
    names = [name for name in outputs if name.startswith(CROSS_ATTENTIONS)]
    if not names:
        return None
    last = outputs[max(names, key=lambda name: int(name.rpartition(".")[2]))][0]  # [heads, text, objects]
    return np.asarray(last.astype(np.float64).mean(axis=0)[:tokens, :objects])
