"""Optimisation profiles: the sizes that an engine takes, as min:opt:max of each axis. The engine is fastest at opt.

A profile is given by the options ``--batch``, ``--text`` and ``--objects``. Each option may be repeated: its n-th value goes into
the n-th profile. An option that is given once goes into all profiles. Profiles are numbered from 0, as in TensorRT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lxmert_export.errors import ConfigError, InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import DYNAMIC_AXES, Signature

if TYPE_CHECKING:
    from typing_extensions import Self

Shape = tuple[int, ...]
LARGEST = 2**31 - 1  # TensorRT's limit for a dimension
KNOWN_AXES = (*DYNAMIC_AXES, "images")  # the size of images follows from batch


@dataclass(frozen=True)
class AxisRange:
    """The sizes of one axis: the smallest, the one to optimise for, and the largest."""

    min: int
    opt: int
    max: int

    def __contains__(self, size: int) -> bool:
        return self.min <= size <= self.max

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}:{self.opt}:{self.max}"


# For axes that are not given. Text goes from [CLS] [SEP] to more than the longest question of VQA or GQA. The published
# checkpoints were trained on 20 words and 36 objects. Detectors give up to 100 objects.
DEFAULTS = {"batch": AxisRange(1, 1, 8), "text": AxisRange(2, 20, 64), "objects": AxisRange(1, 36, 100)}


@dataclass(frozen=True)
class Profile:
    """One profile of an engine: the sizes of the calls that it takes."""

    batch: AxisRange
    text: AxisRange
    objects: AxisRange

    @property
    def ranges(self) -> dict[str, AxisRange]:
        """The range of each axis, by its name."""
        return {axis: getattr(self, axis) for axis in DYNAMIC_AXES}

    def shapes(self, signature: Signature) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Returns the min, opt and max shape of every input of a signature.

        Raises ``ConfigError`` for a dynamic axis that is not in ``KNOWN_AXES``.
        """
        low, best, high = ({axis: getattr(r, end) for axis, r in self.ranges.items()} for end in ("min", "opt", "max"))
        for spec in signature.inputs:
            if strange := [axis for axis in spec.axes if isinstance(axis, str) and axis not in KNOWN_AXES]:
                raise ConfigError(
                    f"input {spec.name}: a profile has no axis {strange[0]!r}; fix its size, or name it one of "
                    f"{', '.join(KNOWN_AXES)}"
                )
        return {spec.name: (spec.shape(low), spec.shape(best), spec.shape(high)) for spec in signature.inputs}

    def covers(self, sizes: Mapping[str, int]) -> bool:
        """Returns whether the profile takes a call of these sizes (of batch, text and objects)."""
        return not self.misses(sizes)

    def misses(self, sizes: Mapping[str, int]) -> list[str]:
        """Returns the axes of a call whose sizes lie outside the profile."""
        return [axis for axis, allowed in self.ranges.items() if sizes[axis] not in allowed]

    def to_dict(self) -> dict[str, list[int]]:
        """Returns the manifest's entry: [min, opt, max] by axis."""
        return {axis: [sizes.min, sizes.opt, sizes.max] for axis, sizes in self.ranges.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` wrote. Raises ``ConfigError`` for anything else."""
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
    """Returns the profiles that options ask for, at least one.

    An axis that is not given has the size that the signature fixes, otherwise a default range. Raises ``ConfigError``, which
    names the profile and the axis, if

    - a value is not ``min:opt:max`` or one number, or is below 1 or not in rising order,
    - the text is longer than the position table,
    - an axis differs from the size that the signature fixes,
    - an option is given neither once nor as often as the others, or
    - a profile is given twice.
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
    """Returns how many profiles these ranges make.

    Raises ``ConfigError`` if an axis has neither one range nor as many as the axis with most ranges.
    """
    count = max(1, *map(len, given.values()))
    if wrong := [axis for axis, texts in given.items() if len(texts) not in (0, 1, count)]:
        raise ConfigError(
            f"--{wrong[0]} is given {len(given[wrong[0]])} times for {count} profiles: give it once for all of them, or "
            f"{count} times"
        )
    return count


def parse_range(text: str, where: str) -> AxisRange:
    """Reads ``min:opt:max``, or one number for all three. Raises ``ConfigError``, whose message begins with ``where``."""
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(re.fullmatch("-[0-9]{1,10}|[0-9]+", part) for part in parts):
        raise ConfigError(f"{where} {text!r} must be min:opt:max, such as 1:4:8, or one number")
    if any(len(part) > len(str(LARGEST)) for part in parts if part[0] != "-"):  # int() refuses thousands of digits
        raise ConfigError(f"{where} {text!r} goes beyond {LARGEST}, the largest dimension of an engine")
    numbers = [int(part) for part in parts]
    return _checked(numbers * 3 if len(numbers) == 1 else numbers, where)


def check_profiles(profiles: Sequence[Profile], config: LxmertConfig, signature: Signature) -> None:
    """Raises ``ConfigError`` if a profile exceeds the position table, differs from a fixed axis, or occurs twice."""
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
                    f"leave --{axis} out, or export the graph without fixing {axis}"
                )
        if profile in profiles[:number]:
            raise ConfigError(f"profile {number} repeats profile {profiles.index(profile)} ({profile}): leave one out")


def call_sizes(shapes: Mapping[str, Sequence[int]], signature: Signature) -> dict[str, int]:
    """Returns the sizes of batch, text and objects in a call, from the shapes of its inputs.

    Raises ``InputError`` for an unknown input, a wrong rank, inputs that disagree, or an axis that no given input has.
    """
    sizes, specs = signature.fixed_sizes, {spec.name: spec for spec in signature.inputs}
    if unknown := sorted(set(shapes) - set(specs)):
        raise InputError(f"unknown input {', '.join(unknown)}; this takes {', '.join(specs)}")
    for name, shape in shapes.items():
        for axis, size in zip(specs[name].axes, shape, strict=False):
            if axis in DYNAMIC_AXES:
                sizes.setdefault(str(axis), size)
    if missing := [axis for axis in DYNAMIC_AXES if axis not in sizes]:
        raise InputError(f"no given input shows the size of {', '.join(missing)}")
    for name, shape in shapes.items():
        if tuple(shape) != (expected := specs[name].shape(sizes)):
            raise InputError(f"{name} has shape {list(shape)}; to fit the other inputs it must be {list(expected)}")
    return sizes


def pick_profile(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int:
    """Returns the number of the tightest profile that covers a call. Raises ``InputError`` if none does.

    The tightest profile has the smallest product of maxima; among equals, opt nearest to the call; then the lowest number.
    """
    covering = [number for number, profile in enumerate(profiles) if profile.covers(sizes)]
    if not covering:
        call = ", ".join(f"{axis} {sizes[axis]}" for axis in DYNAMIC_AXES)
        taken = "; ".join(
            f"profile {number} takes {', '.join(f'{axis} {profile.ranges[axis]}' for axis in profile.misses(sizes))}"
            for number, profile in enumerate(profiles)
        )
        raise InputError(
            f"{call}: outside every profile of this engine ({taken}): make the call smaller, or build a wider engine"
        )
    return min(covering, key=lambda number: (*_looseness(profiles[number], sizes), number))


def pieces(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> list[int] | None:
    """Splits the rows of a call into few and even parts that one profile can take; returns the number of rows in each part.

    Returns None if no profile can take the call in parts.
    """
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
    # Exact fractions: rounding must not decide between equal distances.
    distances = (Fraction(abs(allowed.opt - sizes[axis]), sizes[axis]) for axis, allowed in profile.ranges.items())
    return largest, sum(distances, Fraction(0))


def _defaults(config: LxmertConfig, signature: Signature) -> dict[str, AxisRange]:
    """The range of each axis that is not given: the fixed size, or ``DEFAULTS`` with text cut to the position table."""
    ends = {axis: [r.min, r.opt, r.max] for axis, r in DEFAULTS.items()}
    ends["text"] = [min(size, config.max_position_embeddings) for size in ends["text"]]
    ends |= {axis: [size] * 3 for axis, size in signature.fixed_sizes.items()}
    return {axis: AxisRange(*sizes) for axis, sizes in ends.items()}


def _checked(sizes: Sequence[int], where: str) -> AxisRange:
    low, best, high = sizes
    shown = f"{where} {':'.join(map(str, sizes))}"
    if min(sizes) < 1:
        raise ConfigError(f"{shown} goes below 1: the smallest size of an axis is 1")
    if max(sizes) > LARGEST:
        raise ConfigError(f"{shown} goes beyond {LARGEST}, the largest dimension of an engine")
    if low > best:
        raise ConfigError(f"{shown} has min above opt: write min:opt:max, in rising order")
    if best > high:
        raise ConfigError(f"{shown} has opt above max: write min:opt:max, in rising order")
    return AxisRange(low, best, high)
