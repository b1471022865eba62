"""Reads a user's picture file for the demo checkpoint, or refuses it with one clear reason."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from lxmert_export.errors import InputError

MOST_PIXELS = 4096 * 4096
LEAST_SIDE = 32
LONGEST = 8  # the longer side is at most this many times the shorter one
# No other formats: Pillow hands some to external programs (EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
# What Pillow raises for a damaged file depends on the format and on where the damage is.
DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    AttributeError,
    struct.error, zlib.error,
)  # fmt: skip
OPAQUE = 255


def read_picture(path: str | Path) -> Image.Image:
    """Returns a picture file as an RGB picture, turned as its EXIF data say.

    ``InputError``: the file is missing or not a picture, or the picture is damaged, too large, too small, transparent,
    greyscale or has 16 bits per channel.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise InputError(f"{file}: no such picture file")
        if file.stat().st_size == 0:
            raise InputError(f"{file}: is empty; it should be a picture (PNG, JPEG, …)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are checked below, and about harmless damage
            with Image.open(file, formats=FORMATS) as opened:
                _check_size(file, opened.size)
                _check_depth(file, opened)
                opened.load()
                return _as_rgb(file, ImageOps.exif_transpose(opened))
    except UnidentifiedImageError as error:
        raise InputError(f"{file}: is not a readable picture; give one of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{file}: is too large; make it {MOST_PIXELS:,} pixels or less") from error
    except DAMAGED as error:
        raise InputError(f"{file}: cannot be read as a picture: {error}; save it again as PNG") from error


def _check_size(file: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise InputError(f"{file}: has {width} x {height} pixels; make it {MOST_PIXELS:,} pixels or less")
    if max(size) > LONGEST * min(size):
        raise InputError(f"{file}: has {width} x {height} pixels; one side may be {LONGEST} times the other at most")
    if min(size) < LEAST_SIDE:
        raise InputError(f"{file}: has {width} x {height} pixels; give at least {LEAST_SIDE} x {LEAST_SIDE}")


def _check_depth(file: Path, picture: Image.Image) -> None:
    """Refuses 16 bits per channel; Pillow silently reads 16-bit RGB as 8 bits, so only the stored layout shows them."""
    stored = [str(tile.args) for tile in getattr(picture, "tile", [])]
    if picture.mode.startswith(("I", "F")) or any(";16" in layout for layout in stored):
        raise InputError(f"{file}: has 16 bits or more per channel; save it with 8")


def _as_rgb(file: Path, picture: Image.Image) -> Image.Image:
    if picture.mode in ("1", "L", "LA", "La"):
        raise InputError(f"{file}: is a greyscale picture, but the demo world has colours; save it as RGB")
    if picture.mode == "P" or picture.mode == "PA":
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
    if picture.mode == "RGB" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA":
        if min(picture.getchannel("A").tobytes()) < OPAQUE:
            raise InputError(f"{file}: has transparent parts; put it on a white background and save it without them")
        picture = picture.convert("RGB")
    if picture.mode != "RGB":
        raise InputError(f"{file}: its colours are {picture.mode}; save it as RGB")
    return picture
