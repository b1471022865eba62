"""The options of the commands that have artifacts answer files of questions: `predict` and `evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

DatasetOption = Annotated[
    Literal["vqa", "gqa", "nlvr2", "own"] | None,
    typer.Option(help="What the questions are of. Default: recognised from the file, and said."),
]
BatchOption = Annotated[
    int, typer.Option(min=1, help="The most questions of a call; a fixed batch axis has its own size.")
]
SkipMissingFlag = Annotated[
    bool,
    typer.Option(
        "--skip-missing",
        help="Leave out questions without features, and features without questions. Without it they are an error.",
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(help="What computes: this process, or the workers of a Ray cluster, which write the same bytes."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="With --engine ray: how many. Default: as many as the cluster has room for."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of the runtime, and of each worker. Default: the runtime chooses; a worker has one."
    ),
]
TimeLimitOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="With --engine ray: the longest that a worker may take for a shard of at most 256 questions; another one then "
        "takes it.",
    ),
]
