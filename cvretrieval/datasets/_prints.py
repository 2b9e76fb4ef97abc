"""The flat objects of `make_scenes`: posters, signs, maps, postcards, framed photographs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from cvretrieval.datasets import _words
from cvretrieval.datasets._drawing import PALETTES, Box, Color, Supplies, blank, mix, pick, write_paragraph, write_text
from cvretrieval.datasets._motifs import MOTIFS, skyline
from cvretrieval.datasets._solids import PaintedObject, flat_object

ENAMELS: tuple[Color, ...] = (
    (18, 74, 130),
    (22, 98, 66),
    (122, 74, 34),
    (245, 243, 236),
    (168, 32, 36),
    (28, 30, 34),
)

#: land, street, park
MAP_COLORS: tuple[tuple[Color, Color, Color], ...] = (
    ((240, 234, 220), (255, 255, 255), (196, 220, 172)),
    ((226, 220, 232), (250, 248, 255), (178, 214, 190)),
    ((52, 58, 78), (98, 106, 134), (54, 96, 88)),
)


def paint_poster(rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """An event's poster: picture, headline, date, small print."""
    width, height = 960, 1280
    palette = supplies.take("palette", PALETTES)
    image = blank((width, height), palette[0])
    dark_ground = sum(palette[0]) < 330
    ink, margin = (palette[5] if dark_ground else palette[1]), 56
    picture_first = rng.uniform() < 0.6
    top = 56 if picture_first else 460
    supplies.take("poster", MOTIFS)(image, (margin, top, width - margin, top + 640), palette, rng)
    y = 730 if picture_first else 60
    first, second = supplies.take("headline", _words.HEADLINES), supplies.take("event", _words.EVENTS)
    write_text(image, first, (margin, y, width - margin, y + 150), ink, bold=0.05, stretch=(0.6, 1.9))
    band = mix(palette[2], palette[1], 0.0 if not dark_ground else 0.1)
    ImageDraw.Draw(image).rectangle((margin, y + 172, width - margin, y + 292), fill=band)
    light = palette[5] if sum(band) < 420 else palette[1]
    write_text(
        image, second, (margin + 24, y + 190, width - margin - 24, y + 274), light, bold=0.04, stretch=(0.7, 1.6)
    )
    y = 1050 if picture_first else 1130
    month = pick(rng, _words.MONTHS)
    day = int(rng.integers(1, 27))
    date = f"{day}-{day + int(rng.integers(1, 4))} {month}"
    write_text(image, date, (margin, y, 420, y + 90), ink, bold=0.03, align="left")
    write_text(image, pick(rng, _words.PLACES), (450, y, width - margin, y + 60), ink, align="right")
    time = f"No. {int(rng.integers(3, 99))} · {int(rng.integers(17, 22))}:30"
    write_text(image, time, (600, y + 68, width - margin, y + 108), ink, align="right")
    if picture_first:
        write_paragraph(image, (margin, 1160, width - margin, 1250), ink, rng)
    return flat_object("poster", image)


def paint_sign(rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """A board of directions, enamelled, screwed and weathered."""
    width, height = 1200, 840
    ground = supplies.take("enamel", ENAMELS)
    ink: Color = (250, 250, 246) if sum(ground) < 420 else (24, 26, 30)
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), 60, fill=(*ground, 255))
    draw.rounded_rectangle((16, 16, width - 17, height - 17), 46, outline=(*ink, 255), width=8)
    board = image.convert("RGB")
    draw = ImageDraw.Draw(board)
    n_rows = int(rng.integers(4, 6))
    row_height = (height - 90) / n_rows
    places = rng.permutation(len(_words.PLACES))[:n_rows]
    for row, place in enumerate(places):
        y = 45 + row * row_height
        left = rng.uniform() < 0.5
        arrow = (60, y + 0.15 * row_height, 190, y + 0.85 * row_height)
        _draw_arrow(draw, arrow if left else _mirror(arrow, width), ink, int(rng.integers(8)))
        start, end = (230, width - 330) if left else (60, width - 500)
        write_text(board, _words.PLACES[place], (start, y + 0.2 * row_height, end, y + 0.8 * row_height), ink,
                   bold=0.03, align="left", stretch=(0.75, 1.1))  # fmt: skip
        far = f"{rng.uniform(0.3, 9.5):.1f} km" if rng.uniform() < 0.6 else f"{int(rng.integers(2, 40))} min"
        end = width - 60 if left else width - 230
        write_text(board, far, (end - 220, y + 0.27 * row_height, end, y + 0.73 * row_height), ink, align="right")
        if row:
            draw.line((50, y, width - 50, y), fill=mix(ground, ink, 0.45), width=4)
    for screw in ((44, 44), (44, height - 44), (width - 44, 44), (width - 44, height - 44)):
        rim = (screw[0] - 13, screw[1] - 13, screw[0] + 13, screw[1] + 13)
        draw.ellipse(rim, fill=(150, 150, 150), outline=(70, 70, 70), width=3)
        draw.line((screw[0] - 8, screw[1] - 6, screw[0] + 8, screw[1] + 6), fill=(70, 70, 70), width=3)
    for _ in range(int(rng.integers(30, 60))):
        x, y, r = width * rng.uniform(), height * rng.uniform(), rng.uniform(2, 9)
        rust = mix(ground, pick(rng, ((110, 62, 30), (200, 190, 175))), rng.uniform(0.3, 0.9))
        draw.ellipse((x - r, y - r * rng.uniform(0.5, 1), x + r, y + r), fill=rust)
    board.putalpha(image.getchannel("A"))
    return flat_object("sign", board)


def paint_map(rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """A town map: river, parks, blocks of houses, streets and names."""
    size = 1160
    land, street, park = supplies.take("map", MAP_COLORS)
    image = blank((size, size), land)
    draw = ImageDraw.Draw(image)
    ink: Color = (40, 44, 60) if sum(land) > 400 else (238, 238, 244)
    pitch = size / float(rng.integers(9, 13))
    for x in np.arange(0, size, pitch):
        for y in np.arange(0, size, pitch):
            color = mix(land, park, 1.0) if rng.uniform() < 0.12 else mix(land, ink, rng.uniform(0.02, 0.22))
            jitter = rng.uniform(-0.12, 0.12, 8) * pitch
            corners = np.array([[x, y], [x + pitch, y], [x + pitch, y + pitch], [x, y + pitch]]) + jitter.reshape(4, 2)
            draw.polygon([tuple(corner) for corner in corners], fill=color)
            for _ in range(int(rng.integers(0, 5))):
                hx, hy = x + pitch * rng.uniform(0.15, 0.7), y + pitch * rng.uniform(0.15, 0.7)
                hw, hh = pitch * rng.uniform(0.08, 0.25, 2)
                draw.rectangle((hx, hy, hx + hw, hy + hh), fill=mix(color, ink, 0.28))
    bend = np.cumsum(rng.normal(0, 0.09, 12)) + rng.uniform(0.3, 0.7)
    river = [(size * b, size * t) for b, t in zip(bend, np.linspace(-0.05, 1.05, 12), strict=True)]
    draw.line(river, fill=(118, 172, 214) if sum(land) > 400 else (40, 92, 140), width=84, joint="curve")
    for _ in range(int(rng.integers(9, 14))):
        a, b = rng.uniform(-0.1, 1.1, (2, 2)) * size
        a[int(rng.integers(2))], b[int(rng.integers(2))] = -20, size + 20
        wide = float(rng.integers(10, 26))
        draw.line([tuple(a), tuple(b)], fill=mix(street, ink, 0.35), width=round(wide + 8))
        draw.line([tuple(a), tuple(b)], fill=pick(rng, (street, street, (250, 204, 104))), width=round(wide))
    for slot, place in enumerate(rng.permutation(len(_words.PLACES))[:9]):
        x = size * (0.06 + 0.3 * (slot % 3) + rng.uniform(0, 0.08))
        y = size * (0.06 + 0.27 * (slot // 3) + rng.uniform(0, 0.2))
        box = write_text(image, _words.PLACES[place], (x, y, x + 260, y + 40), ink, bold=0.02, align="left")
        draw.ellipse((box[0] - 34, y + 8, box[0] - 10, y + 32), fill=(214, 58, 52), outline=(255, 255, 255), width=4)
    draw.rectangle((0, size - 150, size, size), fill=ink)
    name = f"{supplies.take('headline', _words.HEADLINES).title()} & {pick(rng, _words.PLACES).title()}"
    write_text(image, name, (40, size - 128, size - 300, size - 24), land, align="left")
    for step in range(6):
        draw.rectangle((size - 260 + 36 * step, size - 90, size - 224 + 36 * step, size - 66), fill=land, outline=land)
        if step % 2:
            draw.rectangle((size - 257 + 36 * step, size - 87, size - 227 + 36 * step, size - 69), fill=ink)
    return flat_object("map", image)


def paint_street(rng: np.random.Generator, supplies: Supplies) -> PaintedObject:
    """A postcard of houses at night, the stand-in where no photograph is left."""
    palette = supplies.take("palette", PALETTES)
    image = blank((1240, 880), (250, 247, 240))
    skyline(image, (40, 40, 1200, 740), palette, rng)
    greeting = f"Greetings from {pick(rng, _words.HEADLINES).title()} {pick(rng, _words.PLACES).title()}"
    write_text(image, greeting, (60, 760, 1180, 850), palette[1], bold=0.01)
    return flat_object("postcard", image)


def paint_photograph(rng: np.random.Generator, crop: Image.Image) -> PaintedObject:
    """A framed print of a photograph."""
    mat, frame = int(rng.integers(30, 80)), int(rng.integers(24, 44))
    wood = pick(rng, ((58, 40, 30), (30, 30, 32), (196, 160, 106), (235, 232, 226), (120, 78, 45)))
    border = mat + frame
    image = blank((crop.width + 2 * border, crop.height + 2 * border), wood)
    draw = ImageDraw.Draw(image)
    for step in range(frame):
        shade = mix(wood, (255, 255, 255), 0.25 * (step / frame)) if step % 7 else mix(wood, (0, 0, 0), 0.15)
        draw.rectangle((step, step, image.width - 1 - step, image.height - 1 - step), outline=shade)
    draw.rectangle((frame, frame, image.width - frame, image.height - frame), fill=(246, 243, 236))
    draw.rectangle((border - 4, border - 4, image.width - border + 4, image.height - border + 4), fill=(205, 200, 190))
    image.paste(crop, (border, border))
    return flat_object("photograph", image.crop((0, 0, image.width // 2 * 2, image.height // 2 * 2)))


def _draw_arrow(draw: ImageDraw.ImageDraw, box: Box, color: Color, eighth: int) -> None:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    r = min(box[2] - box[0], box[3] - box[1]) / 2
    shape = np.array([(-1, -0.2), (0.1, -0.2), (0.1, -0.62), (1, 0), (0.1, 0.62), (0.1, 0.2), (-1, 0.2)]) * r
    angle = eighth * np.pi / 4
    turned = shape @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + (x, y)
    draw.polygon([tuple(point) for point in turned], fill=color)


def _mirror(box: Box, width: int) -> Box:
    return width - box[2], box[1], width - box[0], box[3]
