"""Laws that LXMERT obeys whatever its weights are. Two calls of one runner must agree, so no reference is needed.

Each variation of a law changes a call in a way that must leave the outputs unchanged, or only move them. Its ``Trial`` says which
calls to make, and where in their outputs each row, word and object of the base call is. Only unmasked words and objects are
compared: outputs for masked ones have no meaning.

Keeping all laws does not prove parity: a model that returns a constant keeps them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, FamilyKind, draw_batch
from lxmert_export.spec.signature import IMAGES_PER_SENTENCE, Signature, task_signature

PADDING = "padding invariance"
PERMUTATION = "permutation equivariance"
BATCH = "batch invariance"
MASKED = "independence of masked inputs"
MASKED_ROW = "fully masked row"
DETERMINISM = "determinism"
THREADS = "thread counts"

ROWS = 8
TEXT, OBJECTS = 8, 5  # of the base call, where the axes are dynamic
PADDED = 3  # the number of masked words or objects to append
# The two base calls: one with ragged masks (where the fixed axes have room for them), one with nothing masked.
BASE, UNMASKED = "base", "unmasked"
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OBJECT_INPUTS = ("visual_feats", "visual_pos", "visual_attention_mask")
MASKS = {"text": "attention_mask", "objects": "visual_attention_mask"}
Axes = tuple[str | int, ...]
Places = Mapping[str, NDArray[np.int64]]
Seen = Mapping[str, NDArray[np.bool_]]
AnyT = TypeVar("AnyT", bound=np.generic)


@dataclass(frozen=True)
class Subject:
    """What the laws are tried on: an artifact's signature and config, and the inputs of its base calls.

    bases     the inputs of the base calls, by name
    other     inputs of the same sizes with other values
    family    the family of sample inputs that the base call with ragged masks is like
    axes      the names of the axes of each input and output, fixed ones too
    """

    signature: Signature
    config: LxmertConfig
    bases: Mapping[str, Arrays]
    other: Arrays
    family: str
    axes: Mapping[str, Axes]

    @property
    def inputs(self) -> Arrays:
        """The inputs of the base call with ragged masks."""
        return self.bases[BASE]

    @property
    def masks(self) -> Seen:
        """The masks of ``inputs``, True where unmasked: words [rows, text] and objects [rows, (2,) objects]."""
        return {axis: self.inputs[name].astype(bool) for axis, name in MASKS.items()}

    @property
    def rows(self) -> int:
        """The number of rows of a base call."""
        return len(self.inputs["input_ids"])

    @property
    def fixed(self) -> dict[str, int]:
        """The fixed axes and their sizes."""
        return self.signature.fixed_sizes

    def place(self, name: str, axis: str) -> int:
        """Returns the position of ``axis`` in the shape of an input."""
        return self.axes[name].index(axis)


@dataclass(frozen=True)
class Trial:
    """Calls whose outputs, joined row by row, must equal those of a base call.

    places        where each row, word or object of the base call is in the joined outputs, for axes along which they move:
                  ``batch`` [rows], ``text`` [rows, text], ``objects`` [rows, (2,) objects]
    seen          which words and objects are compared; an axis that is left out is compared whole
    whole         True if a runner that splits the call into smaller ones would prove nothing
    to_the_bit    True if not even a rounding difference is allowed
    """

    calls: tuple[Arrays, ...]
    places: Places = field(default_factory=dict)
    seen: Seen = field(default_factory=dict)
    base: str = BASE
    whole: bool = False
    to_the_bit: bool = False
    law: str = ""
    variation: str = ""


@dataclass(frozen=True)
class NotRun:
    """A variation of a law that was not tried, and the reason. This is not a pass."""

    law: str
    variation: str
    reason: str

    def __str__(self) -> str:
        return f"law: {self.law}, {self.variation}: not run: {self.reason}"


def draw_subject(signature: Signature, config: LxmertConfig, *, seed: int = 0) -> Subject:
    """Draws base calls that fit a signature; the same signature, config and seed give the same calls."""
    fixed = signature.fixed_sizes
    family = next(name for name in ("ragged", "token-types", "plain") if FAMILY_KINDS[name].fits(fixed))
    sizes = {"batch": ROWS, "text": min(TEXT, config.max_position_embeddings), "objects": OBJECTS, **fixed}
    everything = replace(FAMILY_KINDS["token-types"], token_types=sizes["text"] > 1)

    def draw(kind: FamilyKind, number: int) -> Arrays:
        return draw_batch(kind, signature, config, sizes, np.random.default_rng((seed, number)))

    return Subject(
        signature,
        config,
        bases={BASE: draw(FAMILY_KINDS[family], 0), UNMASKED: draw(everything, 1)},
        other=draw(everything, 2),
        family=family,
        axes=named_axes(signature, config),
    )


def named_axes(signature: Signature, config: LxmertConfig) -> dict[str, Axes]:
    """Returns the axes of every input and output by name. A fixed axis, a number in the signature, gets its name in the task."""
    axes = {spec.name: spec.axes for spec in signature}
    if (task := signature.lxmert_task) is None:
        return axes
    heads = task == "pretraining" and bool(config.visual_losses)
    full = task_signature(config, task, hidden_states=True, attentions=True, object_heads=heads)
    return axes | {spec.name: spec.axes for spec in full if spec.name in axes}


def make_trials(subject: Subject, *, apart: str | None = None) -> Iterator[Trial | NotRun]:
    """Yields every variation of every law, as a trial or as ``NotRun`` with the reason.

    ``apart``: why LXMERT's laws do not apply to the artifact, None if they do. Determinism is tried in any case.
    """
    known = set(subject.axes)
    for (law, variation), make in VARIATIONS.items():
        if law == DETERMINISM:
            made: Trial | str = make(subject)
        elif apart:
            made = apart
        elif missing := sorted({*TEXT_INPUTS, *OBJECT_INPUTS} - known):
            made = f"it takes no {', '.join(missing)}"
        else:
            made = make(subject)
        if isinstance(made, str):
            yield NotRun(law, variation, made)
        else:
            yield replace(made, law=law, variation=variation)


def padded_words(subject: Subject) -> Trial | str:
    """Appends masked words."""
    words = subject.inputs["input_ids"].shape[1]
    if words + PADDED > subject.config.max_position_embeddings:
        return f"the position table has only {subject.config.max_position_embeddings} rows"
    return _padded(subject, "text", TEXT_INPUTS)


def padded_objects(subject: Subject) -> Trial | str:
    """Appends masked objects."""
    return _padded(subject, "objects", OBJECT_INPUTS)


def _padded(subject: Subject, axis: str, names: tuple[str, ...]) -> Trial | str:
    if axis in subject.fixed:
        return f"{axis} is fixed to {subject.fixed[axis]}"
    call = dict(subject.inputs)
    for name in names:
        widths = [(0, 0)] * call[name].ndim
        widths[subject.place(name, axis)] = (0, PADDED)
        call[name] = np.pad(call[name], widths)
    mask = subject.masks[axis]
    where = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape)  # nothing moves: the appended ones come last
    return Trial((call,), places={axis: where}, seen=subject.masks)


def permuted_objects(subject: Subject) -> Trial | str:
    """Reorders the objects of each row, with their boxes and masks, so that masked objects come between unmasked ones."""
    mask = subject.masks["objects"]
    if mask.shape[-1] == 1:
        return "objects is fixed to 1"
    numbers = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape)
    shuffled = np.random.default_rng(0).permuted(numbers, axis=-1)
    # Each object takes the place of the next one in a shuffled order of its row, so that none stays where it was.
    order = np.take_along_axis(np.roll(shuffled, 1, axis=-1), np.argsort(shuffled, axis=-1), axis=-1)
    call = dict(subject.inputs)
    for name in OBJECT_INPUTS:
        place = subject.place(name, "objects")
        index = order.reshape(order.shape + (1,) * (call[name].ndim - order.ndim))
        call[name] = np.take_along_axis(call[name], index, axis=place)
    return Trial((call,), places={"objects": np.argsort(order, axis=-1)}, seen=subject.masks)


def rows_alone(subject: Subject) -> Trial | str:
    """Runs each row in a separate call."""
    if fault := _single_batch(subject):
        return fault
    if "batch" in subject.fixed:
        return f"batch is fixed to {subject.rows}"
    calls = tuple({name: array[row : row + 1] for name, array in subject.inputs.items()} for row in range(subject.rows))
    return Trial(calls, seen=subject.masks, whole=True)


def rows_reversed(subject: Subject) -> Trial | str:
    """Reverses the order of the rows."""
    if fault := _single_batch(subject):
        return fault
    call = {name: array[::-1].copy() for name, array in subject.inputs.items()}
    return Trial((call,), places={"batch": np.arange(subject.rows)[::-1]}, seen=subject.masks, whole=True)


def other_neighbours(subject: Subject) -> Trial | str:
    """Replaces every second row and, in a second call, the other rows: the rows that were kept must not change."""
    if fault := _single_batch(subject):
        return fault
    rows = np.arange(subject.rows)
    calls = []
    for replaced in (rows % 2 == 1, rows % 2 == 0):
        call = {name: array.copy() for name, array in subject.inputs.items()}
        for name, array in call.items():
            array[replaced] = subject.other[name][replaced]
        calls.append(call)
    kept_in = np.where(rows % 2 == 0, rows, rows + subject.rows)  # even rows in the first call, odd ones in the second
    return Trial(tuple(calls), places={"batch": kept_in}, seen=subject.masks, whole=True)


def _single_batch(subject: Subject) -> str | None:
    return "batch is fixed to 1" if subject.rows == 1 else None


def masked_words(subject: Subject) -> Trial | str:
    """Replaces the ids and token types of masked words."""
    return _masked(subject, "text", ("input_ids", "token_type_ids"))


def masked_features(subject: Subject) -> Trial | str:
    """Replaces the features of masked objects."""
    return _masked(subject, "objects", ("visual_feats",))


def masked_boxes(subject: Subject) -> Trial | str:
    """Replaces the boxes of masked objects."""
    return _masked(subject, "objects", ("visual_pos",))


def _masked(subject: Subject, axis: str, names: tuple[str, ...]) -> Trial | str:
    seen = subject.masks[axis]
    if seen.all():
        return "the fixed axes leave no room for a masked word or object"
    call = dict(subject.inputs)
    for name in names:
        shown = seen.reshape(seen.shape + (1,) * (call[name].ndim - seen.ndim))
        call[name] = np.where(shown, call[name], subject.other[name])
    return Trial((call,), seen=subject.masks)


def all_words_masked(subject: Subject) -> Trial:
    """Masks all words of every row: adding -10000 to every score of a softmax changes nothing."""
    return _all_masked(subject, "text")


def all_objects_masked(subject: Subject) -> Trial:
    """Masks all objects of every row, which changes nothing for the same reason."""
    return _all_masked(subject, "objects")


def _all_masked(subject: Subject, axis: str) -> Trial:
    call = dict(subject.bases[UNMASKED])
    call[MASKS[axis]] = np.zeros_like(call[MASKS[axis]])
    return Trial((call,), base=UNMASKED)


def same_again(subject: Subject) -> Trial:
    """Repeats the base call, which must return the same bits."""
    return Trial((subject.inputs,), to_the_bit=True)


# Determinism is tried at once, and again after all other calls.
VARIATIONS: dict[tuple[str, str], Callable[[Subject], Trial | str]] = {
    (DETERMINISM, "at once"): same_again,
    (PADDING, "words"): padded_words,
    (PADDING, "objects"): padded_objects,
    (PERMUTATION, "objects"): permuted_objects,
    (BATCH, "alone"): rows_alone,
    (BATCH, "order"): rows_reversed,
    (BATCH, "neighbours"): other_neighbours,
    (MASKED, "words"): masked_words,
    (MASKED, "features"): masked_features,
    (MASKED, "boxes"): masked_boxes,
    (MASKED_ROW, "words"): all_words_masked,
    (MASKED_ROW, "objects"): all_objects_masked,
    (DETERMINISM, "after others"): same_again,
}


def on_threads(subject: Subject, threads: int) -> Trial:
    """Returns the base call, for a runner that was opened with another number of threads."""
    return Trial((subject.inputs,), law=THREADS, variation=f"{threads} thread{'s' if threads > 1 else ''}")


def laid_over(array: NDArray[np.generic], axes: Axes, places: Places) -> NDArray[np.generic]:
    """Returns an output of a trial's calls, with each row, word and object moved to its place in the base call."""
    if "batch" in places:
        each = IMAGES_PER_SENTENCE if axes[0] == "images" else 1
        array = array[(places["batch"][:, None] * each + np.arange(each)).reshape(-1)]
    for place, axis in enumerate(axes):
        if isinstance(axis, str) and axis in MASKS and axis in places:
            array = np.take_along_axis(array, _along(places[axis], array.shape, place), axis=place)
    return array


def compared(shape: tuple[int, ...], axes: Axes, seen: Seen) -> NDArray[np.bool_]:
    """Returns which values of an output belong to unmasked words and objects, as booleans of its shape."""
    belongs = np.ones(shape, dtype=bool)
    for place, axis in enumerate(axes):
        if isinstance(axis, str) and axis in seen:
            belongs &= _along(seen[axis], shape, place)
    return belongs


def _along(per_row: NDArray[AnyT], shape: tuple[int, ...], place: int) -> NDArray[AnyT]:
    """[batch, (2,) size] → [rows, 1, …, size, …, 1]: broadcasts along axis ``place`` of an output of this shape."""
    flat = per_row.reshape(-1, per_row.shape[-1])
    flat = np.repeat(flat, shape[0] // len(flat), axis=0)  # both images of a pair have the same sentence
    return flat.reshape(shape[0], *(flat.shape[1] if n == place else 1 for n in range(1, len(shape))))
