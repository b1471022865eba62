"""A question about a picture → an artifact's answers, without PyTorch. Pictures are for artifacts of the built-in checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import LABELS_FILE, Artifact, open_artifact
from lxmert_export.demo.answer_picture import draw_answer
from lxmert_export.demo.drawing import draw_scene
from lxmert_export.demo.features import Objects, find_objects
from lxmert_export.demo.pictures import read_picture
from lxmert_export.demo.questions import Question, questions_of_every_family
from lxmert_export.demo.scenes import scene_of_seed
from lxmert_export.demo.words import MOST_SHAPES, WORDS, is_demo_world
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.files.hub import TOKENIZER_FILES
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import judged_ways
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import ANSWER_OUTPUT, CROSS_ATTENTIONS, Signature
from lxmert_export.tokenizer.opening import load_tokenizer
from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer

if TYPE_CHECKING:
    from PIL import Image

_LEFT_BEHIND = (
    ", as there was none beside its weights: save_pretrained writes the model alone. Copy vocab.txt and labels.json of the "
    "checkpoint that it came from beside them, and export the directory again"
)
NO_ATTENTIONS = "the artifact gives no attentions: export it again with --attentions"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 0.5  # of a box, over the picture's; a quarter is the most in training


@dataclass(frozen=True)
class Answered:
    """What an artifact answered: every answer with its probability, the likeliest first.

    ``attention`` float64 [tokens, objects] is the last cross-modality layer's, from each token to each object, the mean of its
    heads; None where the artifact was exported without attentions.
    """

    question: str
    answers: tuple[tuple[str, float], ...]
    tokens: tuple[str, ...]
    objects: Objects
    attention: NDArray[np.float64] | None

    def attention_of(self, word: str) -> NDArray[np.float64]:
        """[objects]: where a word of the question looks, the mean of its pieces.

        ``InputError``: the artifact gives no attentions, or there is no such word.
        """
        if self.attention is None:
            raise InputError(NO_ATTENTIONS)
        return np.asarray(self.attention[_pieces_of(word, self.tokens)].mean(axis=0))

    def to_dict(self, top: int) -> dict[str, Any]:
        """As JSON holds it, with the likeliest ``top`` answers."""
        return {
            "question": self.question,
            "answers": [{"answer": answer, "probability": share} for answer, share in self.answers[:top]],
            "boxes": self.objects.boxes.tolist(),
        }


def ask_about_picture(
    artifact: str | Path, question: str, picture: str | Path, *, providers: Sequence[str] = (CPU,)
) -> Answered:
    """Asks an artifact about a picture file.

    ``ArtifactError``: not an artifact of the built-in checkpoint, or one that gives no answers. ``InputError``: a picture or a
    question that it cannot take, and why.
    """
    opened = open_artifact(artifact)
    _check_takes_pictures(opened)
    labels = _labels(opened)
    objects = find_shapes(picture)
    ids, tokens = _tokens(question, _tokenizer(opened), opened)
    # The way that comes first is the runtime's own; the emulator stands in where the CPU has no kernels (bf16).
    _, open_one = judged_ways(opened, providers)[0]
    with open_one() as runner:
        outputs = runner.run(_inputs(ids, objects, opened.manifest.signature))
    scores = outputs[ANSWER_OUTPUT][0].astype(np.float64)
    if not np.isfinite(scores).all():
        raise ArtifactError(f"{opened.path}: answers NaN or infinity; 'lxmert-export verify' tells what it computes")
    probabilities = _softmax(scores)
    order = np.argsort(-probabilities, kind="stable")
    answers = tuple((labels[n], float(probabilities[n])) for n in order)
    return Answered(question, answers, tokens, objects, _last_attention(outputs, len(tokens), len(objects.boxes)))


def check_request(artifact: str | Path, question: str | None, word: str | None) -> None:
    """Refuses what can be refused before any file is drawn: the artifact, the question, and the word whose attention is wanted.

    ``ArtifactError`` and ``InputError`` as of ``ask_about_picture`` and ``Answered.attention_of``.
    """
    opened = open_artifact(artifact)
    _check_takes_pictures(opened)
    if question is None:
        return
    _, tokens = _tokens(question, _tokenizer(opened), opened)
    if word is None:
        return
    if not any(spec.name.startswith(CROSS_ATTENTIONS) for spec in opened.manifest.signature.outputs):
        raise InputError(NO_ATTENTIONS)
    _pieces_of(word, tokens)


def check_destination(
    file: str | Path, artifact: str | Path, *, overwrite: bool, picture: str | Path | None = None
) -> None:
    """``ArtifactError`` where a picture must not be drawn: over the picture asked about, inside the artifact, over no PNG."""
    place = Path(file)
    try:
        target = place.resolve()
        if picture is not None and target == Path(picture).resolve():
            raise ArtifactError(f"{place}: is the picture that is asked about; choose another name to save under")
        if target.is_relative_to(Path(artifact).resolve()):
            raise ArtifactError(f"{place}: lies inside the artifact {artifact}; choose another place")
        if place.is_dir():
            raise ArtifactError(f"{place}: is a directory; name a file")
        if place.exists() and not overwrite:
            raise ArtifactError(f"{place}: exists already; --overwrite replaces a PNG, another name keeps it")
        if place.exists() and not place.read_bytes().startswith(PNG_SIGNATURE):
            raise ArtifactError(f"{place}: exists and is no PNG, so it is not replaced; choose another name")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{place}: cannot be written: {error}") from error


def save_answer(answered: Answered, picture: str | Path, file: str | Path, *, word: str) -> None:
    """Draws the picture with its boxes shaded by where ``word`` looks, and the answer below, as PNG.

    ``InputError``: the artifact gives no attentions, or there is no such word. ``ArtifactError``: it cannot be written.
    """
    attention = answered.attention_of(word)
    (best, share), *_ = answered.answers
    lines = [answered.question, f"{best} ({share:.1%})", f"boxes: attention of {word}, last cross-modality layer"]
    _write_picture(draw_answer(read_picture(picture), answered.objects, attention, lines), Path(file))


def draw_picture(seed: int, file: str | Path) -> list[Question]:
    """Draws the scene of a seed into a PNG file, and returns a question of every family that it admits, with the answers.

    ``InputError``: no such seed. ``ArtifactError``: it cannot be written.
    """
    if seed < 0:
        raise InputError(f"the seed of a scene is zero or more, not {seed}")
    scene = scene_of_seed(seed)
    _write_picture(draw_scene(scene), Path(file))
    return list(questions_of_every_family(scene, Random(seed)))


def _write_picture(picture: Image.Image, file: Path) -> None:
    stream = BytesIO()
    picture.save(stream, format="PNG")
    try:
        replace_files(file.parent, {file.name: stream.getvalue()})
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: cannot be written: {error}") from error


def find_shapes(picture: str | Path) -> Objects:
    """The shapes of a picture file. ``InputError``: unreadable, no shape, or what the demo world never has."""
    seen = read_picture(picture)
    try:
        objects = find_objects(seen)
    except InputError as error:
        raise InputError(f"{picture}: {error}") from error
    if len(objects.boxes) > MOST_SHAPES:
        raise InputError(
            f"{picture}: shows {len(objects.boxes)} separate shapes; the demo world has up to {MOST_SHAPES} in a picture"
        )
    if (objects.boxes[:, 2:] - objects.boxes[:, :2]).max() > LARGEST_SIDE:
        raise InputError(
            f"{picture}: one shape spans more than half of it; the demo world has small ones, apart, on a plain background"
        )
    return objects


def _check_takes_pictures(artifact: Artifact) -> None:
    manifest = artifact.manifest
    if not is_demo_world(manifest.config.extra):
        spec = manifest.signature.input("visual_feats")
        raise ArtifactError(
            f"{artifact.path}: takes features, not pictures: visual_feats [{', '.join(map(str, spec.axes))}] of the regions "
            f"of an object detector, {spec.axes[-1]} wide; pictures are for artifacts of the built-in checkpoint, 'demo'"
        )
    if ANSWER_OUTPUT not in {spec.name for spec in manifest.signature.outputs}:
        raise ArtifactError(
            f"{artifact.path}: task {manifest.task} gives no answers; export it with --task question-answering"
        )


def _labels(artifact: Artifact) -> list[str]:
    file = artifact.file(LABELS_FILE)
    if LABELS_FILE not in artifact.manifest.files:
        raise ArtifactError(f"{artifact.path}: has no {LABELS_FILE}{_LEFT_BEHIND}")
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: the answers' names cannot be read: {error}; export it again") from error
    count = artifact.manifest.config.num_qa_labels
    if (
        not isinstance(labels, list)
        or len({label for label in labels if isinstance(label, str)}) != count
        or len(labels) != count
    ):
        raise ArtifactError(f"{file}: is no list of {count} answers of its own; export it again")
    return labels


def _tokens(
    question: str, tokenizer: PreTrainedLxmertTokenizer, artifact: Artifact
) -> tuple[list[int], tuple[str, ...]]:
    """Ids and tokens of a question. ``InputError``: empty, too long, or with words that the demo world has not."""
    if not question.strip():
        raise InputError("the question is empty; ask something, such as: how many circles are there?")
    try:
        question.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that Python could not decode
        raise InputError("the question holds bytes that are no UTF-8; type it anew in a UTF-8 terminal") from error
    ids = tokenizer.encode(question)
    manifest = artifact.manifest
    longest = manifest.signature.fixed_sizes.get("text", manifest.config.max_position_embeddings)
    if len(ids) > longest:
        raise InputError(
            f"the question has {len(ids)} tokens; {artifact.path} takes {longest} at most: ask a shorter one"
        )
    words = [word.strip("?!.,;:") for word in question.split()]
    unknown = [word for word in words if tokenizer.unk_token in tokenizer.tokenize(word)]
    if unknown:
        near = [match for word in unknown for match in get_close_matches(word.lower(), WORDS, n=1)]
        hint = f"did you mean {', '.join(near)}?" if near else f"it knows: {' '.join(w for w in WORDS if w.isalpha())}"
        raise InputError(f"the demo world has no word {', '.join(map(repr, unknown))}; {hint}")
    tokens = tuple(tokenizer.convert_ids_to_tokens(ids))
    if not any(token.isalpha() for token in tokens):
        raise InputError("the question has no words; ask something, such as: how many circles are there?")
    return ids, tokens


def _tokenizer(artifact: Artifact) -> PreTrainedLxmertTokenizer:
    """The artifact's own tokenizer. ``ArtifactError``: files that its manifest has no hash of would be read."""
    strays = [n for n in TOKENIZER_FILES if artifact.file(n).exists() and n not in artifact.manifest.files]
    if strays:
        raise ArtifactError(f"{artifact.path}: {', '.join(strays)} did not come with it; take it out, or export again")
    if not any(artifact.file(name).exists() for name in TOKENIZER_FILES):
        raise ArtifactError(f"{artifact.path}: has no tokenizer{_LEFT_BEHIND}")
    return load_tokenizer(artifact.path)


def _pieces_of(word: str, tokens: Sequence[str]) -> list[int]:
    """The places of a word's tokens. ``InputError``: it is not in the question."""
    words = _words(tokens)
    found = next((places for text, places in words if text in (word, word.lower())), None)
    if found is None:
        raise InputError(f"{word!r} is no word of the question; choose from {' '.join(text for text, _ in words)}")
    return found


def _words(tokens: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The words that tokens make up, each with the places of its pieces: ``circle ##s`` is ``circles``."""
    words: list[tuple[str, list[int]]] = []
    for place, token in enumerate(tokens):
        if token.startswith("##") and words:
            text, places = words[-1]
            words[-1] = (text + token.removeprefix("##"), [*places, place])
        else:
            words.append((token, [place]))
    return words


def _inputs(ids: Sequence[int], objects: Objects, signature: Signature) -> Arrays:
    """One row; axes that the artifact fixes are padded with what its masks hide, a fixed batch with the same row again."""
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


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def _last_attention(outputs: Arrays, tokens: int, objects: int) -> NDArray[np.float64] | None:
    names = [name for name in outputs if name.startswith(CROSS_ATTENTIONS)]
    if not names:
        return None
    last = outputs[max(names, key=lambda name: int(name.rpartition(".")[2]))][0]  # [heads, text, objects]
    return np.asarray(last.astype(np.float64).mean(axis=0)[:tokens, :objects])
