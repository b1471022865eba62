"""A small file of questions in each format, written as its own authors write it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

QUESTIONS = ("What colour is the cat?", "Is it raining?", "How many dogs are there?")


def vqa(folder: Path) -> Path:
    """VQA v2 as published: ids and pictures are numbers, the file names its set of pictures."""
    questions = [
        {"image_id": 262148 + place // 2, "question": text, "question_id": 262148000 + place}
        for place, text in enumerate(QUESTIONS)
    ]
    around = {"info": {"year": 2017}, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": "val2014"}
    return _written(folder / "v2_questions.json", {**around, "license": {}, "questions": questions})


def airsplay_vqa(folder: Path) -> Path:
    """Airsplay's minival.json: pictures by COCO's names, the answers' scores inside."""
    rows = [
        {
            "answer_type": "other",
            "img_id": f"COCO_val2014_{262148 + place // 2:012d}",
            "label": {"net": 1, "fence": 0.3},
            "question_id": 262148000 + place,
            "question_type": "what",
            "sent": text,
        }
        for place, text in enumerate(QUESTIONS)
    ]
    return _written(folder / "minival.json", rows)


def gqa(folder: Path) -> Path:
    """GQA as published: one object, keys are the ids. Of the annotations only what scoring reads."""
    rows = {
        f"0{2930152 + place}": {
            "semantic": [{"operation": "select", "dependencies": [], "argument": "cat (1)"}],
            "entailed": [], "equivalent": [f"0{2930152 + place}"], "question": text, "imageId": f"n{place // 2}",
            "isBalanced": True, "groups": {"global": None, "local": "x"}, "answer": "yes", "fullAnswer": "Yes.",
            "types": {"detailed": "existAttr", "semantic": "attr", "structural": "verify"},
        }
        for place, text in enumerate(QUESTIONS)
    }  # fmt: skip
    return _written(folder / "testdev_balanced_questions.json", rows)


def airsplay_gqa(folder: Path) -> Path:
    """Airsplay's testdev.json of GQA: ids are texts."""
    rows = [
        {"img_id": f"n{place // 2}", "label": {"yes": 1.0}, "question_id": f"0{2930152 + place}", "sent": text}
        for place, text in enumerate(QUESTIONS)
    ]
    return _written(folder / "testdev.json", rows)


def nlvr2(folder: Path) -> Path:
    """NLVR2 as published: JSON lines; the identifier names the pictures."""
    lines = [
        json.dumps({
            "validation": {"1": "True"}, "sentence": text, "left_url": "http://l", "right_url": "http://r",
            "writer": "88", "label": "False", "synset": "acorn", "query": "acorns1", "identifier": f"dev-850-{place}-0",
        })
        for place, text in enumerate(QUESTIONS)
    ]  # fmt: skip
    return _text(folder / "dev.json", "\n".join(lines) + "\n")


def airsplay_nlvr2(folder: Path) -> Path:
    """Airsplay's valid.json of NLVR2."""
    rows = [
        {
            "identifier": f"dev-850-{place}-0",
            "img0": f"dev-850-{place}-img0",
            "img1": f"dev-850-{place}-img1",
            "label": 0,
            "sent": text,
            "uid": f"nlvr2_dev_{place}",
        }
        for place, text in enumerate(QUESTIONS)
    ]
    return _written(folder / "valid.json", rows)


def own_lines(folder: Path) -> Path:
    """JSON lines of one's own."""
    lines = [json.dumps({"image": f"photo{place // 2}", "question": text}) for place, text in enumerate(QUESTIONS)]
    return _text(folder / "mine.jsonl", "\n".join(lines))


def own_csv(folder: Path) -> Path:
    """A CSV of one's own, as a spreadsheet writes it: a byte order mark and CRLF."""
    path = folder / "mine.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", "question"])
        lines.writerows([f"photo{place // 2}", text] for place, text in enumerate(QUESTIONS))
    return path


FORMATS: Mapping[str, Callable[[Path], Path]] = {
    "vqa": vqa,
    "airsplay_vqa": airsplay_vqa,
    "gqa": gqa,
    "airsplay_gqa": airsplay_gqa,
    "nlvr2": nlvr2,
    "airsplay_nlvr2": airsplay_nlvr2,
    "own_lines": own_lines,
    "own_csv": own_csv,
}


def _written(path: Path, values: Any) -> Path:
    return _text(path, json.dumps(values))


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
