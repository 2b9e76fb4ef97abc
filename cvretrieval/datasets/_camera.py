"""The camera of `make_scenes`: where it stands, what it sees, and what its lens and sensor do to the picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvretrieval.datasets._solids import ART_SCALE, Face, PaintedObject

Transform = NDArray[np.float64]

#: Pictures are composed this many times larger and then averaged down: the pixels of a sensor are areas.
SUPERSAMPLING = 2

#: Radians between the optical axis and the wall's normal: further on, the horizon would come into the picture.
_GREATEST_TILT = np.deg2rad(52)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in front of an object.

    Attributes
    ----------
    matrix : ndarray of shape (3, 4)
        Maps homogeneous points of the object to pixels, centre of the top-left pixel at (0, 0).
    rotation : ndarray of shape (3, 3)
        From the object's axes to the camera's.
    size : tuple of int
        Width and height of the picture.
    """

    matrix: Transform
    rotation: Transform
    size: tuple[int, int]

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project points (n, 3) of the object to pixels (n, 2)."""
        projected = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        return projected[:, :2] / projected[:, 2:]

    def homography(self, face: Face) -> Transform:
        """Map pixels of a face, at the size of the reference image, to pixels of the picture; last element 1."""
        # Pixel (0, 0) of the face has its centre half a pixel inside the corner.
        corner = np.array(face.corner) + 0.5 * np.array(face.right) + 0.5 * np.array(face.down)
        columns = [self.matrix[:, :3] @ np.array(axis) for axis in (face.right, face.down)]
        transform = np.column_stack([*columns, self.matrix[:, :3] @ corner + self.matrix[:, 3]])
        return transform / transform[2, 2]

    def sees(self, face: Face) -> bool:
        """Whether the painted side of a face looks at the camera."""
        return float(np.linalg.det(self.homography(face)[:2, :2])) > 0


def place_camera(painted: PaintedObject, size: tuple[int, int], difficulty: float, rng: np.random.Generator) -> Camera:
    """Stand somewhere in front of an object, so that most of it is in the picture.

    The object is turned about its own axes (yaw up to 12 to 60 degrees, pitch up to 8 to 48, roll up to 6 to 70 with
    difficulty), covers 45 to 95 % of the picture's height or width, and lies off the centre.
    """
    yaw = np.deg2rad(12 + 48 * difficulty) * rng.uniform(-1, 1)
    pitch = np.deg2rad(8 + 40 * difficulty) * rng.uniform(-0.6, 1)
    roll = np.deg2rad(6 + 64 * difficulty**2) * rng.uniform(-1, 1)
    while np.cos(yaw) * np.cos(pitch) < np.cos(_GREATEST_TILT):
        yaw, pitch = 0.95 * yaw, 0.95 * pitch
    rotation = _rotate(2, roll) @ _rotate(0, pitch) @ _rotate(1, yaw)
    width, height = size
    focal = max(size) * rng.uniform(1.1, 1.6)
    intrinsic = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    corners = _corners(painted)
    share = rng.uniform(0.95 - 0.5 * difficulty, 0.95 - 0.1 * difficulty)
    distance = 4.0 * float(np.abs(corners).max())
    for _ in range(8):
        # Perspective makes the extent depend on the distance, so the wanted size is reached in steps.
        placed = _move(intrinsic, rotation, np.array([0.0, 0.0, distance]))
        extent = np.ptp(Camera(placed, rotation, size).project(corners), axis=0) / size
        distance *= float(extent.max()) / share
    pixels = Camera(placed, rotation, size).project(corners)
    # Where the object may slide without leaving the picture, and a little beyond when it is hard.
    spill = 0.08 * difficulty
    room = np.maximum(np.array(size) * (0.5 + spill) - np.ptp(pixels, axis=0) / 2, 0)
    target = np.array([(width - 1) / 2, (height - 1) / 2]) + room * rng.uniform(-0.9, 0.9, 2)
    shift = (target - (pixels.max(axis=0) + pixels.min(axis=0)) / 2) / focal * distance
    return Camera(_move(intrinsic, rotation, np.array([*shift, distance])), rotation, size)


def paste_face(canvas: NDArray[np.uint8], camera: Camera, face: Face, shade: float) -> None:
    """Paint a face, as the camera sees it, into a supersampled canvas.

    Parameters
    ----------
    canvas : ndarray of shape (height * SUPERSAMPLING, width * SUPERSAMPLING, 3)  # OUT
    shade : float
        Factor on the colours.
    """
    import cv2

    transform = scale_pixels(SUPERSAMPLING) @ camera.homography(face) @ np.linalg.inv(scale_pixels(ART_SCALE))
    art = face.art
    corners = _apply(transform, np.array([[0, 0], [art.shape[1], 0], art.shape[1::-1], [0, art.shape[0]]], float))
    magnification = np.sqrt(_area(corners) / (art.shape[0] * art.shape[1]))
    if magnification < 0.9:
        sigma = 0.45 * np.sqrt(1 / magnification**2 - 1)
        art = cv2.GaussianBlur(art, (5, 5), sigma)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, canvas.shape[1::-1])
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 3, 0, canvas.shape[1::-1])
    if (high <= low).any():
        return
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    local = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1.0]]) @ transform
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    warped = cv2.warpPerspective(art, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    colors = cv2.convertScaleAbs(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), alpha=shade)
    alpha = cv2.extractChannel(warped, 3)
    below = canvas[window].copy()
    edge = (alpha > 0) & (alpha < 255)
    weight = alpha[edge][:, None].astype(np.float32) / np.float32(255)
    # Outside of the art everything is 0, so colours at its edge come multiplied by their coverage.
    blended = np.rint(below[edge] * (1 - weight) + colors[edge]).clip(0, 255)
    below = cv2.copyTo(colors, cv2.compare(alpha, 255, cv2.CMP_EQ), below)
    below[edge] = blended.astype(np.uint8)
    canvas[window] = below


def develop(canvas: NDArray[np.uint8], difficulty: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn a supersampled canvas into a photograph: averaging, light, blur, noise, JPEG.

    In this order: mean over the sensor's pixels; defocus or motion blur; uneven light and vignetting; gain, bias and
    white balance; gamma; noise; rounding; JPEG compression and decoding.
    """
    import cv2

    height, width = (side // SUPERSAMPLING for side in canvas.shape[:2])
    image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    blur = rng.uniform(0, 0.3 + 1.5 * difficulty)
    if rng.uniform() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), max(0.2, 0.7 * blur))
    else:
        image = cv2.filter2D(image, -1, _motion_kernel(1 + 2.2 * blur, rng.uniform(0, np.pi)))
    image *= _uneven_light((height, width), difficulty, rng)[:, :, None]
    gain = np.exp(rng.uniform(-0.45, 0.25) * (0.3 + difficulty))
    balance = np.exp(rng.uniform(-0.14, 0.14) * (0.3 + difficulty) * np.array([1, 0.15, -1]))
    bias = rng.uniform(-0.02, 0.06) * (0.3 + difficulty)
    image = np.clip(image * (gain * balance).astype(np.float32) + np.float32(bias), 0, 1)
    image = cv2.pow(image, float(np.exp(rng.uniform(-0.35, 0.35) * difficulty)))
    sigma = rng.uniform(0.002, 0.006 + 0.022 * difficulty)
    image += _sensor_noise((height, width), rng) * (np.float32(sigma) * (np.float32(0.6) + np.float32(0.8) * image))
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return _compress(pixels, int(rng.integers(round(88 - 40 * difficulty), 95)))


def scale_pixels(factor: int) -> Transform:
    """Map pixels of an image to those of the same image enlarged: edges stay, centres move by half a pixel."""
    return np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1.0]])


def _corners(painted: PaintedObject) -> NDArray[np.float64]:
    corners = []
    for face in painted.faces:
        width, height = face.size
        for x, y in ((0, 0), (width, 0), (width, height), (0, height)):
            corners.append(np.array(face.corner) + x * np.array(face.right) + y * np.array(face.down))
    return np.array(corners)


def _rotate(axis: int, angle: float) -> Transform:
    first, second = ((1, 2), (2, 0), (0, 1))[axis]
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[second, first] = np.sin(angle)
    rotation[first, second] = -np.sin(angle)
    return rotation


def _move(intrinsic: Transform, rotation: Transform, translation: NDArray[np.float64]) -> Transform:
    return intrinsic @ np.column_stack([rotation, translation])


def _apply(transform: Transform, points: NDArray[np.float64]) -> NDArray[np.float64]:
    mapped = points @ transform[:, :2].T + transform[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def _area(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _motion_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """A line through the middle, drawn as a row of dots with soft edges."""
    radius = int(np.ceil(length / 2)) + 1
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(-x * np.sin(angle) + y * np.cos(angle))
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def _uneven_light(shape: tuple[int, int], difficulty: float, rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + np.float32(rng.uniform(0, 0.1 + 0.4 * difficulty)) * (x * np.cos(angle) + y * np.sin(angle)) / 1.4
    light *= 1 - np.float32(rng.uniform(0.02, 0.1 + 0.12 * difficulty)) * (x**2 + y**2) / 2
    if rng.uniform() < 0.5 * difficulty:
        # A lamp's reflection.
        cx, cy, spread = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), rng.uniform(0.15, 0.4)
        light += np.float32(rng.uniform(0.15, 0.6)) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2))
    return light.astype(np.float32)


def _sensor_noise(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit noise, fine in brightness and coarse in colour, as demosaicing leaves it."""
    import cv2

    brightness = rng.standard_normal(shape, dtype=np.float32)
    color = rng.standard_normal((shape[0] // 2 + 1, shape[1] // 2 + 1, 3), dtype=np.float32)
    color = cv2.resize(color, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.float32(0.8) * (brightness[:, :, None] + color)


def _compress(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer), dtype=np.uint8)
