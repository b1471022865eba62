"""The study's page: benchmarks/study.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.study.results import summarise

Row = dict[str, Any]


def page(results: Row) -> str:
    """Returns the whole page."""
    lines = [
        "# Study: the evidence for the parity thresholds",
        "",
        f"Measured by `make study` on {results['machine']}. All figures: [study.json](study.json).",
        "",
        *_thresholds(results),
        *_correct(results),
        *_int8(results),
        *_swapped(results),
        *_pairs(results),
        *_faults(results),
    ]
    return "\n".join(lines) + "\n"


def _thresholds(results: Row) -> Iterator[str]:
    yield from (
        f"A score (RMS error ÷ noise floor) above {results['threshold']:g} fails; for a pair, a score above "
        f"{results['pair_threshold']:g}. The picture shows what",
        "other thresholds would do: the share of correct checkpoints that would alarm (the 95 % upper bound of this",
        "share), and the share of planted faults that would be caught, by size of the fault.",
        "",
        "![False alarms and faults caught, by threshold, for every target and precision](study.svg)",
        "",
    )


def _correct(results: Row) -> Iterator[str]:
    subjects = results["subjects"]
    yield from (
        "## Correct checkpoints",
        "",
        "Each architecture is exported once. A trial puts other random weights into the exported files (their",
        "distribution is drawn, too), draws other inputs, and takes the worst score over all outputs and input families.",
        "Half-precision ONNX is emulated: every result is rounded. *Rate is below* bounds the rate of false alarms among",
        "such checkpoints with 95 % confidence (3 ÷ trials if there was no alarm).",
        "",
        *_scores(subjects),
        "",
    )


def scores_of(rows: Sequence[Row]) -> Iterator[str]:
    """The table of the scores of some trials, one architecture's for example."""
    yield from _scores(summarise(rows)["subjects"])


def _scores(subjects: Row) -> Iterator[str]:
    yield "| target, precision | trials | alarms | rate is below | median score | 99 % | 99.9 % | largest |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, row in subjects.items():
        quantiles = row["quantiles"]
        yield (
            f"| {name} | {row['trials']:,} | {row['alarms']} | {row['false_alarm_bound']:.2%} | {quantiles['0.5']:.2f} | "
            f"{quantiles['0.99']:.2f} | {quantiles['0.999']:.2f} | {row['largest_score']:.2f} |"
        )


def _int8(results: Row) -> Iterator[str]:
    int8, kept, ratios = results["int8"], results["int8"]["kept"], results["int8"]["ratio_quantiles"]
    if not ratios:
        return
    groups = {
        f"int8 keeps them: the simulation's score is {int8['kept_below']:g} or less": kept,
        f"near the limit: its score is {int8['kept_below']:g} to {results['threshold']:g}": int8["near_the_limit"],
        "int8 breaks them: the simulation fails, too": int8["lost"],
    }
    choices = sum(row["alarms_by_choices"] for row in results["subjects"].values())
    trials = sum(row["trials"] for row in groups.values())
    yield from (
        "## int8, and networks that it breaks",
        "",
        "The floor of int8 depends on how much a model's answers differ from input to input. An error of a quarter of",
        "that difference fails, and so does a constant answer. But random networks give nearly the same answer to every",
        "input, deep ones amplify rounding, and some do not survive int8 at all. Such networks cause the alarms above.",
        f"{choices} of these alarms are by choices: the answer is another than float64's in clear cases.",
        "",
        f"So each of {trials:,} further trials also runs a simulation that no converter made: the canonical model in",
        "float64, with its linear layers in int8. A trial counts as correct if the simulation's score is "
        f"{int8['kept_below']:g} or less.",
        "",
        "| networks | trials | alarms | rate is below | largest score |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['trials']:,} | {row['alarms']} | {row['false_alarm_bound']:.2%} | {row['largest_score']:.2f} |"
            for name, row in groups.items()
            if row["trials"]
        ),
        "",
        f"The file's score ÷ the simulation's: median {ratios['0.5']:.2f}, 1 % to 99 % {ratios['0.01']:.2f} to "
        f"{ratios['0.99']:.2f}, least {ratios['0']:.2f}, largest {ratios['1']:.2f}.",
        f"Alarms by choices in networks that int8 keeps: {kept['alarms_by_choices']}. At least 97 % of the clear choices must",
        "be those of float64, and a trial has only a few dozen clear choices.",
        "",
    )


def _swapped(results: Row) -> Iterator[str]:
    yield from (
        "## Architectures",
        "",
        "For each architecture, files with swapped weights were compared once with real exports of the same checkpoint.",
        "The table shows the largest difference, in floors; 0 means that all bits are equal. TFLite's converter folds a",
        "LayerNorm's shift into the next bias, and adds in another order. So the last bit differs, which may move an int8",
        "value to another step. Layers: language, vision, cross.",
        "",
        "| architecture | task | hidden size | layers | trials | ONNX | TensorFlow | TFLite fp32, fp16, int8 |",
        "|---|---|---|---|---|---|---|---|",
    )
    for row in results["architectures"]:
        swap = row["swap_differences_in_floors"]
        if not row["trials"]:
            continue
        onnx, tensorflow = (
            max(value for name, value in swap.items() if name.startswith(target)) for target in ("onnx", "tensorflow")
        )
        tflite = ", ".join(f"{swap[f'tflite {precision}']:.2g}" for precision in ("fp32", "fp16", "int8"))
        yield (
            f"| {row['name']} | {row['task']} | {row['hidden_size']} | {', '.join(map(str, row['layers']))} | "
            f"{row['trials']} | {onnx:.2g} | {tensorflow:.2g} | {tflite} |"
        )
    yield ""


def _pairs(results: Row) -> Iterator[str]:
    pairs = results["pairs"]
    alarms = {whose: sum(r["alarms"] for n, r in pairs.items() if ("int8" in n) == whose) for whose in (False, True)}
    trials = next(iter(pairs.values()))["trials"]
    worst = sorted(pairs.items(), key=lambda item: -item[1]["largest_score"])
    yield from (
        "## Pairs",
        "",
        f"All {len(pairs)} pairs of targets and precisions were compared in each of {trials:,} trials. Alarms:",
        f"{alarms[False]} in pairs without int8, {alarms[True]} in pairs with int8. The largest scores:",
        "",
        "| pair | alarms | largest score |",
        "|---|---|---|",
    )
    for name, row in worst[:12]:
        yield f"| {name.replace(' | ', ' and ')} | {row['alarms']} | {row['largest_score']:.2f} |"
    yield ""


def _faults(results: Row) -> Iterator[str]:
    faults, subjects = results["faults"], results["subjects"]
    kinds = {row["fault"] for row in faults}
    yield from (
        "## Planted faults",
        "",
        f"{len(kinds)} kinds of faults were planted in weights, in inputs and in the graph. A fault is detectable if it",
        f"changes some float64 output, in some input family, by {results['detectable_floors']:g} floors or more.",
        "",
        "| target, precision | planted | detectable | of these caught |",
        "|---|---|---|---|",
    )
    for name, row in subjects.items():
        yield f"| {name} | {row['planted']:,} | {row['detectable']:,} | {row['detectable_caught']:,} |"
    yield from (
        "",
        "Faults that were not detectable in some trial: their effects in floors, and how often they were caught anyway.",
        "",
        "| fault | place | target, precision | planted | least, median, largest effect | below 20 floors | of these caught |",
        "|---|---|---|---|---|---|---|",
    )
    for row in sorted(faults, key=lambda row: row["fault"]):
        small = row["planted"] - row["detectable"]
        if small:
            yield (
                f"| {row['fault']} | {row['place']} | {row['subject']} | {row['planted']} | {_effects(row)} | {small} | "
                f"{row['caught'] - row['detectable_caught']} |"
            )
    yield ""


def _effects(row: Row) -> str:
    return ", ".join(
        "-" if row[f"{which}_effect"] is None else f"{row[f'{which}_effect']:.2g}"
        for which in ("least", "median", "largest")
    )
