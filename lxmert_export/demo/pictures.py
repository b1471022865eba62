"""A user's picture file → an RGB picture that the demo checkpoint can look at, or one clear reason why not."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from lxmert_export.errors import InputError

MOST_PIXELS = 4096 * 4096
LEAST_SIDE = 32
LONGEST = 8  # times the shorter side
# No others: some of Pillow's formats are handed to programs outside (EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
# What Pillow raises for a damaged file depends on the format and on where the damage is.
DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    AttributeError,
    struct.error, zlib.error,
)  # fmt: skip
OPAQUE = 255


def read_picture(path: str | Path) -> Image.Image:
    """Opens a picture file. ``InputError``: not there, no picture, too large or small, transparent, grey or 16-bit."""
    file = Path(path)
    try:
        if not file.is_file():
            raise InputError(f"{file}: no such picture file")
        if file.stat().st_size == 0:
            raise InputError(f"{file}: is empty; it should be a picture (PNG, JPEG, …)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below, and of damage that does not matter
            with Image.open(file, formats=FORMATS) as opened:
                _check_size(file, opened.size)
                _check_depth(file, opened)
                opened.load()
                return _as_rgb(file, ImageOps.exif_transpose(opened))
    except UnidentifiedImageError as error:
        raise InputError(f"{file}: is no picture that can be read ({', '.join(FORMATS)} are)") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{file}: is too large a picture; make it {MOST_PIXELS:,} pixels or less") from error
    except DAMAGED as error:
        raise InputError(f"{file}: cannot be read as a picture: {error}; save it again as PNG") from error


def _check_size(file: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise InputError(f"{file}: has {width} x {height} pixels; make it {MOST_PIXELS:,} pixels or less")
    if max(size) > LONGEST * min(size):
        raise InputError(f"{file}: has {width} x {height} pixels; its sides may differ {LONGEST} times at most")
    if min(size) < LEAST_SIDE:
        raise InputError(f"{file}: has {width} x {height} pixels; at least {LEAST_SIDE} x {LEAST_SIDE} are needed")


def _check_depth(file: Path, picture: Image.Image) -> None:
    """Pillow cuts a 16-bit RGB picture to 8 bits without a word: only how it is stored tells."""
    stored = [str(tile.args) for tile in getattr(picture, "tile", [])]
    if picture.mode.startswith(("I", "F")) or any(";16" in one for one in stored):
        raise InputError(f"{file}: has 16 bits or more a channel; save it with 8")


def _as_rgb(file: Path, picture: Image.Image) -> Image.Image:
    if picture.mode in ("1", "L", "LA", "La"):
        raise InputError(f"{file}: is a greyscale picture, and the demo world is one of colours; save it as RGB")
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
