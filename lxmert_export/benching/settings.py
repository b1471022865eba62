"""The settings of a bench: the sizes of batch, text and objects at which all contestants are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import InputError, as_given
from lxmert_export.files.limits import MOST_VALUES_A_CALL
from lxmert_export.option_names import option
from lxmert_export.spec.flops import USUAL_SIZES
from lxmert_export.spec.signature import DYNAMIC_AXES

USUAL = {**{axis: (size,) for axis, size in USUAL_SIZES.items()}, "batch": (1, 8)}


@dataclass(frozen=True)
class Setting:
    """Sizes of one call."""

    batch: int
    text: int
    objects: int

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by the names of their axes."""
        return {"batch": self.batch, "text": self.text, "objects": self.objects}

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.text} tokens, {self.objects} objects"


def settings_of(
    artifacts: Sequence[Artifact],
    batch: Sequence[int] | None = None,
    text: Sequence[int] | None = None,
    objects: Sequence[int] | None = None,
) -> list[Setting]:
    """Returns every combination of the sizes; of an axis without sizes the fixed size, or else the usual ones.

    ``InputError``: no size, a size below 1, outside a fixed axis or the position table, or a call of too many values.
    """
    given = {"batch": batch, "text": text, "objects": objects}
    sizes = {axis: _sizes(axis, given[axis], artifacts) for axis in DYNAMIC_AXES}
    settings = [Setting(*combined) for combined in product(*(sizes[axis] for axis in DYNAMIC_AXES))]
    for setting in settings:
        for artifact in artifacts:
            check_taken(artifact, setting)
    return settings


def _sizes(axis: str, given: Sequence[int] | None, artifacts: Sequence[Artifact]) -> list[int]:
    if given is None:
        fixed = [size for a in artifacts if (size := a.manifest.signature.fixed_sizes.get(axis)) is not None]
        longest = min(artifact.manifest.config.max_position_embeddings for artifact in artifacts)
        return fixed[:1] or [min(size, longest) if axis == "text" else size for size in USUAL[axis]]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(f"{option(axis)}: takes a list of sizes, such as {list(USUAL[axis])}, not {as_given(given)}")
    for size in given:
        check_count(axis, size)
    if not given:
        raise InputError(f"{option(axis)}: no size is given: name at least one, such as {USUAL[axis][0]}")
    return list(dict.fromkeys(given))


def check_count(keyword: str, number: object) -> None:
    """``InputError``: not a whole number from 1 on."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"{option(keyword)}: takes whole numbers from 1 on, not {as_given(number)}")


def check_taken(artifact: Artifact, setting: Setting) -> None:
    """``InputError``: an artifact does not take calls of these sizes."""
    signature, longest = artifact.manifest.signature, artifact.manifest.config.max_position_embeddings
    for axis, size in setting.sizes.items():
        fixed = signature.fixed_sizes.get(axis, size)
        if fixed != size:
            raise InputError(
                f"{artifact.path}: its {axis} axis is fixed to {fixed}, so {option(axis)} cannot be {size}"
            )
    if setting.text > longest:
        raise InputError(
            f"{artifact.path}: its position table ends at {longest}, so {option('text')} cannot be {setting.text}"
        )
    most = max((math.prod(spec.shape(setting.sizes)) for spec in signature.inputs), default=0)
    if most > MOST_VALUES_A_CALL:
        raise InputError(f"{artifact.path}: {setting} is too large for one call: an input would hold {most:,} values")
