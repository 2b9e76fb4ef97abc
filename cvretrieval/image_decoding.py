"""Decoding with Pillow: any accepted source to an upright 8-bit image, any failure to one error."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvretrieval._validation import ImageReadError, describe_array
from cvretrieval.remote_files import is_url, read_url

Box = tuple[float, float, float, float]


class ImageRegion(NamedTuple):
    """A region of an image, accepted wherever an image is.

    Attributes
    ----------
    source : str (path or URL), PathLike, binary file object, PIL image or ndarray
    box : tuple of 4 floats
        x1, y1, x2, y2: left, top, right and bottom edge in pixels of the original image.
    """

    source: Any
    box: Box


def describe_source(source: Any) -> str:
    """Name an image in a message: its path, or what kind of object it is."""
    if isinstance(source, ImageRegion):
        return describe_source(source.source)
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, np.ndarray):
        return f"<{describe_array(source)}>"
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return str(name) if isinstance(name, (str, os.PathLike)) and name else f"<{type(source).__name__}>"


@contextmanager
def as_read_error(name: str) -> Iterator[None]:
    """Turn everything that Pillow and the file system raise for a bad file into `ImageReadError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except ImageReadError:
        raise
    except UnidentifiedImageError:
        hint = " (HEIC images need the pillow-heif package)" if name.lower().endswith((".heic", ".heif")) else ""
        raise ImageReadError(name, f"is not an image of a known format{hint}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageReadError(name, _size_reason(str(error))) from error
    except OSError as error:
        raise ImageReadError(name, _os_reason(error)) from error
    except (SyntaxError, EOFError, IndexError, KeyError, OverflowError, ValueError, ArithmeticError) as error:
        # Pillow's plugins raise these for damaged files.
        raise ImageReadError(name, f"is damaged ({error})") from error
    except MemoryError as error:
        raise ImageReadError(name, "does not fit into memory") from error


def _size_reason(text: str) -> str:
    """Say what Pillow says without its suspicion: most large images are scans and panoramas."""
    sizes = re.findall(r"\d+", text)
    return f"has {sizes[0]} pixels, more than the {sizes[1]} that can be read" if len(sizes) == 2 else text


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "cannot be opened (permission denied)"
    if error.strerror:
        return f"cannot be opened ({error.strerror})"
    return f"is damaged ({error})"


@contextmanager
def open_image(source: Any) -> Iterator[Any]:
    """Open any accepted source as a lazily decoded PIL image."""
    from PIL import Image

    if isinstance(source, np.ndarray):
        yield _from_array(source)
    elif isinstance(source, Image.Image):
        # A copy: decoding and drafting would change the caller's image.
        yield source.copy()
    elif is_url(source):
        data = read_url(source)
        if not data:
            raise ImageReadError(source, "is empty (0 bytes)")
        with Image.open(io.BytesIO(data)) as image:
            yield image
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageReadError(str(path), "is a folder; list the images in it with cvretrieval.images.find_images")
        if not stat.S_ISREG(status.st_mode):
            raise ImageReadError(str(path), "is not a regular file")
        if status.st_size == 0:
            raise ImageReadError(str(path), "is empty (0 bytes)")
        with Image.open(path) as image:
            yield image
    elif hasattr(source, "read"):
        # Left where it stood: a network and SIFT each read the same query.
        start = source.tell() if hasattr(source, "seekable") and source.seekable() else None
        data = source.read()
        if start is not None:
            source.seek(start)
        if not isinstance(data, bytes):
            raise TypeError("An image file object must be opened in binary mode ('rb').")
        if not data:
            raise ImageReadError(describe_source(source), "is empty (0 bytes)")
        with Image.open(io.BytesIO(data)) as image:
            yield image
    else:
        raise TypeError(
            "An image must be a path, a binary file object, a PIL image or a uint8 / uint16 / bool / float array. "
            f"Got {type(source).__name__} instead."
        )


def _from_array(array: NDArray[Any]) -> Any:
    from PIL import Image

    name = describe_source(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageReadError(name, "has not the shape of an image: (height, width), (height, width, 3) or (…, 4)")
    if array.size == 0:
        raise ImageReadError(name, "has no pixels")
    return Image.fromarray(_to_uint8(name, array))


def _to_uint8(name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    """Apply the range rule of the class docstring."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        return (array / 257.0 + 0.5).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageReadError(name, "contains NaN or infinite pixels")
        if low < 0 or high > 1:
            raise ImageReadError(
                name, f"has float pixels in [{low:g}, {high:g}], but floats must lie in [0, 1]; divide or use uint8"
            )
        return (array * 255.0 + 0.5).astype(np.uint8)
    raise ImageReadError(name, "has a wrong dtype: use uint8, uint16, bool or floats in [0, 1]")


def orientation_of(image: Any) -> int:
    """Return the orientation that EXIF records, 1 to 8; 1 (upright) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block must not cost the picture; Pillow raises many types here
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_upright(image: Any, orientation: int, background: tuple[int, int, int], mode: str) -> Any:
    """Return an upright 8-bit image of mode L or RGB."""
    from PIL import Image
    from PIL.Image import Transpose

    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        array = np.asarray(image)
        if image.mode == "F":
            array = array.astype(np.float32)
        elif array.min() >= 0 and array.max() <= 65535:
            array = array.astype(np.uint16)
        image = Image.fromarray(_to_uint8(describe_source(image), array))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*background, 255))
        canvas.alpha_composite(image)
        image = canvas.convert("RGB")
    if image.mode != mode:
        image = image.convert("RGB") if image.mode not in ("L", "RGB", "1") else image
        image = image.convert(mode)
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)
