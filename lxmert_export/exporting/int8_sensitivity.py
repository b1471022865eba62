"""Finds the few matmuls whose int8 costs the answers most: they can stay in float32.

The suspects are the matmuls that step selection found the least exact. Each is taken out of int8 by itself, and the outputs'
error on kept-back inputs is measured again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from converters.onnx.quantized import write_quantized
from lxmert_export.exporting.activation_steps import Step, taken_of
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.onnx.session import open_session
from lxmert_export.spec.inputs import Arrays

SUSPECTS = 8  # matmuls that are tried: a trial writes and runs the whole file
LEAST_GAIN = 0.1  # of the outputs' squared error, for which one matmul in about a hundred and fifty is worth float32
SCAN = "looking for matmuls that int8 costs most"


def find_sensitive(
    path: Path,
    steps: Mapping[str, Step],
    kept_back: Sequence[Arrays],
    weight_range: int,
    progress: Progress = silent,
    factors: Mapping[str, NDArray[np.float32]] | None = None,
) -> list[str]:
    """Returns the names of the matmuls to keep in float32, in the order of ``steps``; often there are none."""
    wanted = _outputs(path, kept_back)

    def squared_error(kept: Collection[str]) -> float:
        with TemporaryDirectory(dir=path.parent) as place:
            chosen = {name: step.step for name, step in steps.items() if name not in kept}
            written = write_quantized(path, Path(place), chosen, weight_range=weight_range, factors=factors)
            found = _outputs(written, kept_back)
        pairs = zip(found, wanted, strict=True)
        return sum(float(np.mean(np.square(one - other)) / (np.mean(np.square(other)) or 1)) for one, other in pairs)

    everything = squared_error(())
    suspects = sorted(steps, key=lambda name: -steps[name].error)[:SUSPECTS]
    kept = []
    for number, name in enumerate(suspects):
        progress(SCAN, number, len(suspects))
        if squared_error({name}) < (1 - LEAST_GAIN) * everything:
            kept.append(name)
    progress(SCAN, len(suspects), len(suspects))
    return [name for name in steps if name in kept]


def _outputs(path: Path, batches: Sequence[Arrays]) -> list[NDArray[np.float32]]:
    """Every output for every batch. Without optimisation, so that no kernel of this CPU can saturate."""
    session = open_session(path, (CPU,), optimize=False)
    return [output for batch in batches for output in session.run(None, taken_of(session, batch))]
