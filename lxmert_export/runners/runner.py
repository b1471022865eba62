"""The contract of every runtime: a dict of numpy arrays in, a dict of numpy arrays out, matched by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.companions import labels_of, tokenizer_of
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.errors import ArtifactError, InputError, as_given, first_line
from lxmert_export.option_names import option
from lxmert_export.runners.turns import Turns
from lxmert_export.spec.inputs import Arrays, InputLimits, prepare_inputs
from lxmert_export.spec.signature import ANSWER_OUTPUT, Signature

if TYPE_CHECKING:
    from typing_extensions import Self

    from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer


class Runner(ABC):
    """Runs a model or an artifact. A context manager; ``with`` is optional for a runner that holds nothing open.

    Threads may share a runner. Their calls take turns, unless its class is ``parallel``.
    """

    # What ``compute`` may raise if the runtime cannot run the artifact; ``run`` raises ``ArtifactError`` instead.
    failures: ClassVar[tuple[type[Exception], ...]] = ()
    # Whether ``compute`` is right when several threads are in it at the same time.
    parallel: ClassVar[bool] = False

    def __init__(self, name: str, signature: Signature, limits: InputLimits) -> None:
        self.name = name
        self.signature = signature
        self.limits = limits
        self.artifact: Artifact | None = None  # set where an artifact is opened; a model in memory has none
        self._turns = Turns(parallel=self.parallel)

    @property
    def manifest(self) -> Manifest:
        """What the artifact says of itself: config, signature, source, versions, and the figures of its gate."""
        return self._opened.manifest

    @cached_property
    def tokenizer(self) -> PreTrainedLxmertTokenizer:
        """The tokenizer that lay beside the checkpoint's weights. ``ArtifactError``: there was none."""
        return tokenizer_of(self._opened)

    @cached_property
    def labels(self) -> list[str]:
        """The names of the answers, in the order of their scores. ``ArtifactError``: there were none beside the weights."""
        return labels_of(self._opened)

    def answers(self, outputs: Mapping[str, Any], *, top: int = 5) -> list[list[tuple[str, float]]]:
        """Returns, for each row of ``run``'s outputs, the ``top`` likeliest answers: their names and probabilities.

        ``InputError``: the outputs hold no ``question_answering_score``, it is not [rows, answers], or ``top`` is not a number
        from 1 on. ``ArtifactError``: there are no names of answers, or a score is NaN or infinite.
        """
        if not isinstance(outputs, Mapping):
            raise InputError(
                f"{self.name}: answers takes what run() returns, arrays by name, not {as_given(outputs)}: give "
                f"{{{ANSWER_OUTPUT!r}: scores}}"
            )
        if ANSWER_OUTPUT not in outputs:
            raise InputError(f"{self.name}: the outputs hold no {ANSWER_OUTPUT}; they hold {', '.join(outputs)}")
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise InputError(f"{self.name}: top is a number of answers, 1 or more, not {as_given(top)}")
        scores = np.asarray(outputs[ANSWER_OUTPUT])
        if scores.ndim != 2 or scores.shape[1] != len(self.labels) or scores.dtype.kind not in "fiu":
            raise InputError(
                f"{self.name}: {ANSWER_OUTPUT} holds numbers [rows, {len(self.labels)} answers], not {scores.dtype} "
                f"{list(scores.shape)}"
            )
        return name_answers(scores, self.labels, self.name, top=top)

    @property
    def _opened(self) -> Artifact:
        if self.artifact is None:
            raise ArtifactError(f"{self.name}: runs a model in memory, not an artifact, so it has no manifest")
        return self.artifact

    def run(self, inputs: Mapping[str, Any], *, allow_nonfinite: bool = False) -> Arrays:
        """Returns outputs by name, in the signature's order; fills in optional inputs that are left out, or None.

        ``inputs`` are arrays, nested lists or PyTorch tensors by name.

        ``InputError``: an unknown, missing or mis-shaped input, ids outside the vocabulary, text beyond the position
        table, a mask that holds other values than 0 and 1, or NaN and infinity, unless ``allow_nonfinite``.
        ``ArtifactError``: the runner is closed, or its runtime fails. Warns of boxes outside of the picture.
        """
        if self._turns.closed:
            raise self._closed()
        return self.run_prepared(prepare_inputs(inputs, self.signature, self.limits, allow_nonfinite=allow_nonfinite))

    def run_prepared(self, prepared: Arrays) -> Arrays:
        """Runs inputs that are complete and checked already, when it is the calling thread's turn; errors as of ``run``."""
        with self._turns.turn() as admitted:
            if not admitted:  # another thread may have closed it meanwhile
                raise self._closed()
            try:
                return self.compute(prepared)
            except self.failures as error:
                raise ArtifactError(f"{self.name}: failed while it ran: {first_line(error)}") from error

    def _closed(self) -> ArtifactError:
        return ArtifactError(f"{self.name}: this runner is closed: run it inside its 'with' block, or open it again")

    def run_in_pieces(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Runs a call as ``run`` does, but in parts if it has more rows than the runtime takes at a time."""
        parts = self.pieces({name: np.shape(array) for name, array in inputs.items()})
        if parts is None or len(parts) == 1:
            return self.run(inputs)
        ends = np.cumsum(parts)
        results = [
            self.run({name: array[end - part : end] for name, array in inputs.items()})
            for part, end in zip(parts, ends, strict=True)
        ]
        return {name: np.concatenate([outputs[name] for outputs in results]) for name in results[0]}

    def pieces(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int] | None:
        """Returns the number of rows of each part of a call with these shapes; None if the runtime takes no such call.

        Most runtimes take any call in one part.
        """
        return [next(iter(shapes.values()))[0]]

    def under(self, signature: str) -> Runner:
        """Returns the same loaded model under another of its signatures; it is closed with this runner.

        Only SavedModels have several. ``ArtifactError``: there is no such signature.
        """
        raise ArtifactError(f"{self.name}: has no signature {signature!r}")

    @property
    def vision(self) -> Runner:
        """The runner of a split artifact's half for the images. ``ArtifactError``: the artifact is not split."""
        raise self._unsplit()

    @property
    def question(self) -> Runner:
        """The runner of a split artifact's half for the questions. ``ArtifactError``: the artifact is not split."""
        raise self._unsplit()

    def _unsplit(self) -> ArtifactError:
        return ArtifactError(f"{self.name}: is not split: export it again with {option('split', True)}")

    @abstractmethod
    def compute(self, inputs: Arrays) -> Arrays:
        """Runs prepared inputs: complete, with the dtypes and shapes of the signature."""

    def close(self) -> None:
        """Releases what the runtime holds, after the calls that run; nothing can be run afterwards.

        Closing twice is not an error.
        """
        if self._turns.close():
            self.release()

    def release(self) -> None:
        """Releases what the runtime holds; ``close`` calls it once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def name_answers(
    scores: NDArray[np.generic], labels: Sequence[str], name: str, *, top: int
) -> list[list[tuple[str, float]]]:
    """Returns the ``top`` likeliest answers of each row of scores [rows, answers], with probabilities; ``name`` is for errors."""
    wide = scores.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ArtifactError(f"{name}: answers NaN or infinity; check it with 'lxmert-export verify'")
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return [[(labels[n], float(row[n])) for n in best] for row, best in zip(shares, order, strict=True)]
