"""Features are converted picture by picture; a conversion that was stopped goes on, and writes the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lxmert_export.data.features import converting
from lxmert_export.data.features.checked import CheckedFeatures
from lxmert_export.data.features.converting import convert_features
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.features.shards import INDEX_FILE, widened
from lxmert_export.errors import ArtifactError, InputError
from parity_tests.data.feature_files import KEPT, airsplay_tsv, detected, milvlg_npz, mmf_lmdb
from parity_tests.fixtures.command import refused, run

pytestmark = pytest.mark.quick

MANY = 9


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A TSV of nine pictures, whose ids are not in the order of their names."""
    pictures = detected(MANY)
    return airsplay_tsv(tmp_path, pictures[4:] + pictures[:4])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of about two pictures."""
    monkeypatch.setattr(converting, "PART_BYTES", 100)


def written(path: Path) -> dict[str, bytes]:
    """The files of an output directory, or the only file."""
    return {file.name: file.read_bytes() for file in path.iterdir()} if path.is_dir() else {"": path.read_bytes()}


def convert(source: Path, output: Path, **options: object) -> converting.Converted:
    with open_features(source) as opened:
        return convert_features(opened, output, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "name"), [("float16", "out"), ("float32", "out"), ("float32", "out.tsv")])
def test_what_is_converted_reads_as_its_source(
    source: Path, tmp_path: Path, small_parts: None, dtype: str, name: str
) -> None:
    done = convert(source, tmp_path / name, dtype=dtype)
    with open_features(source) as before, open_features(tmp_path / name) as after:
        assert list(after.ids) == list(before.ids)  # minival is the first rows of val2014
        assert (after.feature_width, after.most_objects) == (before.feature_width, before.most_objects)
        errors = []
        for id in before.ids:
            one, other = before.read(id), after.read(id)
            errors.append(np.abs(one.features - other.features).max())
            exact = np.array_equal if not name.endswith(".tsv") else np.allclose  # pixels and back
            assert exact(other.boxes, one.boxes)
            assert other.features.dtype == np.float32
    assert max(errors) == done.rounding
    assert (done.rounding > 0) == (dtype == "float16")


def test_every_finite_float16_number_is_widened_exactly() -> None:
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half = half[np.isfinite(half)]
    assert np.array_equal(widened(half).view(np.uint32), half.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("name", ["out", "out.tsv"])
@pytest.mark.parametrize("stopped_at", [1, 4, MANY])
def test_a_stopped_conversion_goes_on_and_writes_the_same_bytes(
    source: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch, stopped_at: int, name: str
) -> None:
    convert(source, tmp_path / f"undisturbed-{name}")
    seen: list[int] = []
    sized = CheckedFeatures.sized

    def stopping(self: CheckedFeatures, position: int) -> object:
        seen.append(position)
        if len(seen) == stopped_at:
            raise KeyboardInterrupt
        return sized(self, position)

    monkeypatch.setattr(CheckedFeatures, "sized", stopping)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / name)
    assert not (tmp_path / name).exists()
    done = convert(source, tmp_path / name)
    assert written(tmp_path / name) == written(tmp_path / f"undisturbed-{name}")
    assert len(seen) < stopped_at + MANY or stopped_at < 3  # what was finished is not read again
    assert done.kept == MANY - (len(seen) - stopped_at)
    assert not list(tmp_path.glob(".out*"))


def test_what_was_begun_with_another_source_is_not_gone_on_with(
    source: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(converting, "_replace_directory", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out")
    airsplay_tsv(tmp_path, detected(MANY, seed=1))
    assert convert(source, tmp_path / "out").kept == 0


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_conversion_that_was_killed_before_its_last_step_only_takes_that_step(
    source: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(converting, "_replace_directory", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out").kept == MANY


def test_a_picture_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    pictures = detected()
    pictures[1].features[0, 0] = 70_000
    source = airsplay_tsv(tmp_path, pictures)
    with pytest.raises(
        InputError, match=r"row 2, picture COCO_val2014_000000262148: its features reach 70000.*float32"
    ):
        convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out", dtype="float32").pictures == 3


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard is missing": (lambda out: (out / "features-00001.safetensors").unlink(), "missing"),
    "a shard is cut": (lambda out: cut(out / "features-00001.safetensors"), "bytes instead of"),
    "the index is cut": (lambda out: cut(out / INDEX_FILE), "cannot be read as the index"),
    "the index leads elsewhere": (
        lambda out: (out / INDEX_FILE).write_text((out / INDEX_FILE).read_text().replace("features-00001", "../x")),
        "outside its directory",
    ),
}


def test_inspect_notices_a_changed_bit(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    shard = tmp_path / "out" / "features-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[8 + 1024] ^= 1
    shard.write_bytes(content)
    refused_with = run("features", "inspect", "out", cwd=tmp_path)
    assert refused_with.returncode == 1
    assert "out: features-00001.safetensors: its SHA-256 is not that of the index" in refused_with.stderr


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_our_own_format_is_one_line(source: Path, tmp_path: Path, name: str) -> None:
    damage, saying = DAMAGE[name]
    convert(source, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(InputError, match=saying), open_features(tmp_path / "out") as opened:
        opened.read(opened.ids[0])


def test_the_command_converts_and_says_what_it_wrote(source: Path, tmp_path: Path) -> None:
    done = run("features", "convert", str(source), "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote out (9 pictures, " in done.stdout and "float16 changed features by at most 0.0" in done.stdout
    refused(run("features", "convert", str(source), "-o", "out", cwd=tmp_path), "exists already; --overwrite")
    assert run("features", "convert", str(source), "-o", "out", "--overwrite", cwd=tmp_path).returncode == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    refused(
        run("features", "convert", str(source), "-o", "out", "--overwrite", cwd=tmp_path), "holds notes.txt besides"
    )


@pytest.mark.parametrize("output", ["val2014_obj36.tsv", "", "mine.tsv"])
def test_nothing_that_the_command_did_not_write_is_replaced(source: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "mine.tsv").write_text("notes\n")
    with pytest.raises(ArtifactError):
        convert(source, tmp_path / output, overwrite=True)
    assert (tmp_path / "mine.tsv").read_text() == "notes\n"


def test_an_output_inside_its_source_is_refused(tmp_path: Path) -> None:
    folder = milvlg_npz(tmp_path, detected(MANY))
    with pytest.raises(ArtifactError, match="lies inside what is converted"):
        convert(folder, folder / "out")


def test_a_second_run_into_the_same_output_is_told(source: Path, tmp_path: Path) -> None:
    def beside(*_: object) -> None:
        with pytest.raises(ArtifactError, match="another run is converting into it"):
            convert(source, tmp_path / "out")

    convert(source, tmp_path / "out", progress=beside)


def test_a_directory_of_several_files_is_read_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    airsplay_tsv(folder, detected(5)).rename(folder / "train2014_obj36.tsv")
    airsplay_tsv(folder, detected(7)[4:]).rename(folder / "val2014_obj36.tsv")  # one picture is in both
    with open_features(folder) as joined:
        assert list(joined.ids) == [one.id for one in detected(7)]
        assert np.array_equal(joined.read(joined.ids[6]).features, detected(7)[6].features)
        assert "1 pictures are in several files" in joined.file.notes


def test_an_lmdb_file_may_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    path = mmf_lmdb(tmp_path, detected())
    for _ in range(2):
        with open_features(path) as opened:
            assert len(opened.ids) == 3


def test_a_recorded_file_of_our_format_is_read(tmp_path: Path) -> None:
    shutil.copytree(KEPT / "lxmert-export", tmp_path / "kept")
    with open_features(tmp_path / "kept") as opened:
        for id, one in zip(opened.ids, detected(), strict=True):
            assert np.array_equal(opened.read(id).features, one.features.astype(np.float16))
