"""The study's page: benchmarks/study.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def page(results: Row) -> str:
    """The whole page."""
    lines = [
        "# Study: what the parity thresholds rest on",
        "",
        f"`make study`, on {results['machine']}. All figures: [study.json](study.json).",
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
        f"A score above {results['threshold']:g} noise floors fails (a pair's, above {results['pair_threshold']:g}). "
        "For other thresholds, the share of correct checkpoints",
        "that would alarm (with its 95 % upper bound) and the share of planted faults that would be caught, by their size:",
        "",
        "![False alarms and faults caught, by threshold, for every target and precision](study.svg)",
        "",
    )


def _correct(results: Row) -> Iterator[str]:
    subjects = results["subjects"]
    yield from (
        "## Correct checkpoints",
        "",
        "A trial is a random checkpoint of an architecture that was exported once: other weights, of a distribution that is "
        "drawn too, other inputs,",
        "and its worst score over all outputs and input families. Half-precision ONNX is emulated, every result rounded. "
        "The bound is on the rate of",
        "false alarms among such checkpoints, with 95 % confidence (3 / trials where there was none).",
        "",
        "| target, precision | trials | alarms | rate is below | median score | 99 % | 99.9 % | largest |",
        "|---|---|---|---|---|---|---|---|",
    )
    for name, row in subjects.items():
        quantiles = row["quantiles"]
        yield (
            f"| {name} | {row['trials']:,} | {row['alarms']} | {row['false_alarm_bound']:.2%} | {quantiles['0.5']:.2f} | "
            f"{quantiles['0.99']:.2f} | {quantiles['0.999']:.2f} | {row['largest_score']:.2f} |"
        )
    yield ""


def _int8(results: Row) -> Iterator[str]:
    int8, kept, ratios = results["int8"], results["int8"]["kept"], results["int8"]["ratio_quantiles"]
    if not ratios:
        return
    groups = {
        f"that int8 keeps: the simulation's score is {int8['kept_below']:g} or less": kept,
        f"near the limit: {int8['kept_below']:g} to {results['threshold']:g}": int8["near_the_limit"],
        "that int8 loses: the simulation fails, too": int8["lost"],
    }
    choices = sum(row["alarms_by_choices"] for row in results["subjects"].values())
    trials = sum(row["trials"] for row in groups.values())
    yield from (
        "## int8, and networks that it cannot hold",
        "",
        "int8 is measured by how much a model's answers differ from input to input: a quarter of that fails, as a constant "
        "answer would. Random",
        "networks answer nearly the same whatever they are asked, deep ones amplify what is rounded, and some cannot be held in "
        "int8 at all: the",
        f"alarms above, {choices} of them by choices. So each of {trials:,} further trials asks a simulation too, which no "
        "converter made: the canonical",
        "model in float64, its linear layers in int8. A trial is correct where the simulation stays within "
        f"{int8['kept_below']:g} floors.",
        "",
        "| networks | trials | alarms | rate is below | largest score |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['trials']:,} | {row['alarms']} | {row['false_alarm_bound']:.2%} | {row['largest_score']:.2f} |"
            for name, row in groups.items()
            if row["trials"]
        ),
        "",
        f"The file's score over the simulation's: median {ratios['0.5']:.2f}, 1 % to 99 % {ratios['0.01']:.2f} to "
        f"{ratios['0.99']:.2f}, least {ratios['0']:.2f}, largest {ratios['1']:.2f}. Of the alarms where int8 keeps the network, "
        f"{kept['alarms_by_choices']} are by choices: a few dozen clear ones, of which 97 % are needed.",
        "",
    )


def _swapped(results: Row) -> Iterator[str]:
    yield from (
        "## Architectures",
        "",
        "Swapped weights were held against a real export of the same checkpoint, once for each architecture: the largest "
        "difference, in floors.",
        "0 is the same bits. TFLite's converter folds a LayerNorm's shift into the next bias, in an order of addition of its "
        "own: the last bit differs, which may take int8 to another step. Layers: language, vision, cross.",
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
        f"All {len(pairs)} pairs of these, in each of {trials:,} trials: {alarms[False]} alarms without int8, {alarms[True]} "
        "with it. The largest scores:",
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
        f"{len(kinds)} kinds, in weights, in inputs and in the graph. A fault is detectable where its float64 effect, the "
        f"largest over outputs and input",
        f"families, is {results['detectable_floors']:g} floors or more.",
        "",
        "| target, precision | planted | detectable | of these caught |",
        "|---|---|---|---|",
    )
    for name, row in subjects.items():
        yield f"| {name} | {row['planted']:,} | {row['detectable']:,} | {row['detectable_caught']:,} |"
    yield from (
        "",
        "Where a fault was below that in some trial: its effects in floors, and how often it was caught all the same.",
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
