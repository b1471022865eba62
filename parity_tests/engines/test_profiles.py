"""Optimisation profiles: read, checked, turned into shapes, and picked as a brute force picks them."""

from __future__ import annotations

import itertools
import json
import random
from fractions import Fraction
from typing import Any

import pytest

from lxmert_export.engines.profiles import (
    AxisRange,
    Profile,
    call_sizes,
    check_profiles,
    make_profiles,
    pick_profile,
    pieces,
)
from lxmert_export.errors import ConfigError, InputError
from lxmert_export.spec.signature import DYNAMIC_AXES, TASKS, Signature, Task, TensorSpec, task_signature
from parity_tests.fixtures.random_models import SMALL

pytestmark = pytest.mark.quick

FULL = SMALL.replace(max_position_embeddings=512)
SIGNATURE = task_signature(FULL, "question-answering")


def refusal(error: type[Exception], call: Any, *arguments: Any, **options: Any) -> str:
    """The one line with which something is refused."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(**options: Any) -> str:
    return refusal(ConfigError, make_profiles, FULL, SIGNATURE, **options)


def ranges(profile: Profile) -> dict[str, list[int]]:
    return profile.to_dict()


def test_all_three_axes_and_a_single_number() -> None:
    (profile,) = make_profiles(FULL, SIGNATURE, batch=["1:1:8"], text=["4:20:64"], objects=["36"])
    assert ranges(profile) == {"batch": [1, 1, 8], "text": [4, 20, 64], "objects": [36, 36, 36]}
    assert str(profile) == "batch 1:1:8, text 4:20:64, objects 36"


def test_defaults() -> None:
    (profile,) = make_profiles(FULL, SIGNATURE)
    assert ranges(profile) == {"batch": [1, 1, 8], "text": [2, 20, 64], "objects": [1, 36, 100]}


@pytest.mark.parametrize(
    ("positions", "text"), [(64, [2, 20, 64]), (63, [2, 20, 63]), (10, [2, 10, 10]), (1, [1, 1, 1])]
)
def test_default_text_stays_inside_the_position_table(positions: int, text: list[int]) -> None:
    config = SMALL.replace(max_position_embeddings=positions)
    (profile,) = make_profiles(config, task_signature(config, "model"))
    assert ranges(profile)["text"] == text


def test_the_nth_of_each_makes_the_nth_profile_and_one_goes_into_all() -> None:
    found = make_profiles(FULL, SIGNATURE, batch=["1", "2:4:8"], text=["20", "30"], objects=["36"])
    assert [ranges(profile) for profile in found] == [
        {"batch": [1, 1, 1], "text": [20, 20, 20], "objects": [36, 36, 36]},
        {"batch": [2, 4, 8], "text": [30, 30, 30], "objects": [36, 36, 36]},
    ]
    assert [profile.objects.max for profile in make_profiles(FULL, SIGNATURE, batch=["1", "2"])] == [100, 100]


def test_options_given_unequally_often() -> None:
    message = refused(batch=["1", "2", "3"], text=["20", "30"])
    assert message == "--text is given 2 times for 3 profiles: give it once for all of them, or 3 times"


BAD = {
    "8:4:16": "min above opt",
    "1:16:8": "opt above max",
    "16:4:8": "min above opt",
    "0:1:8": "goes below 1",
    "0": "goes below 1",
    "-1:1:8": "goes below 1",
    "1:1:2147483648": "goes beyond 2147483647",
    "1:36:99999999999999999999": "goes beyond 2147483647",
    "9" * 5000: "goes beyond 2147483647",
} | dict.fromkeys(
    (
        "",
        "x",
        "1:2",
        "1:2:3:4",
        "1:2:x",
        "1.5",
        "1:2:",
        "1 2 3",
        "1,2,3",
        "١",
        "1e3",
        "+1",
        "-" + "9" * 11,
        " 1",
        "1\n",
        "None",
    ),
    "must be min:opt:max",
)


@pytest.mark.parametrize(("text", "reason"), BAD.items())
@pytest.mark.parametrize("axis", DYNAMIC_AXES)
def test_bad_ranges_name_axis_and_profile(axis: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_profiles(FULL, SIGNATURE, **{axis: ["4", text]})
    message = str(caught.value)
    assert message.startswith(f"profile 1: --{axis} ") and reason in message
    assert len(message.splitlines()) == 1


def test_text_beyond_the_position_table() -> None:
    assert make_profiles(FULL, SIGNATURE, text=["2:20:512"])[0].text.max == 512
    message = refused(text=["2:20:30", "2:20:513"])
    assert message == "profile 1: --text 2:20:513 goes beyond the position table (512 rows): give at most 512"
    assert make_profiles(FULL, SIGNATURE, objects=["1:20:513"], batch=["513"])  # no table for these


def test_a_profile_given_twice() -> None:
    assert "profile 2 repeats profile 0" in refused(batch=["1:2:4", "2", "1:2:4"])


def test_axes_that_the_graph_fixes() -> None:
    signature = task_signature(FULL, "question-answering", fixed={"batch": 2, "text": 20})
    (profile,) = make_profiles(FULL, signature)
    assert ranges(profile) == {"batch": [2, 2, 2], "text": [20, 20, 20], "objects": [1, 36, 100]}
    assert make_profiles(FULL, signature, batch=["2"], text=["20:20:20"]) == (profile,)
    for text in ("3", "1:2:2", "2:2:3", "1:2:3"):
        message = refusal(ConfigError, make_profiles, FULL, signature, batch=[text])
        assert "profile 0: --batch" in message and "fixed to 2" in message and "leave --batch out" in message


def test_check_profiles_holds_those_from_a_manifest_too() -> None:
    profile = Profile.from_dict({"batch": [1, 1, 8], "text": [2, 20, 600], "objects": [1, 2, 3]})
    assert "position table" in refusal(ConfigError, check_profiles, [profile], FULL, SIGNATURE)


@pytest.mark.parametrize("task", TASKS)
def test_shapes_of_every_input(task: Task) -> None:
    config = FULL.replace(visual_feat_dim=7, visual_pos_dim=4)
    signature = task_signature(config, task)
    (profile,) = make_profiles(config, signature, batch=["1:2:3"], text=["4:5:6"], objects=["8:9:10"])
    shapes = profile.shapes(signature)
    assert list(shapes) == [spec.name for spec in signature.inputs]
    assert shapes["input_ids"] == shapes["attention_mask"] == shapes["token_type_ids"] == ((1, 4), (2, 5), (3, 6))
    pair = (2,) if task == "nlvr2" else ()
    rows = [(b, *pair, o) for b, o in ((1, 8), (2, 9), (3, 10))]
    assert shapes["visual_attention_mask"] == tuple(rows)
    assert shapes["visual_feats"] == tuple((*row, 7) for row in rows)
    assert shapes["visual_pos"] == tuple((*row, 4) for row in rows)


def test_shapes_of_fixed_axes_and_of_an_unknown_one() -> None:
    signature = task_signature(FULL, "nlvr2", fixed={"objects": 36})
    (profile,) = make_profiles(FULL, signature, batch=["1:2:3"])
    assert profile.shapes(signature)["visual_attention_mask"] == ((1, 2, 36), (2, 2, 36), (3, 2, 36))
    strange = Signature("model", (*signature.inputs, TensorSpec("depth", "float32", ("batch", "pixels"))), ())
    assert "depth" in refusal(ConfigError, profile.shapes, strange)


@pytest.mark.parametrize("task", TASKS)
def test_call_sizes_undo_shapes(task: Task) -> None:
    for fixed in ({}, {"text": 5}, {"batch": 2, "text": 5, "objects": 9}):
        signature = task_signature(FULL, task, fixed=fixed)
        sizes = {"batch": 2, "text": 5, "objects": 9}
        shapes = {spec.name: spec.shape(sizes) for spec in signature.inputs}
        assert call_sizes(shapes, signature) == sizes
        for optional in [spec.name for spec in signature.inputs if spec.optional]:
            del shapes[optional]
        assert call_sizes(shapes, signature) == sizes


def test_call_sizes_refuse_what_does_not_fit() -> None:
    sizes = {"batch": 2, "text": 5, "objects": 9}
    good = {spec.name: spec.shape(sizes) for spec in SIGNATURE.inputs}
    for name, shape in good.items():
        for place, change in itertools.product(range(len(shape)), (1, -1)):
            other = tuple(size + change * (at == place) for at, size in enumerate(shape))
            assert "has shape" in refusal(InputError, call_sizes, {**good, name: other}, SIGNATURE)
        for other in (shape[:-1], (*shape, 1), ()):
            assert "has shape" in refusal(InputError, call_sizes, {**good, name: other}, SIGNATURE)
    assert "unknown input pixels" in refusal(InputError, call_sizes, {**good, "pixels": (1,)}, SIGNATURE)
    text_only = {"input_ids": (2, 5)}
    assert "size of objects" in refusal(InputError, call_sizes, text_only, SIGNATURE)
    fixed = task_signature(FULL, "model", fixed={"text": 4})
    assert "has shape" in refusal(InputError, call_sizes, good, fixed)


def test_a_call_outside_every_profile_is_refused_by_name() -> None:
    found = make_profiles(FULL, SIGNATURE, batch=["1:1:8", "16"], text=["4:20:64"], objects=["10:36:100"])
    message = refusal(InputError, pick_profile, found, {"batch": 16, "text": 3, "objects": 36})
    assert message == (
        "batch 16, text 3, objects 36: outside every profile of this engine (profile 0 takes batch 1:1:8, text 4:20:64; "
        "profile 1 takes text 4:20:64): make the call smaller, or build a wider engine"
    )


def test_the_tightest_profile_is_picked() -> None:
    def pick(*batches: str, batch: int) -> int:
        found = make_profiles(FULL, SIGNATURE, batch=batches, text=["20"], objects=["36"])
        return pick_profile(found, {"batch": batch, "text": 20, "objects": 36})

    assert pick("1:4:64", "1:4:8", batch=4) == 1  # the least at most
    assert pick("1:1:8", "1:7:8", batch=8) == 1  # the nearest opt
    assert pick("1:4:8", "2:4:8", batch=4) == 0  # else the first
    assert pick("1:4:8", "9:10:64", batch=9) == 1


def looseness(profile: Profile, sizes: dict[str, int]) -> tuple[int, Fraction]:
    largest, distance = 1, Fraction(0)
    for axis, (_, best, most) in profile.to_dict().items():
        largest *= most
        distance += Fraction(abs(best - sizes[axis]), sizes[axis])
    return largest, distance


def random_range(generator: random.Random, largest: int) -> AxisRange:
    return AxisRange(*sorted(generator.randint(1, largest) for _ in range(3)))


def test_random_profiles_against_a_brute_force() -> None:
    """Whether a profile covers a call is asked of the list of all sizes that it allows; the pick is compared with all others."""
    generator = random.Random(20)
    outcomes = set()
    for _ in range(3000):
        profiles = [
            Profile(*(random_range(generator, 6) for _ in DYNAMIC_AXES)) for _ in range(generator.randint(1, 4))
        ]
        sizes = {axis: generator.randint(0, 7) for axis in DYNAMIC_AXES}
        call = tuple(sizes.values())
        allowed = [
            set(itertools.product(*(range(r.min, r.max + 1) for r in profile.ranges.values()))) for profile in profiles
        ]
        covering = [number for number, calls in enumerate(allowed) if call in calls]
        assert [profile.covers(sizes) for profile in profiles] == [call in calls for calls in allowed]
        outcomes.add(len(covering))
        if not covering:
            message = refusal(InputError, pick_profile, profiles, sizes)
            assert all(f"profile {number} takes" in message for number in range(len(profiles)))
            continue
        picked = pick_profile(profiles, sizes)
        assert picked in covering
        best = looseness(profiles[picked], sizes)
        for other in covering:
            theirs = looseness(profiles[other], sizes)
            assert best < theirs or (best == theirs and picked <= other)
    assert outcomes == {0, 1, 2, 3, 4}, "the draw must reach every case"


def test_random_texts_are_read_as_written_or_refused() -> None:
    generator = random.Random(21)
    read = 0
    for _ in range(3000):
        numbers = [generator.randint(-1, 9) for _ in range(generator.choice((1, 2, 3, 3, 3, 4)))]
        text = ":".join(map(str, numbers))
        three = numbers * 3 if len(numbers) == 1 else numbers
        valid = len(three) == 3 and 1 <= three[0] <= three[1] <= three[2]
        if valid:
            read += 1
            assert ranges(make_profiles(FULL, SIGNATURE, objects=[text])[0])["objects"] == three
        else:
            assert "profile 0: --objects" in refused(objects=[text])
    assert 200 < read < 2800


def test_manifests_round_trip() -> None:
    generator = random.Random(22)
    for _ in range(200):
        profile = Profile(*(random_range(generator, 9) for _ in DYNAMIC_AXES))
        assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


GOOD: dict[str, Any] = {"batch": [1, 1, 8], "text": [2, 20, 64], "objects": [1, 36, 100]}


@pytest.mark.parametrize(
    "values",
    [
        None, [], "batch", {}, {"batch": [1, 1, 8]}, {**GOOD, "images": [1, 2, 3]}, {**GOOD, "text": [1, 2]},
        {**GOOD, "text": [1, 2, 3, 4]}, {**GOOD, "text": [1, 2, 3.0]}, {**GOOD, "text": [True, 2, 3]},
        {**GOOD, "text": "123"}, {**GOOD, "text": ["1", "2", "3"]}, {**GOOD, "text": None}, {**GOOD, "text": [3, 2, 4]},
        {**GOOD, "text": [1, 4, 2]}, {**GOOD, "text": [0, 1, 2]}, {**GOOD, "batch": [1, 1, 2**31]}, {**GOOD, "text": 20},
    ],
)  # fmt: skip
def test_manifests_are_read_strictly(values: Any) -> None:
    assert "profile" in refusal(ConfigError, Profile.from_dict, values)


def test_a_call_is_parted_as_little_as_makes_a_profile_take_every_part() -> None:
    """Against a brute force over all ways to part the rows of a call."""
    generator = random.Random(0)
    for _ in range(300):
        low = generator.randint(1, 4)
        batches = [AxisRange(low, low, generator.randint(low, 6)) for _ in range(generator.randint(1, 2))]
        axis = AxisRange(2, 2, 5)
        profiles = [Profile(batch, axis, AxisRange(1, 1, generator.choice((3, 9)))) for batch in batches]
        sizes = {"batch": generator.randint(1, 14), "text": 4, "objects": generator.choice((2, 8, 20))}
        found = pieces(profiles, sizes)
        usable = [p for p in profiles if sizes["objects"] in p.objects]
        possible = [
            p for p in usable if any(p.batch.min * n <= sizes["batch"] <= p.batch.max * n for n in range(1, 15))
        ]
        if found is None:
            assert len(possible) < len(usable) or not usable
            continue
        assert sum(found) == sizes["batch"] and max(found) - min(found) <= 1
        assert any(all(part in p.batch for part in found) for p in possible)
