"""The page of `make trust`: what was tried, how often, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from textwrap import wrap
from typing import Any

from benchmarks.full_size_page import table
from benchmarks.trust.calls import MOST_GROWTH, OF_TENSORFLOW
from benchmarks.trust.faults import WRITES
from benchmarks.trust.writers import WRITERS

Outcome = Mapping[str, Any]
WIDTH = 118  # of a line of text
HEADER = "| trial | tried | findings | minutes | commit |"


def page(results: Mapping[str, Any]) -> str:
    """Returns the page, in Markdown."""
    trials = results["trials"]
    missing = [name for name in DETAILS if name not in trials]
    return "\n".join(
        [
            "# Trust: what strangers send, what crashes leave, what threads share",
            "",
            f"Measured by `make trust` on {results['machine']}.",
            *(["", f"Not run yet: {', '.join(missing)}."] if missing else []),
            "",
            *table(HEADER, (_summary(name, trials[name]) for name in DETAILS if name in trials)),
            "",
            "Networks and artifacts are tiny: size proves nothing here. A finding is an outcome that the sections below do not",
            "allow; `benchmarks/trust.json` holds each. What earlier runs found is mended, with tests that failed before.",
            *(line for name in DETAILS if name in trials for line in ("", *DETAILS[name](trials[name]))),
            "",
        ]
    )


def with_figures(text: str, results: Mapping[str, Any]) -> str:
    """Returns the text of a page with today's figures between the marks that name them: ``tried`` as a table or a sentence."""
    for kind, told in FIGURES.items():
        start, end = f"<!-- {kind} of trust.json -->", f"<!-- end of {kind} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = f"{before}{start}\n\n{told(results['trials'])}\n\n{end}{rest.partition(end)[2]}"
    return text


def _tried_table(trials: Mapping[str, Outcome]) -> str:
    rows = (
        f"| {name} | {TRIED[name](trials[name])} | {len(found_in(name, trials[name]))} "
        f'| `make trust TRUST_ARGS="--only {name}"` |'
        for name in DETAILS
        if name in trials
    )
    return "\n".join(table("| trial | tried | findings | command |", rows))


def _tried_sentence(trials: Mapping[str, Outcome]) -> str:
    tried = [TRIED[name](trials[name]) for name in DETAILS if name in trials]
    findings = sum(len(found_in(name, trials[name])) for name in trials)
    told = f"`make trust` tries this: {', '.join(tried)}. Findings that are left: {findings or 'none'}."
    return "\n".join(wrap(told, WIDTH))


FIGURES: Mapping[str, Callable[[Mapping[str, Outcome]], str]] = {"table": _tried_table, "sentence": _tried_sentence}


def found_in(name: str, trial: Outcome) -> list[str]:
    """Returns a line for each finding of a trial."""
    if name == "flips":
        unnoticed = [f"{row['file']}: bits {row['unnoticed']}" for row in trial["files"] if row["unnoticed"]]
        return [*unnoticed, *trial["runtimes"]]
    if name == "hostile":
        return [f"{row['kind']}: {row['fault']}" for row in trial["kinds"] if row["fault"]]
    if name == "threads":
        return [f"{runtime}: {row['wrong']} wrong" for runtime, row in trial["runtimes"].items() if row["wrong"]]
    if name == "shapes":
        flat = {runtime: row for runtime, row in trial["runtimes"].items() if runtime not in OF_TENSORFLOW}
        return [f"{runtime}: + {r['growth_mib']} MiB" for runtime, r in flat.items() if r["growth_mib"] > MOST_GROWTH]
    if name == "bytes":
        return [f"{file} differs" for file in trial["different"]]
    if name == "fuzz":
        return [f"{reader}: {key}" for reader, row in trial["readers"].items() for key in row["findings"]]
    return [f"{writer}: {found}" for writer, row in trial["writers"].items() for found in row["findings"]]


def _summary(name: str, trial: Outcome) -> str:
    rows = trial.get("writers") or trial.get("readers") or {"": trial}
    seconds = sum(row.get("seconds", row.get("cpu_seconds", 0)) for row in rows.values())
    commits = sorted({commit for row in rows.values() for commit in row.get("commits", [row.get("commit", "")])})
    tried = TRIED[name](trial)
    if missing := [writer for writer in WRITERS if writer not in trial.get("writers", WRITERS)]:
        tried += f"; not yet of {', '.join(missing)}"
    return f"| {name} | {tried} | {len(found_in(name, trial))} | {seconds / 60:.1f} | {', '.join(commits)} |"


def _cpu_hours(fuzz: Outcome) -> float:
    return sum(float(row["cpu_seconds"]) for row in fuzz["readers"].values()) / 3600


def _total(rows: Mapping[str, Outcome], count: str) -> int:
    return sum(row[count] for row in rows.values())


TRIED: Mapping[str, Callable[[Outcome], str]] = {
    "flips": lambda trial: (
        f"{sum(row['flips'] for row in trial['files']):,} single-bit flips in {len(trial['files'])} files"
    ),
    "threads": lambda trial: f"{_total(trial['runtimes'], 'calls'):,} calls from several threads",
    "shapes": lambda trial: f"{_total(trial['runtimes'], 'calls'):,} calls of changing shapes",
    "hostile": lambda trial: f"{len(trial['kinds'])} kinds of hostile files",
    "kills": lambda trial: f"{_total(trial['writers'], 'kills'):,} SIGKILLs at random moments",
    "faults": lambda trial: f"{_total(trial['writers'], 'faults'):,} file operations failed",
    "full-disks": lambda trial: f"{_total(trial['writers'], 'disks'):,} disks that are too small",
    "bytes": lambda trial: f"{trial['files']} files written in two environments",
    "fuzz": lambda trial: f"{_total(trial['readers'], 'inputs'):,} damaged inputs in {_cpu_hours(trial):.2f} CPU hours",
}


def _section(title: str, text: str, header: str, rows: Iterable[str]) -> list[str]:
    """The lines of a section: its text, filled, and its table."""
    return [f"## {title}", "", *wrap(" ".join(text.split()), WIDTH), "", *table(header, iter(rows))]


def _flips(trial: Outcome) -> list[str]:
    imported = ", ".join(trial["runtimes"]) or "none"
    text = f"""One bit of a file is flipped, and the artifact is opened as `load_artifact` opens it before any runtime is
    imported. Of a `.pth`, a flip is noticed, or it changes no weight. Runtimes imported meanwhile: {imported}."""
    rows = (f"| `{row['file']}` | {row['bytes']:,} | {row['flips']:,} | {row['noticed']:,} |" for row in trial["files"])
    return _section("Flips", text, "| file | bytes | flips | noticed |", rows)


def _threads(trial: Outcome) -> list[str]:
    text = """Four threads share a runner; batches, texts and objects differ from call to call. Every answer is compared with that
    of the same inputs alone. TensorRT itself needs a GPU: its runner is called with a stand-in whose buffers are overwritten."""
    rows = (f"| {name} | {r['calls']:,} | {r['wrong']} | {r['seconds']:.0f} |" for name, r in trial["runtimes"].items())
    return _section("Threads", text, "| runtime | calls | wrong | seconds |", rows)


def _shapes(trial: Outcome) -> list[str]:
    text = f"""Memory of the process (MiB) while the shapes change, after a tenth, half and all of the calls. With
    oneDNN, TensorFlow keeps something of each shape: its memory grows, less and less. `TF_ENABLE_ONEDNN_OPTS=0` makes it flat, so
    nothing is traced again. All others are held to the limit: {MOST_GROWTH:g} MiB in the second half."""
    header = "| runtime | calls | shapes | a tenth | half | all | second half | seconds |"
    return _section("Shapes", text, header, (_of_shapes(name, row) for name, row in trial["runtimes"].items()))


def _of_shapes(name: str, row: Outcome) -> str:
    memory = row["memory_mib"]
    noted = (memory[0], memory[len(memory) // 2 - 1], memory[-1])
    told = " | ".join(f"{value:.1f}" for value in noted)
    return (
        f"| {name} | {row['calls']:,} | {row['shapes']:,} | {told} | {row['growth_mib']:+.1f} | {row['seconds']:.0f} |"
    )


def _hostile(trial: Outcome) -> list[str]:
    text = """CPU seconds and peak memory of the whole command, and what they are beyond the same command on a valid file.
    Allowed: 5 s (and 1 s for each 200 MB that is hashed), and twice the size and 500 MB."""
    rows = (
        f"| {r['kind']} | {r['mb']:,} | {r['seconds']} | {r['beyond_seconds']:+} | {r['peak_mb']:,} | {r['beyond_mb']:+,} |"
        for r in trial["kinds"]
    )
    return _section("Hostile files", text, "| kind | size, MB | seconds | beyond | peak, MB | beyond |", rows)


def _kills(trial: Outcome) -> list[str]:
    text = """What had its name after the kill; of several outputs, *parts* of them until the next run. Then the same command is
    given again: it works, all of its output is there, and nothing under a hidden name. *Recovered*: there was something to clean
    up. Runs that ended before the kill are counted by what is there, but not as kills."""
    rows = (
        f"| {name} | {r['kills']} | {r['nothing']} | {r['old']} | {r['new']} | {r['parts']} | {r['recovered']} |"
        for name, r in trial["writers"].items()
    )
    return _section("Kills", text, "| writer | kills | nothing | old | new | parts | recovered |", rows)


def _faults(trial: Outcome) -> list[str]:
    text = f"""One file operation fails (`ENOSPC`, `EIO` or `EACCES`): the command ends with one line and leaves what was
    there, or the operation did not matter and all is done. First nothing is there, and then an output that the command
    replaces. Each operation fails once, with two exceptions: of many writes to one file every {WRITES}th fails, and the
    last; as an output is replaced, the operations on what is read do not fail again. Writes inside native libraries are
    the full disks' trial."""
    rows = (
        f"| {name} | {_operations(r)} | {r['faults']:,} | {r['refused']:,} | {r['done_all_the_same']:,} |"
        for name, r in trial["writers"].items()
    )
    return _section("Faults", text, "| writer | operations | failed | one line | done all the same |", rows)


def _operations(row: Outcome) -> str:
    """How many there are; earlier runs did not count them, and failed one of so many."""
    return f"{row['operations']:,}" if "kinds" in row else f"not counted; one of {row['every']} failed"


def _full_disks(trial: Outcome) -> list[str]:
    text = "Disks in memory from nothing to all of a writer's output, and those at which a file just ends."
    rows = (f"| {name} | {r['disks']} | {r['refused']} |" for name, r in trial["writers"].items())
    return _section("Full disks", text, "| writer | disks | refused with one line |", rows)


def _bytes(trial: Outcome) -> list[str]:
    text = """Two processes write every target, every dialect of a checkpoint, a bundle, the wheel and the sdist. All files are
    the same, byte for byte. The processes stand in directories of their own."""
    rows = (f"| {name} | {differs} |" for name, differs in trial["environments"].items())
    return _section("Bytes", text, "| process | its environment |", rows)


def _fuzz(trial: Outcome) -> list[str]:
    text = f"""{_cpu_hours(trial):.2f} CPU hours. Each input is read, or refused with an error of the package, within 5 s and
    500 MB."""
    rows = (
        f"| {name} | {r['inputs']:,} | {r['accepted']:,} | {r['refused']:,} | {r['cpu_seconds']:.0f} | {r['slowest']:.2f} |"
        for name, r in trial["readers"].items()
    )
    return _section("Fuzz", text, "| reader | inputs | read | refused | CPU seconds | slowest, s |", rows)


DETAILS: Mapping[str, Callable[[Outcome], list[str]]] = {
    "flips": _flips,
    "fuzz": _fuzz,
    "kills": _kills,
    "faults": _faults,
    "full-disks": _full_disks,
    "hostile": _hostile,
    "threads": _threads,
    "shapes": _shapes,
    "bytes": _bytes,
}
