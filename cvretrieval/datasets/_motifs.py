"""Ornaments and pictures on the painted objects of `make_scenes`: each fills a box of a canvas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw

from cvretrieval.datasets._drawing import Box, Color, mix, pick


def sunburst(image: Image.Image, box: Box, palette: Sequence[Color], rng: np.random.Generator) -> None:
    """Rays from a point, with a disc and rings of dots."""
    with _clip(image, box) as (draw, width, height):
        x, y = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.35, 0.75)
        n_rays, radius, turn = int(rng.integers(9, 17)), width + height, rng.uniform(0, 1)
        draw.rectangle((0, 0, width, height), fill=palette[3])
        for ray in range(n_rays):
            angles = 2 * np.pi * (ray + turn + np.array([0.0, 0.5])) / n_rays
            points = [(x, y), *((x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles)]
            draw.polygon(points, fill=palette[2] if ray % 3 else mix(palette[2], palette[1], 0.25))
        disc = min(width, height) * rng.uniform(0.14, 0.24)
        for ring, fill in ((1.25, palette[5]), (1.1, palette[1]), (1.0, palette[4])):
            draw.ellipse((x - ring * disc, y - ring * disc, x + ring * disc, y + ring * disc), fill=fill)
        for step, angle in enumerate(np.linspace(0, 2 * np.pi, int(rng.integers(14, 26)), endpoint=False)):
            dot = disc * (0.06 + 0.08 * ((step * 7) % 5) / 5)
            px, py = x + 1.5 * disc * np.cos(angle), y + 1.5 * disc * np.sin(angle)
            draw.ellipse((px - dot, py - dot, px + dot, py + dot), fill=palette[5] if step % 2 else palette[1])


def mountains(image: Image.Image, box: Box, palette: Sequence[Color], rng: np.random.Generator) -> None:
    """A sky with sun and birds, ridges, and firs in front."""
    with _clip(image, box) as (draw, width, height):
        sky = palette[5] if sum(palette[0]) < 330 else palette[0]
        for band in range(8):
            y = height * band / 8
            draw.rectangle((0, y, width, y + height / 8), fill=mix(palette[4], sky, min(1.0, band / 5)))
        x, y, radius = width * rng.uniform(0.2, 0.8), height * rng.uniform(0.18, 0.35), height * rng.uniform(0.07, 0.12)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=palette[3])
        for _ in range(int(rng.integers(3, 8))):
            x, y, wing = (
                width * rng.uniform(0.1, 0.9),
                height * rng.uniform(0.06, 0.4),
                height * rng.uniform(0.012, 0.025),
            )
            draw.line([(x - 2 * wing, y - wing), (x, y), (x + 2 * wing, y - wing)], fill=palette[1], width=5)
        n_ridges = 4
        for ridge in range(n_ridges):
            base = height * (0.42 + 0.16 * ridge)
            n_points = int(rng.integers(6, 10))
            xs = np.linspace(-0.05, 1.05, n_points) * width + rng.uniform(-0.03, 0.03, n_points) * width
            ys = base - height * rng.uniform(0.0, 0.22, n_points) * (1 if ridge < 3 else 0.4)
            color = mix(mix(palette[2], palette[4], 0.35 * (ridge % 2)), palette[1], ridge / (n_ridges - 0.6))
            draw.polygon([(-9, height + 9), *zip(xs, ys, strict=True), (width + 9, height + 9)], fill=color)
            if ridge == 0:
                for px, py in zip(xs[1:-1], ys[1:-1], strict=True):
                    cap = height * 0.045
                    draw.polygon(
                        [(px - cap, py + cap), (px, py), (px + cap, py + cap), (px, py + 0.6 * cap)], palette[5]
                    )
        for _ in range(int(rng.integers(10, 18))):
            x, base, size = width * rng.uniform(0, 1), height * rng.uniform(0.9, 1.02), height * rng.uniform(0.08, 0.2)
            for tier in range(3):
                half, y = size * (0.16 + 0.06 * tier), base - size * (1 - 0.28 * tier)
                draw.polygon([(x, y), (x - half, y + 0.42 * size), (x + half, y + 0.42 * size)], fill=palette[1])


def skyline(image: Image.Image, box: Box, palette: Sequence[Color], rng: np.random.Generator) -> None:
    """Houses with lit windows under a moon."""
    with _clip(image, box) as (draw, width, height):
        draw.rectangle((0, 0, width, height), fill=mix(palette[1], palette[4], 0.35))
        radius, x, y = height * 0.11, width * rng.uniform(0.15, 0.85), height * 0.2
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=palette[5])
        for _ in range(60):
            px, py, dot = width * rng.uniform(), height * rng.uniform(0, 0.6), rng.uniform(1.5, 4)
            draw.ellipse((px - dot, py - dot, px + dot, py + dot), fill=palette[5])
        for layer in range(2):
            x = -width * rng.uniform(0, 0.1)
            color = mix(palette[2], palette[1], 0.55 * layer)
            while x < width:
                w, h = width * rng.uniform(0.09, 0.19), height * rng.uniform(0.25, 0.62 - 0.18 * layer)
                y = height - h
                draw.rectangle((x, y, x + w, height), fill=mix(color, palette[1], rng.uniform(0, 0.25)))
                if rng.uniform() < 0.4:
                    draw.polygon([(x, y), (x + w / 2, y - 0.5 * w), (x + w, y)], fill=palette[1])
                cell = w / float(rng.integers(3, 6))
                for wy in np.arange(y + cell * 0.5, height - cell, cell * 1.25):
                    for wx in np.arange(x + cell * 0.3, x + w - 0.75 * cell, cell):
                        lit = rng.uniform() < 0.55
                        fill = palette[3] if lit else mix(color, palette[1], 0.6)
                        draw.rectangle((wx, wy, wx + 0.5 * cell, wy + 0.7 * cell), fill=fill)
                x += w * rng.uniform(0.85, 1.2)


def waves(image: Image.Image, box: Box, palette: Sequence[Color], rng: np.random.Generator) -> None:
    """Overlapping scales in rows, with a boat or two."""
    with _clip(image, box) as (draw, width, height):
        draw.rectangle((0, 0, width, height), fill=palette[5])
        radius = width / float(rng.integers(5, 8))
        rows = np.arange(0.0, height + 2 * radius, radius * 0.5)
        boats = set(rng.integers(2, max(3, len(rows) // 2), size=2).tolist())
        for row, y in enumerate(rows):
            if row in boats:
                x, size = width * rng.uniform(0.2, 0.8), radius * rng.uniform(0.7, 1.1)
                for part, fill in (
                    ([(-1, -0.1), (1, -0.1), (0.6, 0.35), (-0.6, 0.35)], palette[2]),
                    ([(0, -1.3), (0, -0.2), (0.8, -0.2)], palette[3]),
                    ([(-0.1, -1), (-0.1, -0.2), (-0.6, -0.2)], palette[1]),
                ):
                    draw.polygon([(x + size * px, y + size * py) for px, py in part], fill=fill)
            for x in np.arange(-radius * (row % 2) / 2 - radius, width + radius, radius):
                accent = pick(rng, palette[2:5])
                for share, fill in (
                    (0.5, palette[1]),
                    (0.45, accent),
                    (0.33, palette[5]),
                    (0.24, accent),
                    (0.12, palette[3]),
                ):
                    r = radius * share * 1.04
                    draw.ellipse((x - r, y - r + radius * 0.6, x + r, y + r + radius * 0.6), fill=fill)


def tiles(image: Image.Image, box: Box, palette: Sequence[Color], rng: np.random.Generator) -> None:
    """A grid of geometric tiles, each drawn at random: no two places look alike for long."""
    with _clip(image, box) as (draw, width, height):
        n_columns = int(rng.integers(4, 7))
        cell = width / n_columns
        for row in range(int(np.ceil(height / cell))):
            for column in range(n_columns):
                colors = [palette[int(index)] for index in rng.permutation(6)[:3]]
                _draw_tile(draw, (column * cell, row * cell, cell), colors, int(rng.integers(6)), int(rng.integers(4)))


def _draw_tile(
    draw: ImageDraw.ImageDraw, cell: tuple[float, float, float], colors: Sequence[Color], kind: int, turn: int
) -> None:
    x, y, size = cell
    ground, figure, accent = colors
    middle = (x + size / 2, y + size / 2)
    draw.rectangle((x, y, x + size, y + size), fill=ground)
    if kind == 0:
        corner = (x + size * (turn % 2), y + size * (turn // 2))
        start = (0, 90, 270, 180)[turn]
        for share, fill in ((1.0, figure), (0.62, accent), (0.3, ground)):
            draw.pieslice(_around(corner, share * size), start, start + 90, fill=fill)
    elif kind == 1:
        corners = [(x, y), (x + size, y), (x + size, y + size), (x, y + size)]
        draw.polygon([corners[turn], corners[(turn + 1) % 4], corners[(turn + 2) % 4]], fill=figure)
    elif kind == 2:
        for share, fill in ((0.45, figure), (0.28, accent), (0.12, ground)):
            draw.ellipse(_around(middle, share * size), fill=fill)
    elif kind == 3:
        for stripe in np.array([1, 3, 5]) * size / 7:
            bar = (x + stripe, y, x + stripe + size / 7, y + size)
            draw.rectangle(bar if turn % 2 else (x, y + stripe, x + size, y + stripe + size / 7), fill=figure)
    elif kind == 4:
        for dot in range(9):
            centre = (x + size * (dot % 3 + 0.5) / 3, y + size * (dot // 3 + 0.5) / 3)
            draw.ellipse(_around(centre, 0.1 * size), fill=figure if (dot + turn) % 2 else accent)
    else:
        draw.regular_polygon((*middle, size / 2), 4, rotation=45, fill=figure)
        draw.rectangle(_around(middle, size / 8), fill=accent)


def _around(centre: tuple[float, float], radius: float) -> Box:
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius


def leaves(image: Image.Image, box: Box, palette: Sequence[Color], rng: np.random.Generator) -> None:
    """Fruits and leaves scattered over a ground."""
    with _clip(image, box) as (draw, width, height):
        draw.rectangle((0, 0, width, height), fill=mix(palette[0], palette[5], 0.5))
        for _ in range(int(width * height / 5200)):
            x, y, size = width * rng.uniform(), height * rng.uniform(), rng.uniform(34, 84)
            angle, color = rng.uniform(0, 2 * np.pi), pick(rng, palette[1:5])
            if rng.uniform() < 0.35:
                draw.ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=color)
                r = size / 6
                draw.ellipse((x - 2 * r, y - 2 * r, x - r, y - r), fill=palette[5])
                draw.line([(x, y - size / 2), (x + size / 4, y - size)], fill=palette[1], width=5)
                continue
            t = np.linspace(0, 2 * np.pi, 24)
            px, py = size * np.cos(t), 0.36 * size * np.sin(t) * (1 - 0.25 * np.cos(t))
            c, s = np.cos(angle), np.sin(angle)
            draw.polygon(list(zip(x + c * px - s * py, y + s * px + c * py, strict=True)), fill=color)
            stem = [(x - c * size, y - s * size), (x + c * size * 0.8, y + s * size * 0.8)]
            draw.line(stem, fill=mix(color, palette[5], 0.6), width=4)


MOTIFS = (sunburst, mountains, skyline, waves, tiles, leaves)


@contextmanager
def _clip(image: Image.Image, box: Box) -> Iterator[tuple[ImageDraw.ImageDraw, int, int]]:
    """Draw on a canvas of the box's size, which replaces the box at the end: nothing leaks out of it."""
    left, top, right, bottom = (round(value) for value in box)
    part = image.crop((left, top, right, bottom))
    yield ImageDraw.Draw(part), right - left, bottom - top
    image.paste(part, (left, top))
