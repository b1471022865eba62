"""Optimisation profiles: the sizes that an engine takes, each axis as min:opt:max, opt being what it is fastest at.

A profile is given by the options ``--batch``, ``--text`` and ``--objects``. Each may be repeated: the n-th of each makes the n-th
profile, and one given once goes into all. Profiles are numbered from 0, as TensorRT numbers them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from lxmert_export.errors import ConfigError, InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import DYNAMIC_AXES, Signature

Shape = tuple[int, ...]
LARGEST = 2**31 - 1  # TensorRT's limit for a dimension
KNOWN_AXES = (*DYNAMIC_AXES, "images")  # images follow from batch


@dataclass(frozen=True)
class AxisRange:
    """The sizes of one axis: the least, the one to be fastest at, and the most."""

    min: int
    opt: int
    max: int

    def __contains__(self, size: int) -> bool:
        return self.min <= size <= self.max

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}:{self.opt}:{self.max}"


# Where an axis is left out. Text: from [CLS] [SEP] to longer than any question of VQA or GQA; 20 words and 36 objects are what
# the published checkpoints were trained on; detectors give up to 100 objects.
DEFAULTS = {"batch": AxisRange(1, 1, 8), "text": AxisRange(2, 20, 64), "objects": AxisRange(1, 36, 100)}


@dataclass(frozen=True)
class Profile:
    """The sizes of a call that an engine takes through one of its profiles."""

    batch: AxisRange
    text: AxisRange
    objects: AxisRange

    @property
    def ranges(self) -> dict[str, AxisRange]:
        """The range of each axis, by its name."""
        return {axis: getattr(self, axis) for axis in DYNAMIC_AXES}

    def shapes(self, signature: Signature) -> dict[str, tuple[Shape, Shape, Shape]]:
        """The min, opt and max shape of every input of a signature; ``ConfigError``: an axis that no profile knows."""
        low, best, high = ({axis: getattr(r, end) for axis, r in self.ranges.items()} for end in ("min", "opt", "max"))
        for spec in signature.inputs:
            if strange := [axis for axis in spec.axes if isinstance(axis, str) and axis not in KNOWN_AXES]:
                raise ConfigError(
                    f"input {spec.name}: no profile knows axis {strange[0]!r}; fix it, or call it otherwise"
                )
        return {spec.name: (spec.shape(low), spec.shape(best), spec.shape(high)) for spec in signature.inputs}

    def covers(self, sizes: Mapping[str, int]) -> bool:
        """Whether it takes a call of these sizes (of batch, text and objects)."""
        return not self.misses(sizes)

    def misses(self, sizes: Mapping[str, int]) -> list[str]:
        """The axes of a call that lie outside."""
        return [axis for axis, allowed in self.ranges.items() if sizes[axis] not in allowed]

    def to_dict(self) -> dict[str, list[int]]:
        """As the manifest holds it."""
        return {axis: [sizes.min, sizes.opt, sizes.max] for axis, sizes in self.ranges.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` wrote, and nothing else; ``ConfigError`` says what is wrong."""
        if not isinstance(values, Mapping) or set(values) != set(DYNAMIC_AXES):
            raise ConfigError(f"a profile has {', '.join(DYNAMIC_AXES)} and nothing else, not {values!r}")
        for axis, sizes in values.items():
            if not isinstance(sizes, list) or [type(size) for size in sizes] != [int] * 3:
                raise ConfigError(f"{axis} of a profile must be three whole numbers, not {sizes!r}")
        return cls(**{axis: _checked(sizes, f"{axis} of a profile") for axis, sizes in values.items()})

    def __str__(self) -> str:
        return ", ".join(f"{axis} {sizes}" for axis, sizes in self.ranges.items())


def make_profiles(
    config: LxmertConfig,
    signature: Signature,
    *,
    batch: Sequence[str] = (),
    text: Sequence[str] = (),
    objects: Sequence[str] = (),
) -> tuple[Profile, ...]:
    """The profiles that options ask for, at least one; an axis that is left out is the signature's, if fixed, or a default.

    ``ConfigError`` names profile and axis: not ``min:opt:max`` or one number, min ≤ opt ≤ max broken, below 1, text beyond the
    position table, against an axis that the signature fixes; options given unequally often; a profile given twice.
    """
    given = {"batch": batch, "text": text, "objects": objects}
    count = check_counts(given)
    defaults = _defaults(config, signature)
    profiles = [
        Profile(
            **{
                axis: parse_range(texts[n % len(texts)], f"profile {n}: --{axis}") if texts else defaults[axis]
                for axis, texts in given.items()
            }
        )
        for n in range(count)
    ]
    check_profiles(profiles, config, signature)
    return tuple(profiles)


def check_counts(given: Mapping[str, Sequence[str]]) -> int:
    """How many profiles these ranges make; ``ConfigError`` where they are given unequally often."""
    count = max(1, *map(len, given.values()))
    if wrong := [axis for axis, texts in given.items() if len(texts) not in (0, 1, count)]:
        raise ConfigError(
            f"--{wrong[0]} is given {len(given[wrong[0]])} times for {count} profiles: give it once, for all, or {count} times"
        )
    return count


def parse_range(text: str, where: str) -> AxisRange:
    """Reads ``min:opt:max``, or one number for all three; ``ConfigError`` begins with ``where``."""
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(re.fullmatch("-[0-9]{1,10}|[0-9]+", part) for part in parts):
        raise ConfigError(f"{where} {text!r} must be min:opt:max, such as 1:4:8, or one number")
    if any(len(part) > len(str(LARGEST)) for part in parts if part[0] != "-"):  # int() takes no number of any length
        raise ConfigError(f"{where} {text!r} goes beyond {LARGEST}, the largest dimension of an engine")
    numbers = [int(part) for part in parts]
    return _checked(numbers * 3 if len(numbers) == 1 else numbers, where)


def check_profiles(profiles: Sequence[Profile], config: LxmertConfig, signature: Signature) -> None:
    """``ConfigError`` where profiles do not fit a config's position table or what a signature fixes, or one comes twice."""
    positions, fixed = config.max_position_embeddings, signature.fixed_sizes
    for number, profile in enumerate(profiles):
        if profile.text.max > positions:
            raise ConfigError(
                f"profile {number}: --text {profile.text} goes beyond the position table ({positions} rows): "
                f"give at most {positions}"
            )
        for axis, size in fixed.items():
            if (sizes := profile.ranges[axis]) != AxisRange(size, size, size):
                raise ConfigError(
                    f"profile {number}: --{axis} {sizes}, but the ONNX graph has {axis} fixed to {size}: "
                    f"leave --{axis} out, or export the graph without it"
                )
        if profile in profiles[:number]:
            raise ConfigError(f"profile {number} is profile {profiles.index(profile)} again ({profile}): leave one out")


def call_sizes(shapes: Mapping[str, Sequence[int]], signature: Signature) -> dict[str, int]:
    """The sizes of batch, text and objects in a call, from the shapes of its inputs.

    ``InputError``: an unknown input, one of another rank, two that disagree, or none that tells the size of an axis.
    """
    sizes, specs = signature.fixed_sizes, {spec.name: spec for spec in signature.inputs}
    if unknown := sorted(set(shapes) - set(specs)):
        raise InputError(f"unknown input {', '.join(unknown)}; this takes {', '.join(specs)}")
    for name, shape in shapes.items():
        for axis, size in zip(specs[name].axes, shape, strict=False):
            if axis in DYNAMIC_AXES:
                sizes.setdefault(str(axis), size)
    if missing := [axis for axis in DYNAMIC_AXES if axis not in sizes]:
        raise InputError(f"no input of the call tells the size of {', '.join(missing)}")
    for name, shape in shapes.items():
        if tuple(shape) != (expected := specs[name].shape(sizes)):
            raise InputError(f"{name} has shape {list(shape)}; beside the other inputs it must be {list(expected)}")
    return sizes


def pick_profile(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int:
    """The number of the tightest profile that covers a call; ``InputError`` where none does.

    The tightest takes the least at most (product of its maxima), then has its opt nearest, then comes first.
    """
    covering = [number for number, profile in enumerate(profiles) if profile.covers(sizes)]
    if not covering:
        call = ", ".join(f"{axis} {sizes[axis]}" for axis in DYNAMIC_AXES)
        taken = "; ".join(
            f"profile {number} takes {', '.join(f'{axis} {profile.ranges[axis]}' for axis in profile.misses(sizes))}"
            for number, profile in enumerate(profiles)
        )
        raise InputError(
            f"{call}: outside every profile of this engine ({taken}): cut the call, or build a wider engine"
        )
    return min(covering, key=lambda number: (*_looseness(profiles[number], sizes), number))


def pieces(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> list[int] | None:
    """The rows of a call, parted as evenly and as little as makes one profile take every part; None where none can."""
    rows = sizes["batch"]
    for profile in sorted(profiles, key=lambda profile: -profile.batch.max):
        if set(profile.misses(sizes)) <= {"batch"}:
            parts = math.ceil(rows / profile.batch.max)
            size, larger = divmod(rows, parts)
            if size >= profile.batch.min:
                return [size + 1] * larger + [size] * (parts - larger)
    return None


def _looseness(profile: Profile, sizes: Mapping[str, int]) -> tuple[int, Fraction]:
    largest = math.prod(allowed.max for allowed in profile.ranges.values())
    # fractions: equally near must be equal, or rounding would choose
    distances = (Fraction(abs(allowed.opt - sizes[axis]), sizes[axis]) for axis, allowed in profile.ranges.items())
    return largest, sum(distances, Fraction(0))


def _defaults(config: LxmertConfig, signature: Signature) -> dict[str, AxisRange]:
    """Of each axis: what the signature fixes, or ``DEFAULTS``, the text cut to the position table."""
    ends = {axis: [r.min, r.opt, r.max] for axis, r in DEFAULTS.items()}
    ends["text"] = [min(size, config.max_position_embeddings) for size in ends["text"]]
    ends |= {axis: [size] * 3 for axis, size in signature.fixed_sizes.items()}
    return {axis: AxisRange(*sizes) for axis, sizes in ends.items()}


def _checked(sizes: Sequence[int], where: str) -> AxisRange:
    low, best, high = sizes
    shown = f"{where} {':'.join(map(str, sizes))}"
    if min(sizes) < 1:
        raise ConfigError(f"{shown} goes below 1: the least size of an axis is 1")
    if max(sizes) > LARGEST:
        raise ConfigError(f"{shown} goes beyond {LARGEST}, the largest dimension of an engine")
    if low > best:
        raise ConfigError(f"{shown} has min above opt: write min:opt:max, in rising order")
    if best > high:
        raise ConfigError(f"{shown} has opt above max: write min:opt:max, in rising order")
    return AxisRange(low, best, high)
