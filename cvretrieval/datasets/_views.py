"""One photograph of an object, from the empty wall to the compressed picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvretrieval.datasets._camera import Camera, Transform, develop, paste_face, place_camera
from cvretrieval.datasets._solids import Face, PaintedObject
from cvretrieval.datasets._surroundings import paint_surroundings, put_in_the_way


def photograph(
    painted: PaintedObject, size: tuple[int, int], difficulty: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Transform]:
    """Photograph an object and return the picture and the homography from its reference image.

    Parameters
    ----------
    size : tuple of 2 int
        Width and height of the picture.
    difficulty : float
        From 0 to 1.
    """
    camera = place_camera(painted, size, difficulty, rng)
    canvas = paint_surroundings(painted, camera, difficulty, rng)
    light = rng.uniform(-1, 1, 3) * (0.9, 0.7, 0) + (0, -0.3, -1.2)
    light /= np.linalg.norm(light)
    for face in painted.faces[::-1]:
        if camera.sees(face):
            paste_face(canvas, camera, face, _shade(camera, face, light))
    canvas = put_in_the_way(canvas, difficulty, rng)
    return develop(canvas, difficulty, rng), camera.homography(painted.front)


def _shade(camera: Camera, face: Face, light: NDArray[np.float64]) -> float:
    """Lambert's cosine with some light from everywhere; `light` points from the object to the lamp."""
    normal = camera.rotation @ np.cross(face.down, face.right)
    return 0.5 + 0.55 * max(0.0, float(normal @ light))
