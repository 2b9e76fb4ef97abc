"""What the painted objects of `make_scenes` share: colours, words, lettering."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cvretrieval.datasets import _words

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]


def _palette(*codes: str) -> tuple[Color, ...]:
    return tuple((int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)) for code in codes)


#: ground, dark, three accents, light
PALETTES = (
    _palette("f4e9d4", "1f2a44", "d1495b", "edae49", "30638e", "fffaf0"),
    _palette("0f3d3e", "081c1d", "e2dcc8", "f0a500", "cf4d3f", "fbf7ec"),
    _palette("f7d6c4", "3b1c32", "a64253", "6a994e", "f2a65a", "fff6ee"),
    _palette("22223b", "12121f", "c9ada7", "f2e9e4", "e07a5f", "f7f3f0"),
    _palette("e8f1f2", "13293d", "006494", "1b98e0", "f26419", "ffffff"),
    _palette("ffcb47", "2b2118", "c1292e", "235789", "f1f1e6", "fffdf4"),
    _palette("2d6a4f", "0b2a1e", "d8f3dc", "ffb703", "fb8500", "f5fff7"),
    _palette("faf3dd", "3a2e39", "5e6472", "ff6b6b", "4ecdc4", "ffffff"),
    _palette("7b2d26", "2a0f0c", "f0f3f5", "0b7a75", "d7c9aa", "fff8ee"),
    _palette("ddd5f3", "241b4b", "6247aa", "e5446d", "2ec4b6", "fbfaff"),
    _palette("1d3557", "0b1626", "e63946", "a8dadc", "f1faee", "ffffff"),
    _palette("cfe8cf", "20332a", "3f7d58", "ef9651", "ec5228", "fbfff9"),
)


def pick(rng: np.random.Generator, options: Any) -> Any:
    """Return one of a sequence."""
    return options[int(rng.integers(len(options)))]


class Supplies:
    """Dealt without replacement: nothing comes twice before everything has come once."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._decks: dict[str, list[int]] = {}

    def take(self, name: str, options: Sequence[Any]) -> Any:
        """Return the next of the options; `name` tells the decks apart."""
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(self._rng.permutation(len(options)).tolist())
        return options[deck.pop()]


def mix(first: Color, second: Color, share: float) -> Color:
    """Return a colour between two; `share` is that of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def blank(size: tuple[int, int], color: Color) -> Image.Image:
    """Return a canvas of one colour."""
    return Image.new("RGB", size, color)


def gradient(size: tuple[int, int], top: Color, bottom: Color) -> Image.Image:
    """Return a canvas that fades from top to bottom."""
    ramp = np.linspace(0.0, 1.0, size[1], dtype=np.float32)[:, None, None]
    column = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.broadcast_to(np.rint(column), (size[1], size[0], 3)).astype(np.uint8))


def load_font(size: int) -> Any:
    """Return the font that Pillow ships, so that no font of the machine is needed."""
    return _load_font(size, threading.get_ident())


@lru_cache(maxsize=256)
def _load_font(size: int, thread: int) -> Any:
    # One font object per thread: FreeType's are not made to be shared.
    return ImageFont.load_default(size)


def write_text(
    image: Image.Image,
    text: str,
    box: Box,
    color: Color,
    *,
    bold: float = 0.0,
    stretch: tuple[float, float] = (0.8, 1.3),
    align: str = "center",
    angle: float = 0.0,
) -> Box:
    """Write one line as large as fits into a box, stretched within limits, and return the box it takes.

    Parameters
    ----------
    box : tuple of 4 floats
        Left, top, right, bottom in pixels of the canvas.
    bold : float
        Extra stroke, as a share of the height of the letters.
    stretch : tuple of 2 floats
        Least and greatest ratio of horizontal to vertical magnification.
    angle : float
        Degrees; the text is turned before it is fitted.
    """
    size = 96
    stroke = round(bold * size)
    font = load_font(size)
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2), 0)
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font, stroke_width=stroke)
    if angle:
        mask = mask.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    width, height = box[2] - box[0], box[3] - box[1]
    scale_y = height / mask.height
    scale_x = min(max(width / mask.width, stretch[0] * scale_y), stretch[1] * scale_y)
    if scale_x * mask.width > width:
        scale_x = width / mask.width
        scale_y = min(scale_y, scale_x / stretch[0])
    new = max(1, round(mask.width * scale_x)), max(1, round(mask.height * scale_y))
    mask = mask.resize(new, Image.Resampling.LANCZOS)
    slack = width - new[0]
    x = round(box[0] + {"left": 0.0, "center": slack / 2, "right": slack}[align])
    y = round(box[1] + (height - new[1]) / 2)
    image.paste(color, (x, y, x + new[0], y + new[1]), mask)
    return x, y, x + new[0], y + new[1]


def write_paragraph(
    image: Image.Image, box: Box, color: Color, rng: np.random.Generator, *, line_height: float = 30.0
) -> None:
    """Fill a box with lines of small words."""
    draw = ImageDraw.Draw(image)
    size = max(8, round(line_height * 0.72))
    y = box[1]
    while y + line_height <= box[3]:
        words, room = [], box[2] - box[0]
        while True:
            word = str(pick(rng, _words.SMALL_PRINT))
            room -= _word_width(word + " ", size)
            if room < 0:
                break
            words.append(word)
        draw.text((box[0], y), " ".join(words).capitalize(), fill=color, font=load_font(size))
        y += line_height


@lru_cache(maxsize=4096)
def _word_width(word: str, size: int) -> float:
    return float(load_font(size).getlength(word))


def write_barcode(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator, color: Color = (20, 20, 20)) -> None:
    """Draw a barcode on white."""
    draw.rectangle(box, fill=(250, 250, 250))
    x = box[0] + 6
    while x < box[2] - 10:
        width = int(rng.integers(2, 8))
        draw.rectangle((x, box[1] + 6, x + width, box[3] - 6), fill=color)
        x += width + int(rng.integers(3, 9))
