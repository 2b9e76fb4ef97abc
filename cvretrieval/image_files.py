"""Finding the image files under folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cvretrieval._validation import ImageReadError

#: Files with these suffixes are taken for images when a folder is listed. HEIC needs the pillow-heif plugin: without
#: it such a file is reported as unreadable rather than passed over.
IMAGE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "tif", "tiff", "webp"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "avif", "heic", "heif"),
    )
)


def find_images(folder: str | os.PathLike[str], on_error: Callable[[ImageReadError], None] | None = None) -> list[Path]:
    """List the image files under a folder, sorted by path.

    Parameters
    ----------
    folder : path
        Searched with all its sub-folders. Hidden files and folders are left out; symbolic links are followed, each
        folder once, so loops end.
    on_error : callable, optional
        Called with an `ImageReadError` for each folder that cannot be listed; without it the error is raised.

    Returns
    -------
    list of Path
        Files with one of `IMAGE_SUFFIXES`, dangling links among them: reading them will say so.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageReadError(str(root), "is not a folder" if root.exists() else "does not exist")

    def report(error: OSError) -> None:
        problem = ImageReadError(str(error.filename), f"cannot be listed ({error.strerror})")
        if on_error is None:
            raise problem
        on_error(problem)

    return sorted(_walk(root, report))


def collect_images(
    sources: Sequence[str | os.PathLike[str]], on_error: Callable[[ImageReadError], None] | None = None
) -> list[tuple[Path, Path]]:
    """Expand files and folders into image files, each with the folder it was found under.

    Returns
    -------
    list of (root, file)
        For a file given by itself the root is its parent folder. A file reached twice is listed once.
    """
    found: dict[Path, Path] = {}
    for source in map(Path, sources):
        if source.is_dir():
            for file in find_images(source, on_error):
                found.setdefault(file, source)
        else:
            found.setdefault(source, source.parent)
    return [(root, file) for file, root in found.items()]


def _walk(root: Path, report: Callable[[OSError], None]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=report):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            file = Path(folder, name)
            if name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if file.is_file() or file.is_symlink():  # not a pipe or a device, which would block
                yield file
