"""What every process that answers questions is told: the artifact, the features, and how answers are written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.artifact.companions import labels_of, tokenizer_of
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import TOOLS, tool_versions
from lxmert_export.data.pictures import PictureSource
from lxmert_export.data.questions.question_set import QuestionSet
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.predicting.output_formats import OutputFormat
from lxmert_export.spec.signature import ANSWER_OUTPUT

# Tasks and datasets of two pictures for each sentence: the scores of the answers, and their names in the order of the scores.
PAIRS, PAIR_OUTPUT, PAIR_ANSWERS = "nlvr2", "logits", ["False", "True"]
BOX = 4  # numbers of a box in a file of features


@dataclass(frozen=True)
class Job:
    """How questions are answered. It can be pickled, for workers in other processes.

    | field | meaning |
    |---|---|
    | ``artifact``, ``runtime`` | the absolute path of the artifact, and the runtime if it is not the target's own |
    | ``features`` | the absolute path of a file or directory of features |
    | ``digests`` | of both, as ``digests_of`` makes them: the paths hold the same on every machine |
    | ``form``, ``numeric_ids``, ``top`` | how answers are written, whether ids are numbers, how many answers each |
    | ``threads`` | of the runtime; None: the runtime chooses |
    | ``batch`` | the most rows of a call |
    | ``boxes`` | the layout of the features' boxes; None: it is recognised |
    """

    artifact: Path
    runtime: str | None
    features: Path
    digests: tuple[str, str]
    form: OutputFormat
    numeric_ids: bool
    top: int
    providers: tuple[str, ...]
    threads: int | None
    batch: int
    boxes: str | None = None


def digests_of(artifact: Artifact, source: PictureSource) -> tuple[str, str]:
    """Returns two hashes, which are the same for copies elsewhere.

    The first is of an artifact's files, its runtime, and the tools' versions; the second of pictures' ids and features' width.
    """
    of_artifact = [artifact.manifest.files, artifact.runtime.name, tool_versions((*TOOLS, "openvino"))]
    return digest(of_artifact), digest([source.feature_width, *source.ids])


def digest(facts: object) -> str:
    """Returns a hash of JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def answers_of(artifact: Artifact) -> tuple[str, list[str]]:
    """Returns the output that holds the scores of answers, and the answers' names.

    ``ArtifactError``: the artifact's task does not answer, or its answers have no names.
    """
    task = artifact.manifest.signature.lxmert_task
    if task == PAIRS:
        return PAIR_OUTPUT, PAIR_ANSWERS
    if task is None or ANSWER_OUTPUT not in {spec.name for spec in artifact.manifest.signature.outputs}:
        raise ArtifactError(
            f"{artifact.path}: task {artifact.manifest.task} gives no answers; export it with --task question-answering"
        )
    return ANSWER_OUTPUT, labels_of(artifact)


def check_fits(artifact: Artifact, asked: QuestionSet, source: PictureSource) -> None:
    """Checks that an artifact answers questions like these, with the features of a file.

    ``InputError``: it does not. ``ArtifactError``: it has no tokenizer, or gives no answers.
    """
    answers_of(artifact)
    tokenizer_of(artifact)
    manifest = artifact.manifest
    config, fixed = manifest.config, manifest.signature.fixed_sizes
    wanted = 2 if manifest.signature.lxmert_task == PAIRS else 1
    if odd := next((question for question in asked.questions if len(question.pictures) != wanted), None):
        raise InputError(
            f"{artifact.path}: task {manifest.task} takes {wanted} picture{'s' * (wanted > 1)} a question, and question {odd.id} "
            f"of {asked.path} has {len(odd.pictures)}"
        )
    if source.feature_width != config.visual_feat_dim:
        raise InputError(
            f"{source.path}: its features are {source.feature_width} wide, and {artifact.path} takes {config.visual_feat_dim}"
        )
    if config.visual_pos_dim != BOX:
        raise InputError(
            f"{artifact.path}: takes boxes of {config.visual_pos_dim} numbers, and {source.path} has boxes of {BOX}"
        )
    if source.most_objects is not None and source.most_objects > fixed.get("objects", source.most_objects):
        raise InputError(
            f"{source.path}: has pictures of up to {source.most_objects} objects, and {artifact.path} was exported for "
            f"{fixed['objects']}"
        )
