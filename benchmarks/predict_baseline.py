"""The usual loop: transformers' eager model over batches in the order of the questions, all padded to one length.

Run: python -m benchmarks.predict_baseline CHECKPOINT ARTIFACT QUESTIONS THREADS. It prints how many questions a second of
benchmarks/workload.json it answers. Features and tokens are in memory before the clock starts, so that reading costs it nothing.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.synthetic_set import WORKLOAD
from lxmert_export.artifact.directory import open_artifact
from lxmert_export.benching.peer_runners import open_eager
from lxmert_export.benching.workload import Questions, padded_batches, read_workload

WARM_UP = 2  # calls before the clock starts


def main() -> None:
    """Prints one JSON object."""
    checkpoint, artifact, questions, threads = sys.argv[1:]
    manifest = open_artifact(artifact).manifest
    workload = replace(read_workload(WORKLOAD), questions=int(questions))
    batches = padded_batches(workload.question_lengths, workload.baseline_batch, workload.baseline_tokens)
    asked = Questions(workload, manifest)
    with open_eager(Path(checkpoint), manifest.signature, manifest.config, int(threads)) as runner:
        for batch in batches[:WARM_UP]:
            runner.run(asked.inputs(batch))
        began = time.perf_counter()
        for batch in batches:
            runner.run(asked.inputs(batch))
        seconds = time.perf_counter() - began
    print(json.dumps({"questions": workload.questions, "seconds": seconds, "rate": workload.questions / seconds}))


if __name__ == "__main__":
    main()
