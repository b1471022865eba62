"""Picture files that users have: what can be looked at, and one clear line for what cannot."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from lxmert_export.demo.drawing import draw_scene
from lxmert_export.demo.pictures import read_picture
from lxmert_export.demo.scenes import scene_of_seed
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.predicting.pictures import draw_picture, find_shapes

PICTURE = draw_scene(scene_of_seed(4))


def png_of_16_bits(path: Path, color_type: int) -> None:
    """Pillow writes no 16-bit RGB: the chunks by hand. ``color_type``: 0 is grey, 2 RGB, 6 RGBA."""
    channels = {0: 1, 2: 3, 6: 4}[color_type]
    rows = np.full((40, 40, channels), 65535, ">u2")
    rows[10:20, 10:20] = 700
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40, 40, 16, color_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def huge(path: Path) -> None:
    Image.new("RGB", (5000, 4000), "white").save(path)


def bomb(path: Path) -> None:
    """A header that claims 40,000 x 40,000 pixels, in a few bytes."""
    png_of_16_bits(path, 2)
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def many(path: Path) -> None:
    picture = Image.new("RGB", (400, 200), "white")
    for n in range(200):
        picture.paste((200, 0, 0), (n % 20 * 20 + 4, n // 20 * 20 + 4, n % 20 * 20 + 16, n // 20 * 20 + 16))
    picture.save(path)


def transparent(path: Path) -> None:
    picture = PICTURE.convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 128))
    picture.save(path)


def truncated(path: Path) -> None:
    PICTURE.save(path)
    path.write_bytes(path.read_bytes()[:900])


def transparent_palette(path: Path) -> None:
    picture = PICTURE.quantize(8)
    picture.save(path, transparency=picture.getpixel((0, 0)))  # the background's colour


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: None, "no such picture file"),
    "a directory": (lambda path: path.mkdir(), "no such picture file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello"), "is not a readable picture"),
    "cut short": (truncated, "cannot be read as a picture"),
    "PostScript": (
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n"),
        "is not a readable picture",
    ),
    "a strip": (lambda path: Image.new("RGB", (4000, 40), "white").save(path), "one side may be 8 times the other"),
    "one great shape": (lambda path: framed(path), "spans more than half"),
    "huge": (huge, "5000 x 4000 pixels; make it"),
    "a bomb": (bomb, "40000 x 40000 pixels; make it|is too large; make it"),
    "tiny": (lambda path: Image.new("RGB", (8, 8)).save(path), "at least 32 x 32"),
    "no shape": (lambda path: Image.new("RGB", (64, 64), "red").save(path), "no shape"),
    "200 shapes": (many, "shows 200 separate shapes; the built-in checkpoint knows pictures with at most 10"),
    "transparent": (transparent, "transparent parts"),
    "transparent palette": (transparent_palette, "transparent parts"),
    "greyscale": (lambda path: PICTURE.convert("L").save(path), "greyscale"),
    "greyscale with alpha": (lambda path: PICTURE.convert("LA").save(path), "greyscale"),
    "black and white": (lambda path: PICTURE.convert("1").save(path), "greyscale"),
    "16-bit RGB": (lambda path: png_of_16_bits(path, 2), "16 bits or more"),
    "16-bit RGBA": (lambda path: png_of_16_bits(path, 6), "16 bits or more"),
    "16-bit grey": (lambda path: png_of_16_bits(path, 0), "16 bits or more"),
    "CMYK": (lambda path: PICTURE.convert("CMYK").save(path, format="TIFF"), "its colours are CMYK"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_one_clear_line(kind: str, tmp_path: Path) -> None:
    make, saying = REFUSED[kind]
    path = tmp_path / "scene.png"
    make(path)
    with pytest.raises(InputError, match=saying) as caught:
        find_shapes(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
@pytest.mark.filterwarnings("error")
def test_whatever_byte_is_wrong_it_is_one_line_or_a_picture(suffix: str, tmp_path: Path) -> None:
    path, generator = tmp_path / f"scene.{suffix}", np.random.default_rng(3)
    turned(path) if suffix == "jpg" else PICTURE.resize((64, 64)).save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(4000 if suffix == "jpg" else 150):  # a camera's notes break in the rarest ways
        broken = whole.copy()
        broken[generator.integers(0, min(len(whole), 200), 3)] = generator.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        told = ""
        try:
            read_picture(path)
        except InputError as error:
            told = str(error)
        assert not told or (told.startswith(str(path)) and "\n" not in told)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("png", lambda path: PICTURE.save(path)),
        ("bmp", lambda path: PICTURE.save(path)),
        ("opaque.png", lambda path: PICTURE.convert("RGBA").save(path)),
        ("palette.png", lambda path: PICTURE.quantize(64).save(path)),
        ("commented.png", lambda path: PICTURE.save(path, pnginfo=commented())),
        ("jpg", lambda path: PICTURE.save(path, quality=95)),
        ("turned.jpg", lambda path: turned(path)),
    ],
)
def test_what_can_be_looked_at(name: str, save: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / f"scene.{name}"
    save(path)
    found, wanted = find_shapes(path), find_shapes_of(PICTURE, tmp_path)
    assert len(found.boxes) == len(wanted.boxes)
    order, other = (np.lexsort(np.round(o.boxes.T, 1)) for o in (found, wanted))
    # JPEG moved an edge by one pixel of 256; the others by none.
    assert np.abs(found.boxes[order] - wanted.boxes[other]).max() < 1.5 / 256


def test_exact_formats_give_exactly_the_same(tmp_path: Path) -> None:
    for name in ("scene.png", "scene.bmp", "scene.tiff"):
        PICTURE.save(tmp_path / name)
        assert np.array_equal(np.asarray(read_picture(tmp_path / name)), np.asarray(PICTURE))


def find_shapes_of(picture: Image.Image, directory: Path) -> object:
    picture.save(directory / "plain.png")
    return find_shapes(directory / "plain.png")


def framed(path: Path) -> None:
    picture = PICTURE.copy()
    ImageDraw.Draw(picture).rectangle((3, 3, 252, 252), outline="black", width=3)
    picture.save(path)


def commented() -> PngImagePlugin.PngInfo:
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "drawn; 16 shapes")
    return told


def turned(path: Path) -> None:
    """Stored on its side, with the note that cameras make."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter to the right
    exif[0x011A], exif[0x0132], exif[0x0110] = 72.0, "2026:11:24 08:26:00", "a camera"
    PICTURE.rotate(90, expand=True).save(path, quality=95, exif=exif)


def test_a_picture_that_another_run_wrote_since_the_check_is_kept(tmp_path: Path) -> None:
    """Of two runs without --overwrite one is refused."""
    (tmp_path / "scene.png").write_text("of the other run")
    with pytest.raises(ArtifactError, match=r"scene\.png: cannot be written: File exists"):
        draw_picture(4, tmp_path / "scene.png", overwrite=False)
    assert (tmp_path / "scene.png").read_text() == "of the other run"
    assert [path.name for path in tmp_path.iterdir()] == ["scene.png"]
