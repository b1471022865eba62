"""Held-out questions of the built-in checkpoint: inputs that it was not trained on, true answers, and float64's answers.

They are in one safetensors file beside the checkpoint, which is small enough to ship and needs only numpy. Its metadata:

    format               the format of this file
    families             JSON list: the kinds of question
    precisions           JSON list: the precisions that have a noise floor
    checkpoint_sha256    the hash of the weights that ``reference`` and ``floors`` were computed with

Its tensors:

    features         uint8 [scenes, objects, width]    in 256ths: exact in fp16
    boxes            uint16 [scenes, objects, 4]       in 256ths
    object_counts    int64 [scenes]                    objects after these are padding, and masked
    scene            int64 [questions]                 the scene that the question is about
    input_ids        int64 [questions, text]           padded with [PAD], which is 0 and masked
    family, answer   int64 [questions]                 the kind of question, and the true answer
    reference        float64 [questions, answers]      the canonical model's scores
    floors           float64 [precisions]              the canonical model's RMS error in each precision
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.files import hub
from lxmert_export.files.safetensors_files import write_safetensors
from lxmert_export.parity.decisions import SCENES, AnswerKey
from lxmert_export.parity.recording import Run
from lxmert_export.parity.scores import Floor, int8_floor, rms
from lxmert_export.progress import Advance
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import ANSWER_OUTPUT, Signature

FORMAT = "lxmert-export held-out 1"
HELD_OUT_FILE = "held_out.safetensors"
UNIT = 256  # features and boxes are stored in steps of 1 / UNIT
BATCH = 100
NumberT = TypeVar("NumberT", bound=np.generic)
# The masks are needed, because one batch holds questions and scenes of several lengths.
INPUTS = {"input_ids", "attention_mask", "visual_feats", "visual_pos", "visual_attention_mask"}
DTYPES: dict[str, tuple[str, int]] = {
    "features": ("uint8", 3), "boxes": ("uint16", 3), "object_counts": ("int64", 1), "scene": ("int64", 1),
    "input_ids": ("int64", 2), "family": ("int64", 1), "answer": ("int64", 1), "reference": ("float64", 2),
    "floors": ("float64", 1),
}  # fmt: skip


@dataclass(frozen=True)
class HeldOut:
    """Questions about scenes; the module describes the arrays. ``reference`` and ``floors`` are empty before a model answers."""

    checkpoint_sha256: str
    families: tuple[str, ...]
    precisions: tuple[str, ...]
    features: NDArray[np.uint8]
    boxes: NDArray[np.uint16]
    object_counts: NDArray[np.int64]
    scene: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    family: NDArray[np.int64]
    answer: NDArray[np.int64]
    reference: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    floors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def fits(self, signature: Signature) -> bool:
        """Whether the fixed axes have room for every question and scene. None is cut, because a cut question is another one."""
        fixed = signature.fixed_sizes
        longest, most = int(np.flatnonzero(self.input_ids.any(axis=0)).max()) + 1, int(self.object_counts.max())
        return fixed.get("text", longest) >= longest and fixed.get("objects", most) >= most

    def ask(self, run: Run, signature: Signature, advance: Advance = lambda family: None) -> list[NDArray[np.generic]]:
        """Returns a runner's answer scores: [rows, answers] for each batch, none for a batch without this output.

        Calls ``advance`` after each batch.
        """
        answers = []
        for batch in self._batches(signature):
            computed = run(self.inputs(batch, signature)).get(ANSWER_OUTPUT)
            if computed is not None:
                padded = computed.shape[:1] == (signature.fixed_sizes.get("batch"),)
                answers.append(computed[: len(batch)] if padded else computed)
            advance(SCENES)
        return answers

    def inputs(self, batch: NDArray[np.int64], signature: Signature) -> Arrays:
        """Returns the inputs of the questions numbered ``batch``.

        Fixed axes are padded: text and objects with masked padding, the batch by repeating its last row.
        """
        fixed = signature.fixed_sizes
        asked = np.concatenate([batch, np.repeat(batch[-1:], fixed.get("batch", len(batch)) - len(batch))])
        scene = self.scene[asked]
        words = _resized(self.input_ids[asked], fixed.get("text"))
        features, boxes = (
            _resized(table[scene], fixed.get("objects")).astype(np.float32) / UNIT
            for table in (self.features, self.boxes)
        )
        given: Arrays = {
            "input_ids": words,
            "attention_mask": words != 0,
            "token_type_ids": np.zeros_like(words),
            "visual_feats": features,
            "visual_pos": boxes,
            "visual_attention_mask": np.arange(features.shape[1]) < self.object_counts[scene, None],
        }
        return {spec.name: given[spec.name].astype(spec.dtype) for spec in signature.inputs}

    def first(self, signature: Signature) -> Arrays:
        """Returns the inputs of the first call of ``ask``. The others have the same shapes; the last may have fewer rows."""
        return self.inputs(self._batches(signature)[0], signature)

    def batch_count(self, signature: Signature) -> int:
        """Returns how many calls ``ask`` makes; it calls ``advance`` after each."""
        return len(self._batches(signature))

    def key(self, signature: Signature) -> AnswerKey:
        """Returns the answer key, in the same batches as ``ask``."""
        reference = [self.reference[batch] for batch in self._batches(signature)]
        return AnswerKey(reference, self.answer, self.family, self.families)

    def floor(self, precision: str) -> Floor:
        """Returns the noise floor of a precision; int8's is ``int8_floor``. ``ArtifactError``: the floor was not measured."""
        if precision == "int8":
            return int8_floor([self.reference])
        if precision not in self.precisions:
            raise ArtifactError(f"{HELD_OUT_FILE} of the built-in checkpoint has no floor for {precision}: measure one")
        measured = float(self.floors[self.precisions.index(precision)])
        return Floor(measured, rms([self.reference]), len(self.reference), self.reference.size)

    def _batches(self, signature: Signature) -> list[NDArray[np.int64]]:
        size = signature.fixed_sizes.get("batch", BATCH)
        return [np.arange(first, min(first + size, len(self.scene))) for first in range(0, len(self.scene), size)]


def held_out_of(artifact: Artifact) -> HeldOut | None:
    """Returns the questions for an artifact made from the built-in checkpoint that takes its inputs and returns answers.

    Returns None for any other artifact. ``ArtifactError``: the file that came with this installation is damaged.
    """
    path = hub.DEMO_DIRECTORY / HELD_OUT_FILE
    manifest = artifact.manifest
    names = {spec.name for spec in manifest.signature.inputs}
    asked = INPUTS <= names <= INPUTS | {"token_type_ids"} and ANSWER_OUTPUT in {
        s.name for s in manifest.signature.outputs
    }
    if not asked or manifest.checkpoint.get("sha256") is None or not path.is_file():
        return None
    held_out = read_held_out(path)
    return held_out if held_out.checkpoint_sha256 == manifest.checkpoint["sha256"] else None


def write_held_out(path: str | Path, held_out: HeldOut) -> None:
    """Writes a held-out file. ``ArtifactError``: the parts do not fit together, or no model has answered yet."""
    if faults := _faults(held_out):
        raise ArtifactError(f"{path}: not held-out questions: {'; '.join(faults)}")
    metadata = {
        "format": FORMAT,
        "families": json.dumps(held_out.families),
        "precisions": json.dumps(held_out.precisions),
        "checkpoint_sha256": held_out.checkpoint_sha256,
    }
    write_safetensors(Path(path), {name: getattr(held_out, name) for name in DTYPES}, metadata)


def read_held_out(path: str | Path) -> HeldOut:
    """Reads a held-out file. ``ArtifactError``: it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            held_out = HeldOut(
                checkpoint_sha256=metadata["checkpoint_sha256"],
                families=_names(metadata["families"]),
                precisions=_names(metadata["precisions"]),
                **{name: file.get_tensor(name) for name in DTYPES},
            )
        if faults := _faults(held_out):
            raise ValueError("; ".join(faults))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: damaged held-out questions: {error}; install lxmert-export again") from error
    return held_out


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{text[:40]!r} is not a list of names")
    return tuple(names)


def _faults(held_out: HeldOut) -> list[str]:
    """Lists the wrong dtypes and ranks; if there are none, the wrong sizes; if there are none, the wrong values."""
    arrays = {name: getattr(held_out, name) for name in DTYPES}
    wrong = [
        f"{name} is {array.dtype} of rank {array.ndim}, not {DTYPES[name][0]} of rank {DTYPES[name][1]}"
        for name, array in arrays.items()
        if (str(array.dtype), array.ndim) != DTYPES[name]
    ]
    return wrong or _wrong_sizes(held_out) or _wrong_values(held_out)


def _wrong_sizes(held_out: HeldOut) -> list[str]:
    scenes, objects, _ = held_out.features.shape
    questions = len(held_out.scene)
    expected: dict[str, tuple[int, ...]] = {
        "boxes": (scenes, objects, 4),
        "object_counts": (scenes,),
        "input_ids": (questions, held_out.input_ids.shape[1]),
        "family": (questions,),
        "answer": (questions,),
        "reference": (questions, max(held_out.reference.shape[1], 2)),
        "floors": (max(len(held_out.precisions), 1),),
    }
    wrong = [
        f"{name} has shape {list(getattr(held_out, name).shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if getattr(held_out, name).shape != shape
    ]
    empty = [name for name in DTYPES if getattr(held_out, name).size == 0]
    return wrong + ([f"empty: {', '.join(empty)}"] if empty else [])


def _wrong_values(held_out: HeldOut) -> list[str]:
    bounds = {
        "object_counts": (1, held_out.features.shape[1] + 1),
        "scene": (0, len(held_out.features)),
        "input_ids": (0, np.iinfo(np.int64).max),
        "family": (0, len(held_out.families)),
        "answer": (0, held_out.reference.shape[1]),
    }
    wrong = [
        f"{name} has values outside {low} to {high - 1}"
        for name, (low, high) in bounds.items()
        if (getattr(held_out, name) < low).any() or (getattr(held_out, name) >= high).any()
    ]
    if not held_out.input_ids.any(axis=1).all():
        wrong.append("a question has no words")
    if not np.isfinite(held_out.reference).all() or not (np.isfinite(held_out.floors) & (held_out.floors > 0)).all():
        wrong.append("reference or floors are not finite, or a floor is not above 0")
    return wrong


def _resized(array: NDArray[NumberT], size: int | None) -> NDArray[NumberT]:
    """Pads the second axis with zeros to a fixed size, or cuts it. Only padding is cut: ``HeldOut.fits`` was checked."""
    if size is None:
        return array
    padding = [(0, 0), (0, max(size - array.shape[1], 0)), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array[:, :size], padding)
