"""The command line `lxmert-export COMMAND`: parses options, calls the Python interface, prints. It computes nothing itself."""

from __future__ import annotations

import errno
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from lxmert_export.cli import options
from lxmert_export.cli.bench import bench
from lxmert_export.cli.engine import tensorrt
from lxmert_export.cli.evaluate import evaluate
from lxmert_export.cli.export import onnx, tensorflow, tflite
from lxmert_export.cli.features import features
from lxmert_export.cli.option_values import given_sizes
from lxmert_export.cli.parity import parity, verify
from lxmert_export.cli.predict import predict
from lxmert_export.cli.printing import PARITY_FAILED, input_warnings_said, print_json, say, show_report
from lxmert_export.errors import ArtifactError, LxmertExportError
from lxmert_export.files.path_spelling import check_spelling
from lxmert_export.interrupts import ended_by_signals
from lxmert_export.native_logs import show_native_logs
from lxmert_export.option_names import named_as_flags
from lxmert_export.parity.pages.glossary import read_glossary
from lxmert_export.parity.report import ParityError


class _Commands(TyperGroup):
    """The commands, and what to say of one that was looked for under another name: its nearest name is another command's."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] == "lint":
            ctx.fail("No such command 'lint': 'lxmert-export inspect ARTIFACT --lint' lists what breaks in fp16")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="lxmert-export",
    cls=_Commands,
    help="Convert a trained LXMERT to ONNX, TensorFlow, TFLite or TensorRT. Every conversion is compared with its checkpoint "
    "in float64, and fails if its outputs differ by more than the precision explains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ERROR = 1


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lxmert-export {metadata.version('lxmert-export')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere in the command.")
    ] = False,
) -> None:
    """Lists --debug in the help: ``main`` removes it from the arguments."""


for conversion in (onnx, tensorflow, tflite, tensorrt):
    app.command()(conversion)


@app.command()
def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A file, a directory, a Hugging Face hub name (owner/name), or 'demo', the built-in checkpoint.",
        ),
    ],
    to: Annotated[
        Literal["hf", "original", "tf"],
        typer.Option(
            help="Dialect to write: Hugging Face PyTorch (hf), airsplay/lxmert (original), or Hugging Face TensorFlow (tf)."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The directory to write.")],
    task: options.TaskOption = None,
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
    ignore_other_parts: options.IgnoreOtherPartsFlag = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Convert a checkpoint from one dialect to another, bit for bit."""
    from lxmert_export.api.checkpoint import convert_checkpoint

    read = convert_checkpoint(
        checkpoint, output, dialect=to, task=task, revision=revision, num_attention_heads=num_attention_heads,
        ignore_other_parts=ignore_other_parts, overwrite=overwrite,
    )  # fmt: skip
    typer.echo(f"wrote {output} ({to} dialect of {checkpoint}, {read.source.paths[0].name}, task {read.task})")


app.command(epilog="\n\n".join(f"{word}: {meaning}" for word, meaning in read_glossary().items()))(parity)
app.command()(verify)
app.command()(bench)
app.add_typer(features, name="features")
app.command()(evaluate)
app.command()(predict)


@app.command()
def inspect(
    path: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|ARTIFACT",
            help="A checkpoint (file, directory, hub name or 'demo'), or the directory of an artifact.",
        ),
    ],
    lint: Annotated[
        bool,
        typer.Option("--lint", help="List what breaks, or would break, in fp16. For fp16 and fp32 ONNX artifacts."),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Real inputs for --lint: .npz, .safetensors, or Polygraphy's JSON. Default: random ones.",
        ),
    ] = None,
    batch: options.CountedBatchOption = None,
    text: options.CountedTextOption = None,
    objects: options.CountedObjectsOption = None,
    as_json: options.JsonFlag = False,
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
) -> None:
    """Show what a checkpoint or an artifact holds, and the operations of one call.

    Everything is read from the files themselves, and checked: every tensor of a checkpoint, every hash of an artifact.
    """
    from lxmert_export.api.inspect import inspect_artifact, inspect_checkpoint, inspect_lint, summary_rows
    from lxmert_export.artifact.directory import is_artifact, refuse_converted
    from lxmert_export.extras import ONNX, ONNXRUNTIME, ONNXSCRIPT, TORCH, require

    if calibration is not None and not lint:
        raise typer.BadParameter("--calibration is for --lint")
    sizes = given_sizes(batch, text, objects)
    if is_artifact(path):
        facts = inspect_artifact(path, sizes)
        if lint:
            rewritten = (TORCH, ONNXSCRIPT) if facts["manifest"]["precision"] == "fp32" else ()
            require("the fp16 linter", ONNX, ONNXRUNTIME, *rewritten)
            facts["lint"] = inspect_lint(path, calibration)
    elif lint:
        raise typer.BadParameter("--lint reads ONNX artifacts: export the checkpoint first (lxmert-export onnx)")
    else:
        refuse_converted(path)
        require("reading a checkpoint", TORCH)
        facts = inspect_checkpoint(path, revision=revision, num_attention_heads=num_attention_heads, sizes=sizes)
    if as_json:
        print_json(facts)
        return
    for label, value in summary_rows(facts):
        typer.echo(f"{label:<14} {value}")


@app.command()
def ask(
    artifact: options.RunnableArgument,
    image: Annotated[Path, typer.Option("--image", metavar="FILE", help="The picture to ask about.")],
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="For example: how many red circles are there?")
    ] = None,
    draw_scene: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="First draw a random scene into --image, and list questions about it."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many answers to show.")] = 5,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a PNG of the picture, with its boxes shaded by the attention of --word. Needs an artifact exported "
            "with --attentions.",
        ),
    ] = None,
    word: Annotated[
        str | None,
        typer.Option(
            help="The word of the question whose attention --save shows. Default: [CLS], from which the answer is computed."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing PNG files.")] = False,
    provider: options.ProviderOption = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Ask an artifact of the built-in checkpoint about a picture.

    Needs no PyTorch. Other artifacts take the features of an object detector, not pictures.
    """
    from lxmert_export.api import ask as api
    from lxmert_export.runners.onnx.providers import CPU

    if question is None and draw_scene is None:
        raise typer.BadParameter("give a QUESTION, or --draw-scene SEED to draw a picture and list questions about it")
    if question is None and save is not None:
        raise typer.BadParameter("--save draws the answer to a question: give a QUESTION")
    if save is None and word is not None:
        raise typer.BadParameter("--word chooses the word whose attention --save draws: give --save, too")
    api.require_pictures()
    from lxmert_export.predicting import pictures

    shown = word or "[CLS]"
    if save is not None or draw_scene is not None:
        attended = shown if save is not None else None
        pictures.check_request(artifact, question, attended, providers=provider or (CPU,))
    if save is not None:
        pictures.check_destination(save, artifact, overwrite=overwrite, picture=image)
    if draw_scene is not None:
        pictures.check_destination(image, artifact, overwrite=overwrite)
        suggestions = pictures.draw_picture(draw_scene, image, overwrite=overwrite)
        say(f"drew scene {draw_scene} into {image}; questions about it, with their answers:")
        for suggested in suggestions:
            say(f"  {suggested.text}  ({suggested.answer})")
        if question is None:
            if as_json:
                print_json({"scene": draw_scene, "questions": [vars(suggested) for suggested in suggestions]})
            return
    assert question is not None  # checked above
    answered = api.ask(artifact, question, image, providers=provider or (CPU,))
    if save is not None:
        pictures.save_answer(answered, image, save, word=shown, overwrite=overwrite)
        say(f"drew {save}")
    if as_json:
        print_json(answered.to_dict(top))
        return
    for answer, share in answered.answers[:top]:
        typer.echo(f"{share:6.1%}  {answer}")


@app.command()
def doctor(as_json: options.JsonFlag = False) -> None:
    """Show what works on this machine, and how to install the rest."""
    from lxmert_export.api.doctor import machine

    facts = machine()
    if as_json:
        print_json(facts)
        return
    typer.echo(f"Python {facts['python']} on {facts['platform']}")
    for capability in facts["capabilities"]:
        typer.echo(f"{'yes' if capability['works'] else 'no ':<4}{capability['what']}: {capability['detail']}")
        if capability["mend"]:
            typer.echo(f"    {capability['mend']}")


def main() -> None:
    """The console script. An error that the user can act on becomes one line on stderr and an exit code.

    Exit codes: 0 done, 1 an error, 2 usage, 3 parity failed, 143 ended by SIGTERM.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        show_native_logs()
    try:
        for argument in arguments:
            check_spelling(argument)
        with named_as_flags(), ended_by_signals(), input_warnings_said():
            app(args=[argument for argument in arguments if argument != "--debug"])
    except ParityError as error:
        # The error's own line is the verdict.
        show_report(error.report, verdict=False, verbose="--verbose" in arguments)
        _fail(error, PARITY_FAILED, debug)
    except LxmertExportError as error:
        _fail(error, ERROR, debug)
    except OSError as error:
        _fail(_of_system(error), ERROR, debug)


def _of_system(error: OSError) -> ArtifactError:
    """What the system says of a file, as an error of ours; where it happened says ``--debug``."""
    if error.errno == errno.ENOSPC and error.filename is None:
        return ArtifactError("the output cannot be written: no space left on its disk")
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return ArtifactError(f"{place}cannot be read or written: {error.strerror or error}")


def _fail(error: LxmertExportError, code: int, debug: bool) -> None:
    if debug:
        raise error
    say(f"error: {' '.join(str(error).split())}")  # one line, even if a library's message has several
    sys.exit(code)


if __name__ == "__main__":
    main()
