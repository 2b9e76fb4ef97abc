"""The solid objects of `make_scenes`: books and packages."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from cvretrieval.datasets import _words
from cvretrieval.datasets._drawing import (
    PALETTES,
    Color,
    Supplies,
    blank,
    gradient,
    mix,
    pick,
    write_barcode,
    write_paragraph,
    write_text,
)
from cvretrieval.datasets._motifs import MOTIFS, leaves, sunburst, tiles, waves
from cvretrieval.datasets._solids import ART_SCALE, PaintedObject, block_object


def paint_book(rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """A book seen from the front, with its spine."""
    width, height, depth = 860, 1240, int(rng.integers(50, 90)) * ART_SCALE
    palette = supplies.take("palette", PALETTES)
    title, author = supplies.take("title", _words.TITLES), supplies.take("author", _words.AUTHORS)
    cover = gradient((width, height), palette[2], mix(palette[2], palette[1], 0.45))
    inset = rng.uniform() < 0.5
    frame = (70, 420, width - 70, 1050) if inset else (0, 470, width, 1060)
    supplies.take("book", MOTIFS)(cover, frame, palette, rng)
    draw = ImageDraw.Draw(cover)
    if inset:
        draw.rectangle(frame, outline=palette[5], width=10)
    light = palette[5] if sum(palette[2]) < 460 else palette[1]
    words = title.split()
    middle = (len(words) + 1) // 2
    for row, line in enumerate((" ".join(words[:middle]), " ".join(words[middle:]))):
        write_text(
            cover, line, (70, 70 + 165 * row, width - 70, 215 + 165 * row), light, bold=0.02, stretch=(0.7, 1.35)
        )
    write_text(cover, author.upper(), (120, 1100, width - 120, 1160), light, stretch=(0.8, 1.2))
    genre = pick(rng, _words.GENRES)
    write_text(cover, f"· {genre} ·", (250, 1175, width - 250, 1208), mix(light, palette[2], 0.3))
    spine = blank((height, depth), mix(palette[2], palette[1], 0.3))
    write_text(spine, title, (80, depth * 0.2, height * 0.6, depth * 0.8), light, bold=0.02)
    write_text(spine, author, (height * 0.65, depth * 0.3, height - 80, depth * 0.7), light)
    sides = (spine.rotate(-90, expand=True), _paint_pages((depth, height), rng))
    return block_object("book", cover, sides, _paint_pages((width, depth), rng, rows=True), depth)


def paint_package(rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """A box of food: front, two sides and the top."""
    width, height, depth = 840, 1180, int(rng.integers(110, 190)) * ART_SCALE
    palette = supplies.take("palette", PALETTES)
    brand, product = supplies.take("brand", _words.BRANDS), supplies.take("product", _words.PRODUCTS)
    main = palette[int(rng.integers(2, 5))]
    light = palette[5] if sum(main) < 470 else palette[1]
    front = gradient((width, height), mix(main, palette[5], 0.12), mix(main, palette[1], 0.3))
    draw = ImageDraw.Draw(front)
    supplies.take("package", (leaves, tiles, sunburst, waves))(front, (0, 560, width, height), palette, rng)
    draw.ellipse((-120, 430, width + 120, 700), fill=mix(main, palette[1], 0.15))
    draw.rectangle((0, 380, width, 560), fill=mix(main, palette[1], 0.15))
    badge = palette[1] if light == palette[5] else palette[5]
    draw.rounded_rectangle((150, 60, width - 150, 210), 70, fill=badge)
    write_text(front, brand, (200, 82, width - 200, 188), palette[5] if badge == palette[1] else palette[1], bold=0.03)
    for row, word in enumerate(product.split()):
        write_text(
            front, word, (60, 250 + 165 * row, width - 60, 395 + 165 * row), light, bold=0.06, stretch=(0.7, 1.7)
        )
    note = pick(rng, _words.CLAIMS)
    x, y, r = width * rng.uniform(0.62, 0.78), height * rng.uniform(0.66, 0.74), 120
    angles = np.linspace(0, 2 * np.pi, 33)
    radii = r * (1 + 0.1 * (np.arange(33) % 2))
    draw.polygon(list(zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)), fill=palette[3])
    write_text(front, note, (x - 92, y - 60, x + 92, y + 60), palette[1], bold=0.03, angle=float(rng.uniform(-15, 15)))
    draw.rounded_rectangle((40, height - 90, 240, height - 30), 16, fill=palette[5])
    write_text(front, f"{int(rng.integers(5, 40)) * 25} g", (60, height - 80, 220, height - 40), palette[1])
    colors, names = (mix(main, palette[1], 0.22), light, palette[1]), (brand, product)
    left, right = (_paint_package_side((depth, height), colors, names, rng) for _ in range(2))
    top = blank((width, depth), mix(main, palette[5], 0.2))
    write_text(top, f"{brand} {product.lower()}", (80, depth * 0.3, width - 80, depth * 0.7), light, bold=0.02)
    return block_object("package", front, (left, right), top, depth)


def _paint_package_side(
    size: tuple[int, int], colors: tuple[Color, Color, Color], names: tuple[str, str], rng: np.random.Generator
) -> Image.Image:
    (width, height), (ground, light, dark), (brand, product) = size, colors, names
    side = blank(size, ground)
    draw = ImageDraw.Draw(side)
    write_text(side, brand, (20, 40, width - 20, 110), light, bold=0.02)
    write_text(side, product, (20, 120, width - 20, 170), light)
    table = (24, 210, width - 24, 620)
    draw.rectangle(table, fill=(250, 250, 247), outline=dark, width=4)
    step = (table[3] - table[1]) / 9
    for row, name in enumerate(_words.NUTRIENTS):
        y = table[1] + row * step
        write_text(side, name, (34, y + 9, width * 0.6, y + step - 9), (20, 20, 20), align="left")
        if row:
            draw.line((table[0], y, table[2], y), fill=(60, 60, 60), width=2)
            value = f"{rng.uniform(0.1, 90):.1f}"
            write_text(side, value, (width * 0.6, y + 9, width - 34, y + step - 9), (20, 20, 20), align="right")
    write_paragraph(side, (28, 660, width - 28, 900), light, rng)
    write_barcode(draw, (40, height - 230, width - 40, height - 60), rng)
    return side


def _paint_pages(size: tuple[int, int], rng: np.random.Generator, *, rows: bool = False) -> Image.Image:
    n_lines = size[1] if rows else size[0]
    tones = np.clip(232 + rng.normal(0, 9, n_lines), 0, 255)
    page = np.repeat((tones[:, None] if rows else tones[None, :]), size[0] if rows else size[1], axis=1 if rows else 0)
    return Image.fromarray(np.stack([page, page * 0.98, page * 0.91], axis=2).astype(np.uint8))
