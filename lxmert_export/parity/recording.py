"""What a runner computed on the sample inputs, by input family and output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lxmert_export.progress import Advance
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import SampleInputs
from lxmert_export.spec.signature import Signature

# (family, output) → one array for each batch that the output is pooled over. An output that a runner lacks has no key.
Recording = dict[tuple[str, str], list[NDArray[np.generic]]]
# How a runner's numbers were computed:
#   native                 by the runtime, in the artifact's precision
#   emulated               every operator's result was rounded to the artifact's precision
#   cpu-fp32-arithmetic    a CPU computed a half-precision graph in float32: more exact than any GPU, so it does not count alone
Arithmetic = Literal["native", "emulated", "cpu-fp32-arithmetic"]
Run = Callable[[Mapping[str, NDArray[np.generic]]], Arrays]


def record(
    run: Run, samples: SampleInputs, signature: Signature, *, advance: Advance = lambda family: None
) -> Recording:
    """Runs every family and returns, for each batch, the outputs that are pooled. Calls ``advance`` after each batch."""
    recording: Recording = {}
    for family in samples.families:
        for number, batch in enumerate(family.batches):
            computed = run(batch)
            for output in signature.outputs:
                if output.name in computed and family.pools(number, output):
                    recording.setdefault((family.name, output.name), []).append(computed[output.name])
            advance(family.name)
    return recording


def batch_count(samples: SampleInputs) -> int:
    """Returns how often ``record`` calls ``advance``."""
    return sum(len(family.batches) for family in samples.families)


def shapes(chunks: Sequence[NDArray[np.generic]]) -> list[tuple[int, ...]]:
    """Returns the shape of each batch's array."""
    return [chunk.shape for chunk in chunks]
