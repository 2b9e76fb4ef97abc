"""Labelled images for recognition: one sub-folder per class."""

from __future__ import annotations

import os
from pathlib import Path

from cvretrieval._validation import check_number
from cvretrieval.images import find_images


def load_class_folders(path: str | os.PathLike[str], *, min_classes: int = 2) -> tuple[list[Path], list[str]]:
    """List images that are sorted into one sub-folder per class.

    Parameters
    ----------
    path : path
        Its sub-folders are the classes, named after them; images may lie deeper. Hidden folders are passed over.
    min_classes : int, default=2
        Fewer are an error.

    Returns
    -------
    files : list of Path
        Sorted by class, then by name.
    labels : list of str
        The class of each.

    Raises
    ------
    ValueError
        If there are too few classes, a class folder holds no image, or images lie beside the class folders.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from cvretrieval.datasets import load_class_folders
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("coast/1.jpg", "coast/2.jpg", "forest/1.jpg"):
    ...         (pathlib.Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         (pathlib.Path(folder) / name).touch()
    ...     load_class_folders(folder)[1]
    ['coast', 'coast', 'forest']
    """
    check_number("load_class_folders", "min_classes", min_classes, low=1, integer=True)
    root = Path(path)
    if not root.is_dir():
        raise ValueError(
            f"{root} {'is a file' if root.exists() else 'does not exist'}; name a folder of class folders."
        )
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files: list[Path] = []
    labels: list[str] = []
    empty = []
    for folder in folders:
        found = find_images(folder)
        files += found
        labels += [folder.name] * len(found)
        if not found:
            empty.append(folder.name)
    beside = sorted(set(find_images(root)) - set(files))
    if beside:
        raise ValueError(f"{beside[0]} lies beside the class folders; move it into the folder of its class.")
    if empty:
        raise ValueError(f"{root} has class folders without images: {', '.join(empty)}. Fill or remove them.")
    if len(folders) < min_classes:
        raise ValueError(
            f"{root} has {len(folders)} class folder{'s' if len(folders) != 1 else ''}; at least {min_classes} "
            f"{'are' if min_classes > 1 else 'is'} needed, one for each class, with its images in it."
        )
    return files, labels
