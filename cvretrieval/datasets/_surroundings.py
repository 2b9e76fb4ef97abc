"""What lies behind and in front of the object in a view: walls, tables, clutter, shadows, things in the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from cvretrieval.datasets import _words
from cvretrieval.datasets._camera import SUPERSAMPLING, Camera, scale_pixels
from cvretrieval.datasets._drawing import PALETTES, Color, mix, pick, write_barcode, write_paragraph, write_text
from cvretrieval.datasets._solids import PaintedObject

#: Side of the painted part of a wall, in pixels of its own.
_WALL = 1200

_WALL_COLORS: tuple[Color, ...] = (
    (214, 205, 190),
    (176, 182, 186),
    (232, 228, 220),
    (142, 150, 140),
    (196, 170, 140),
    (120, 128, 142),
    (226, 212, 214),
    (92, 84, 80),
)


def paint_surroundings(
    painted: PaintedObject, camera: Camera, difficulty: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a supersampled canvas with a surface that the object hangs on or lies on, clutter and the shadow."""
    import cv2

    wall = _paint_wall(rng)
    _scatter_clutter(wall, round(2 + 12 * difficulty), rng)
    depth = max(corner[2] for corner in (face.corner for face in painted.faces))
    plane = camera.matrix @ np.array([[1, 0, 0], [0, 1, 0], [0, 0, depth], [0, 0, 1.0]])
    width, height = camera.size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1.0]]) @ np.linalg.inv(plane).T
    corners = corners[:, :2] / corners[:, 2:]
    low = corners.min(axis=0)
    scale = float(np.ptp(corners, axis=0).max()) / _WALL
    to_wall = np.array([[scale, 0, low[0]], [0, scale, low[1]], [0, 0, 1.0]])
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    transform = scale_pixels(SUPERSAMPLING) @ plane @ to_wall
    canvas = cv2.warpPerspective(
        np.asarray(wall), transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return _cast_shadow(canvas, painted, camera, depth, rng)


def put_in_the_way(canvas: NDArray[np.uint8], difficulty: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the canvas with up to three things between the camera and the object, out of focus."""
    image = Image.fromarray(canvas)
    size = (image.width // SUPERSAMPLING, image.height // SUPERSAMPLING)
    for _ in range(int(rng.binomial(3, 0.15 + 0.45 * difficulty))):
        layer = Image.new("RGBA", size, (0, 0, 0, 0))
        pick(rng, (_twig, _twig, _pole, _note))(layer, rng)
        blur = float(rng.uniform(0.8, 2.2))
        painted = layer.getbbox() or (0, 0, 1, 1)
        margin = round(3 * blur)
        window = (painted[0] - margin, painted[1] - margin, painted[2] + margin, painted[3] + margin)
        layer = layer.crop(window).filter(ImageFilter.GaussianBlur(blur))
        # Nothing finer than the blur is left, so the supersampled canvas gains nothing from more pixels.
        layer = layer.resize((layer.width * SUPERSAMPLING, layer.height * SUPERSAMPLING), Image.Resampling.BILINEAR)
        image.paste(layer, (window[0] * SUPERSAMPLING, window[1] * SUPERSAMPLING), layer)
    return np.array(image)


def _paint_wall(rng: np.random.Generator) -> Image.Image:
    base = pick(rng, _WALL_COLORS)
    kind = int(rng.integers(4))
    wall = Image.new("RGB", (_WALL, _WALL), base)
    draw = ImageDraw.Draw(wall)
    if kind == 1:
        _lay_bricks(draw, pick(rng, ((158, 82, 62), (186, 150, 120), (204, 200, 194), (112, 70, 60))), rng)
    elif kind == 2:
        _lay_planks(draw, pick(rng, ((164, 118, 74), (112, 78, 52), (206, 178, 138), (90, 80, 74))), rng)
    elif kind == 3:
        _lay_tiles(draw, base, rng)
    return _roughen(wall, float(rng.uniform(4, 13)), rng)


def _roughen(wall: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Add stains and grain: noise of several grain sizes."""
    import cv2

    half = _WALL // 2
    noise = np.zeros((half, half), dtype=np.float32)
    for cells, weight in ((4, 1.6), (16, 0.8), (75, 0.5), (half // 2, 0.5), (half, 0.45)):
        grid = rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(strength * weight)
        noise += cv2.resize(grid, (half, half), interpolation=cv2.INTER_CUBIC if cells < 75 else cv2.INTER_LINEAR)
    rough = cv2.resize(noise.astype(np.int16), (_WALL, _WALL), interpolation=cv2.INTER_LINEAR)
    return Image.fromarray(cv2.add(np.asarray(wall), cv2.merge([rough] * 3), dtype=cv2.CV_8U))


def _lay_bricks(draw: ImageDraw.ImageDraw, color: Color, rng: np.random.Generator) -> None:
    mortar = mix(color, (225, 220, 210), 0.6)
    draw.rectangle((0, 0, _WALL, _WALL), fill=mortar)
    height = int(rng.integers(46, 80))
    width, gap = height * 2.6, max(4, height // 10)
    for row in range(_WALL // height + 1):
        for column in range(-1, int(_WALL / width) + 1):
            x, y = (column + 0.5 * (row % 2)) * width, row * height
            shade = mix(color, (30, 20, 20) if rng.uniform() < 0.5 else (240, 220, 200), rng.uniform(0, 0.22))
            draw.rounded_rectangle((x + gap, y + gap, x + width, y + height), 5, fill=shade)


def _lay_planks(draw: ImageDraw.ImageDraw, color: Color, rng: np.random.Generator) -> None:
    y = 0.0
    while y < _WALL:
        height = rng.uniform(90, 170)
        plank = mix(color, (20, 12, 8) if rng.uniform() < 0.5 else (245, 225, 195), rng.uniform(0, 0.18))
        draw.rectangle((0, y, _WALL, y + height), fill=plank)
        x = np.linspace(0, _WALL, 40)
        for _ in range(int(height / 9)):
            grain = y + rng.uniform(0, height) + 5 * np.sin(x / rng.uniform(90, 300) + rng.uniform(0, 6))
            draw.line(list(zip(x, grain, strict=True)), fill=mix(plank, (30, 18, 10), rng.uniform(0.08, 0.3)), width=2)
        if rng.uniform() < 0.5:
            kx, ky = rng.uniform(0, _WALL), y + height / 2
            for radius in (26, 18, 9):
                ring = (kx - 1.7 * radius, ky - radius, kx + 1.7 * radius, ky + radius)
                draw.ellipse(ring, outline=mix(plank, (30, 18, 10), 0.5), width=3)
        draw.line((0, y, _WALL, y), fill=mix(color, (10, 5, 0), 0.7), width=4)
        y += height


def _lay_tiles(draw: ImageDraw.ImageDraw, color: Color, rng: np.random.Generator) -> None:
    size = int(rng.integers(110, 210))
    draw.rectangle((0, 0, _WALL, _WALL), fill=mix(color, (60, 60, 60), 0.35))
    for x in range(0, _WALL, size):
        for y in range(0, _WALL, size):
            shade = mix(color, (255, 255, 255), rng.uniform(0.05, 0.3))
            draw.rectangle((x + 4, y + 4, x + size - 4, y + size - 4), fill=shade)
            draw.line((x + 10, y + 10, x + size * 0.4, y + 10), fill=mix(shade, (255, 255, 255), 0.6), width=3)


def _scatter_clutter(wall: Image.Image, count: int, rng: np.random.Generator) -> None:
    import cv2

    for _ in range(count):
        item = pick(rng, (_leaflet, _leaflet, _sticker, _pencil, _cup, _ticket))(rng)
        angle = rng.uniform(-180, 180) if rng.uniform() < 0.3 else rng.uniform(-14, 14)
        item = item.rotate(angle, expand=True, resample=Image.Resampling.BILINEAR)
        x, y = (int(rng.integers(-item.width // 2, _WALL - item.width // 2)) for _ in range(2))
        alpha = np.pad(np.asarray(item.getchannel("A")) // 3, 12)
        shadow = Image.fromarray(cv2.blur(cv2.blur(alpha, (9, 9)), (9, 9)))
        wall.paste((20, 18, 16), (x - 6, y - 4), shadow)
        wall.paste(item, (x, y), item)


def _leaflet(rng: np.random.Generator) -> Image.Image:
    width, height = int(rng.integers(130, 260)), int(rng.integers(150, 300))
    palette = pick(rng, PALETTES)
    paper: Color = pick(rng, ((250, 248, 240), (255, 240, 160), (190, 226, 240), (244, 200, 206), palette[0]))
    item = Image.new("RGBA", (width, height), (*paper, 255))
    ink: Color = (40, 40, 48) if sum(paper) > 380 else (245, 245, 240)
    write_text(item, pick(rng, _words.HEADLINES), (14, 14, width - 14, 52), ink, bold=0.04)
    if rng.uniform() < 0.5:
        ImageDraw.Draw(item).rectangle((14, 64, width - 14, height * 0.5), fill=palette[int(rng.integers(2, 5))])
        write_paragraph(item, (14, height * 0.5 + 10, width - 14, height - 8), ink, rng, line_height=17)
    else:
        write_paragraph(item, (14, 64, width - 14, height - 8), ink, rng, line_height=17)
    return item


def _sticker(rng: np.random.Generator) -> Image.Image:
    size = int(rng.integers(60, 130))
    palette = pick(rng, PALETTES)
    item = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(item)
    for inset, color in ((0, palette[5]), (5, palette[2]), (size // 5, palette[3])):
        draw.ellipse((inset, inset, size - 1 - inset, size - 1 - inset), fill=(*color, 255))
    number = str(int(rng.integers(1, 99)))
    write_text(item, number, (size * 0.3, size * 0.32, size * 0.7, size * 0.68), palette[1], bold=0.05)
    return item


def _pencil(rng: np.random.Generator) -> Image.Image:
    length, width = int(rng.integers(220, 360)), 22
    color = pick(rng, ((226, 170, 40), (190, 50, 44), (40, 96, 150), (50, 50, 54)))
    item = Image.new("RGBA", (length, width), (0, 0, 0, 0))
    draw = ImageDraw.Draw(item)
    for row, share in enumerate((0.0, 0.25, 0.45)):
        fill = (*mix(color, (0, 0, 0), share), 255)
        draw.rectangle((26, row * width / 3, length - 36, (row + 1) * width / 3), fill=fill)
    draw.polygon([(length - 36, 0), (length, width / 2), (length - 36, width)], fill=(226, 196, 150, 255))
    draw.polygon(
        [(length - 10, width * 0.36), (length, width / 2), (length - 10, width * 0.64)], fill=(30, 30, 30, 255)
    )
    draw.rectangle((10, 0, 26, width), fill=(170, 170, 176, 255))
    draw.rounded_rectangle((0, 0, 12, width - 1), 5, fill=(220, 130, 136, 255))
    return item


def _cup(rng: np.random.Generator) -> Image.Image:
    size = int(rng.integers(120, 190))
    color = pick(rng, ((240, 238, 232), (60, 90, 120), (170, 70, 60), (86, 120, 90)))
    item = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(item)
    rings = (
        (0.0, mix(color, (0, 0, 0), 0.2)),
        (0.04, color),
        (0.12, mix(color, (0, 0, 0), 0.45)),
        (0.15, (62, 38, 24)),
    )
    for inset, shade in rings:
        edge = size * inset
        draw.ellipse((edge, edge, size - 1 - edge, size - 1 - edge), fill=(*shade, 255))
    draw.arc((size * 0.25, size * 0.25, size * 0.7, size * 0.7), 200, 260, fill=(160, 120, 90, 255), width=4)
    return item


def _ticket(rng: np.random.Generator) -> Image.Image:
    item = Image.new("RGBA", (230, 100), (*pick(rng, ((246, 226, 180), (222, 236, 214), (240, 240, 244))), 255))
    draw = ImageDraw.Draw(item)
    write_text(item, pick(rng, _words.PLACES), (12, 10, 150, 46), (50, 40, 40), bold=0.03, align="left")
    write_text(item, f"{int(rng.integers(10000, 99999))}", (12, 56, 150, 90), (150, 40, 40), align="left")
    write_barcode(draw, (160, 6, 224, 94), rng)
    return item


def _cast_shadow(
    canvas: NDArray[np.uint8], painted: PaintedObject, camera: Camera, depth: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Darken the surface under and beside the object; taller objects throw longer shadows."""
    import cv2

    width, height = (value / 2 for value in painted.front.size)
    reach = 10 + 0.75 * depth
    angle = rng.uniform(0.1, np.pi - 0.1)
    offset = reach * np.array([np.cos(angle), np.sin(angle)])
    outline = np.array([[-width, -height], [width, -height], [width, height], [-width, height]])
    points = np.array([[x + dx, y + dy, depth] for x, y in outline for dx, dy in ((0, 0), offset)])
    # A quarter of the resolution is enough for something this soft.
    quarter = (canvas.shape[1] // 4, canvas.shape[0] // 4)
    hull = cv2.convexHull((camera.project(points) * SUPERSAMPLING / 4).astype(np.float32))
    mask = np.zeros(quarter[::-1], dtype=np.float32)
    cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), 2.5 + reach / 18)
    mask = cv2.resize(mask, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    light = np.rint(255 * (1 - np.float32(rng.uniform(0.35, 0.6)) * mask)).astype(np.uint8)
    return cv2.multiply(canvas, cv2.merge([light] * 3), scale=1 / 255)


def _twig(layer: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(layer)
    width, height = layer.size
    x, y = width * float(rng.integers(2)), height * rng.uniform(0, 1)
    heading = np.arctan2(height / 2 - y, width / 2 - x) + rng.uniform(-0.5, 0.5)
    green = pick(rng, ((46, 84, 44), (74, 104, 50), (112, 92, 40)))
    for _ in range(int(rng.integers(7, 12))):
        step = width * 0.035
        nx, ny = x + step * np.cos(heading), y + step * np.sin(heading)
        draw.line((x, y, nx, ny), fill=(70, 54, 38, 255), width=5)
        for side in (-1, 1):
            t = np.linspace(0, 2 * np.pi, 20)
            size, turn = width * rng.uniform(0.025, 0.042), heading + side * rng.uniform(0.6, 1.2)
            px, py = size * (1 + np.cos(t)), 0.42 * size * np.sin(t)
            leaf = np.stack([px, py], axis=1) @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + (nx, ny)
            draw.polygon(leaf.ravel().tolist(), fill=(*mix(green, (200, 220, 140), rng.uniform(0, 0.3)), 255))
        x, y, heading = nx, ny, heading + rng.uniform(-0.25, 0.25)


def _pole(layer: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(layer)
    width, height = layer.size
    x, lean, half = width * rng.uniform(0.1, 0.9), width * rng.uniform(-0.06, 0.06), width * rng.uniform(0.012, 0.026)
    color = pick(rng, ((70, 74, 78), (150, 152, 150), (120, 84, 50), (40, 60, 50)))
    for share, light in ((1.0, 0.0), (0.6, 0.15), (0.25, 0.3)):
        part = [
            (x - share * half, -9),
            (x + share * half, -9),
            (x + lean + share * half, height),
            (x + lean - share * half, height),
        ]
        draw.polygon(part, fill=(*mix(color, (255, 255, 255), light), 255))


def _note(layer: Image.Image, rng: np.random.Generator) -> None:
    width, height = layer.size
    size = int(width * rng.uniform(0.09, 0.14))
    paper = pick(rng, ((255, 236, 110), (255, 170, 190), (150, 226, 236), (196, 240, 140)))
    item = Image.new("RGBA", (size, size), (*paper, 255))
    write_paragraph(item, (5, 7, size - 4, size - 3), (60, 60, 70), rng, line_height=13)
    item = item.rotate(float(rng.uniform(-25, 25)), expand=True, resample=Image.Resampling.BICUBIC)
    layer.paste(item, (int(width * rng.uniform(0.15, 0.75)), int(height * rng.uniform(0.15, 0.7))))
