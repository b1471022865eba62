"""Every writer of the package, as one table: what it needs, and how it is asked to write into a directory.

Trials that break the disk, or kill the process, go through this table. Networks are tiny, so that a trial takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Call = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Writer:
    """One way to write files.

    ``words`` are the words of a command, in which PLACE stands for the directory that is written into, and a name of ``SOURCES``
    for what is read; or ``call`` writes, given the directory of the sources and PLACE. ``needs`` names the sources.
    """

    words: str = ""
    call: Call | None = None
    needs: tuple[str, ...] = ()


def write_kernels(sources: Path, place: Path) -> None:
    """Keeps compiled kernels, as a runner of TensorRT-RTX does."""
    from lxmert_export.runners.tensorrt.runtime_cache import CacheFile

    CacheFile(place / "cache", engine="e", runtime="r", gpu="g").write(bytes(range(256)) * 160)


def write_tokenizer(sources: Path, place: Path) -> None:
    """Saves a tokenizer."""
    from lxmert_export.tokenizer.pure import LxmertTokenizer

    LxmertTokenizer.from_pretrained("demo").save_pretrained(place / "out")


def write_config(sources: Path, place: Path) -> None:
    """Saves a config."""
    from lxmert_export.spec.config import LxmertConfig

    LxmertConfig().save_pretrained(place / "out")


def write_model(sources: Path, place: Path) -> None:
    """Saves a PyTorch model."""
    from lxmert_export.api.checkpoint import load_checkpoint

    load_checkpoint(sources / "checkpoint").save_pretrained(place / "out")


def write_keras_model(sources: Path, place: Path) -> None:
    """Saves a Keras model as a checkpoint."""
    from converters.tensorflow_model import TFLxmertForQuestionAnswering

    TFLxmertForQuestionAnswering.from_pretrained(sources / "checkpoint").save_pretrained(place / "out")


WRITERS: Mapping[str, Writer] = {
    "convert to hf": Writer("convert checkpoint --to hf -o PLACE/out", needs=("checkpoint",)),
    "convert to original": Writer("convert checkpoint --to original -o PLACE/out", needs=("checkpoint",)),
    "convert to tf": Writer("convert checkpoint --to tf -o PLACE/out", needs=("checkpoint",)),
    "onnx": Writer("onnx checkpoint -o PLACE/out", needs=("checkpoint",)),
    "onnx in a single file": Writer("onnx checkpoint -o PLACE/out --single-file --no-parity", needs=("checkpoint",)),
    "saved model": Writer("tensorflow checkpoint -o PLACE/out --no-parity", needs=("checkpoint",)),
    "keras": Writer("tensorflow checkpoint -o PLACE/out --format keras --no-parity", needs=("checkpoint",)),
    "tflite": Writer("tflite checkpoint -o PLACE/out --no-parity", needs=("checkpoint",)),
    "engine": Writer("tensorrt graph -o PLACE/out", needs=("graph",)),
    "bundle": Writer("tensorrt graph -o PLACE/out --bundle", needs=("graph",)),
    "reports": Writer(
        "parity --from report.json --json PLACE/r.json --junit PLACE/r.xml --markdown PLACE/r.md --html PLACE/r.html",
        needs=("report.json",),
    ),
    "polygraphy": Writer("verify graph --polygraphy PLACE/out", needs=("graph",)),
    "picture": Writer("ask demo-onnx --draw-scene 7 --image PLACE/scene.png", needs=("demo-onnx",)),
    "ask --save": Writer(
        "ask demo-onnx --image scene.png --save PLACE/answer.png QUESTION", needs=("demo-onnx", "scene.png"),
    ),
    "runtime cache": Writer(call=write_kernels),
    "tokenizer": Writer(call=write_tokenizer),
    "config": Writer(call=write_config),
    "PyTorch model": Writer(call=write_model, needs=("checkpoint",)),
    "Keras model": Writer(call=write_keras_model, needs=("checkpoint",)),
}  # fmt: skip
QUESTION = "how many circles are there?"


def words_of(writer: Writer, place: Path) -> list[str]:
    """Returns the words of a writer's command. It is to be run in the directory of the sources."""
    return [word.replace("PLACE", str(place)).replace("QUESTION", QUESTION) for word in writer.words.split()]


def make_checkpoint(path: Path) -> None:
    """Writes a tiny checkpoint, with a tokenizer."""
    from parity_tests.fixtures.random_models import TINY, lively_model

    lively_model("question-answering", TINY).save_pretrained(path)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(50)))
    (path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def make_graph(path: Path) -> None:
    """Writes the ONNX artifact of a tiny network."""
    from lxmert_export.api.export import export
    from parity_tests.fixtures.random_models import TINY, lively_model

    export("onnx", lively_model("question-answering", TINY), path)


def make_report(path: Path) -> None:
    """Writes a report with everything that one can hold, as JSON."""
    from lxmert_export.parity.pages.writing import write_reports
    from parity_tests.fixtures.sample_reports import passing_report

    write_reports(passing_report().to_dict(), json=path)


def make_demo(path: Path) -> None:
    """Writes the ONNX artifact of the built-in checkpoint, with attentions to draw."""
    from lxmert_export.api.export import export

    export("onnx", "demo", path, task="question-answering", attentions=True, parity=False)


def make_scene(path: Path) -> None:
    """Draws the picture that is asked about."""
    from lxmert_export.predicting.pictures import draw_picture

    draw_picture(7, path)


SOURCES: Mapping[str, Callable[[Path], None]] = {
    "checkpoint": make_checkpoint,
    "graph": make_graph,
    "report.json": make_report,
    "demo-onnx": make_demo,
    "scene.png": make_scene,
}


def make_sources(writer: Writer, sources: Path) -> None:
    """Makes what a writer reads, unless an earlier call has made it."""
    for name in writer.needs:
        if not (sources / name).exists():
            SOURCES[name](sources / name)
