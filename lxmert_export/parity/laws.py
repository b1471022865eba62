"""Laws that LXMERT obeys whatever its weights are: calls of one runner that must agree, so that no reference is needed.

Each variation of a law changes a call in a way that must change nothing, or only move things. Its trial says which calls to
make, and where in their outputs each row, word and object of the base call lies. Compared is where the law speaks: words and
objects that are seen. What a model says of a masked one means nothing.

Laws are necessary, never sufficient: a constant obeys them all.
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
from lxmert_export.spec.signature import IMAGES_PER_SENTENCE, TASKS, Signature, task_signature

PADDING = "padding invariance"
PERMUTATION = "permutation equivariance"
BATCH = "batch invariance"
MASKED = "independence of masked inputs"
MASKED_ROW = "fully masked row"
DETERMINISM = "determinism"
THREADS = "thread counts"

ROWS = 8
TEXT, OBJECTS = 8, 5  # of the base call, where the axes are dynamic
PADDED = 3  # further words or objects behind the masks
# The two base calls: ragged masks where the fixed axes leave room for them, and everything seen.
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

    ``bases`` are the base calls by name. ``family`` is which family of sample inputs the ragged one is of, ``other`` a call of
    the same sizes with everything else in it. ``axes`` names the axes of each input and output, fixed ones too.
    """

    signature: Signature
    config: LxmertConfig
    bases: Mapping[str, Arrays]
    other: Arrays
    family: str
    axes: Mapping[str, Axes]

    @property
    def inputs(self) -> Arrays:
        """The inputs of the base call."""
        return self.bases[BASE]

    @property
    def masks(self) -> Seen:
        """Which words [rows, text] and objects [rows, (2,) objects] of the base call are seen."""
        return {axis: self.inputs[name].astype(bool) for axis, name in MASKS.items()}

    @property
    def rows(self) -> int:
        """Rows of a base call."""
        return len(self.inputs["input_ids"])

    @property
    def fixed(self) -> dict[str, int]:
        """The axes that have one size only."""
        return self.signature.fixed_sizes

    def place(self, name: str, axis: str) -> int:
        """Which axis of an input is ``axis``."""
        return self.axes[name].index(axis)


@dataclass(frozen=True)
class Trial:
    """Calls whose outputs, joined row by row, must be those of a base call.

    ``places``: for ``batch`` [rows], ``text`` [rows, text] or ``objects`` [rows, (2,) objects] where in the joined outputs each
    one of the base lies, if not where it was. ``seen`` says which words and objects are compared; all where left out.
    ``whole``: a runtime that would part the call proves nothing by it. ``to_the_bit``: rounding is no excuse.
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
    """A variation of a law that was not tried, and why: never a pass."""

    law: str
    variation: str
    reason: str

    def __str__(self) -> str:
        return f"law: {self.law}, {self.variation}: not run: {self.reason}"


def draw_subject(signature: Signature, config: LxmertConfig, *, seed: int = 0) -> Subject:
    """Draws the base calls that a signature has room for: the same for the same signature, config and seed."""
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
        axes=_named_axes(signature, config),
    )


def _named_axes(signature: Signature, config: LxmertConfig) -> dict[str, Axes]:
    """The axes of every input and output by name, where a signature has sizes in place of some: those of its task."""
    axes = {spec.name: spec.axes for spec in signature}
    task = next((task for task in TASKS if task == signature.task), None)
    if task is None:
        return axes
    heads = task == "pretraining" and bool(config.visual_losses)
    full = task_signature(config, task, hidden_states=True, attentions=True, object_heads=heads)
    return axes | {spec.name: spec.axes for spec in full if spec.name in axes}


def make_trials(subject: Subject, *, apart: str | None = None) -> Iterator[Trial | NotRun]:
    """Every variation of every law, as a trial or with why not.

    ``apart`` is why an artifact owes LXMERT's laws nothing, if it does not; what every runtime owes is tried all the same.
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
    """More padded words behind the mask."""
    words = subject.inputs["input_ids"].shape[1]
    if words + PADDED > subject.config.max_position_embeddings:
        return f"the position table has {subject.config.max_position_embeddings} rows"
    return _padded(subject, "text", TEXT_INPUTS)


def padded_objects(subject: Subject) -> Trial | str:
    """More padded objects behind the mask."""
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
    where = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape)  # the first ones, as before
    return Trial((call,), places={axis: where}, seen=subject.masks)


def permuted_objects(subject: Subject) -> Trial | str:
    """The objects of each row in another order, with their boxes and masks: padded ones come between seen ones."""
    mask = subject.masks["objects"]
    if mask.shape[-1] == 1:
        return "objects is fixed to 1"
    numbers = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape)
    shuffled = np.random.default_rng(0).permuted(numbers, axis=-1)
    # Each takes the place of the next in a shuffle of its row, so that none stays where it was.
    order = np.take_along_axis(np.roll(shuffled, 1, axis=-1), np.argsort(shuffled, axis=-1), axis=-1)
    call = dict(subject.inputs)
    for name in OBJECT_INPUTS:
        place = subject.place(name, "objects")
        index = order.reshape(order.shape + (1,) * (call[name].ndim - order.ndim))
        call[name] = np.take_along_axis(call[name], index, axis=place)
    return Trial((call,), places={"objects": np.argsort(order, axis=-1)}, seen=subject.masks)


def rows_alone(subject: Subject) -> Trial | str:
    """Each row in a call of its own."""
    if fault := _single_batch(subject):
        return fault
    if "batch" in subject.fixed:
        return f"batch is fixed to {subject.rows}"
    calls = tuple({name: array[row : row + 1] for name, array in subject.inputs.items()} for row in range(subject.rows))
    return Trial(calls, seen=subject.masks, whole=True)


def rows_reversed(subject: Subject) -> Trial | str:
    """The rows in reverse order."""
    if fault := _single_batch(subject):
        return fault
    call = {name: array[::-1].copy() for name, array in subject.inputs.items()}
    return Trial((call,), places={"batch": np.arange(subject.rows)[::-1]}, seen=subject.masks, whole=True)


def other_neighbours(subject: Subject) -> Trial | str:
    """Every second row replaced by another, then the others: those between them do not notice."""
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
    """Other ids and token types where words are masked."""
    return _masked(subject, "text", ("input_ids", "token_type_ids"))


def masked_features(subject: Subject) -> Trial | str:
    """Other features where objects are masked."""
    return _masked(subject, "objects", ("visual_feats",))


def masked_boxes(subject: Subject) -> Trial | str:
    """Other boxes where objects are masked."""
    return _masked(subject, "objects", ("visual_pos",))


def _masked(subject: Subject, axis: str, names: tuple[str, ...]) -> Trial | str:
    seen = subject.masks[axis]
    if seen.all():
        return "the fixed axes leave no room for a masked one"
    call = dict(subject.inputs)
    for name in names:
        shown = seen.reshape(seen.shape + (1,) * (call[name].ndim - seen.ndim))
        call[name] = np.where(shown, call[name], subject.other[name])
    return Trial((call,), seen=subject.masks)


def all_words_masked(subject: Subject) -> Trial:
    """All words of every row masked: adding -10000 to every score of a softmax changes nothing."""
    return _all_masked(subject, "text")


def all_objects_masked(subject: Subject) -> Trial:
    """The same of the objects."""
    return _all_masked(subject, "objects")


def _all_masked(subject: Subject, axis: str) -> Trial:
    call = dict(subject.bases[UNMASKED])
    call[MASKS[axis]] = np.zeros_like(call[MASKS[axis]])
    return Trial((call,), base=UNMASKED)


def same_again(subject: Subject) -> Trial:
    """The same call again, after all others: the same bits."""
    return Trial((subject.inputs,), to_the_bit=True)


# Determinism comes last, when everything else has been asked in between.
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
    """The base call, for a runner that was opened with another number of threads."""
    return Trial((subject.inputs,), law=THREADS, variation=f"{threads} thread{'s' if threads > 1 else ''}")


def laid_over(array: NDArray[np.generic], axes: Axes, places: Places) -> NDArray[np.generic]:
    """An output of a trial's calls, each row, word and object of it where the base call has it."""
    if "batch" in places:
        each = IMAGES_PER_SENTENCE if axes[0] == "images" else 1
        array = array[(places["batch"][:, None] * each + np.arange(each)).reshape(-1)]
    for place, axis in enumerate(axes):
        if isinstance(axis, str) and axis in MASKS and axis in places:
            array = np.take_along_axis(array, _along(places[axis], array.shape, place), axis=place)
    return array


def compared(shape: tuple[int, ...], axes: Axes, seen: Seen) -> NDArray[np.bool_]:
    """Which values of an output, of this shape and axes, are of words and objects that are seen."""
    speaks = np.ones(shape, dtype=bool)
    for place, axis in enumerate(axes):
        if isinstance(axis, str) and axis in seen:
            speaks &= _along(seen[axis], shape, place)
    return speaks


def _along(per_row: NDArray[AnyT], shape: tuple[int, ...], place: int) -> NDArray[AnyT]:
    """[batch, (2,) size] → [rows, 1, …, size, …, 1]: beside an output of this shape, along one of its axes."""
    flat = per_row.reshape(-1, per_row.shape[-1])
    flat = np.repeat(flat, shape[0] // len(flat), axis=0)  # the sentence of two pictures
    return flat.reshape(shape[0], *(flat.shape[1] if n == place else 1 for n in range(1, len(shape))))
