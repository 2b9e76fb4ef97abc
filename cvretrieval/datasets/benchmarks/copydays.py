"""INRIA Copydays: copies of photographs under attacks of growing strength."""

from __future__ import annotations

import re
from pathlib import Path

from cvretrieval.datasets.benchmarks.distractors import with_distractors
from cvretrieval.datasets.benchmarks.public_set import Folder, Labels, PublicSet, make_dataset
from cvretrieval.datasets.dataset import Query, RetrievalDataset

COPYDAYS = PublicSet(
    "Copydays",
    "a folder original/ (or the originals themselves) beside strong/, jpegqual/3/ to jpegqual/75/ and crops/10/ to "
    "crops/80/.",
    "https://thoth.inrialpes.fr/~jegou/data.php.html (copydays_original.tar.gz, _strong, _jpeg, _crop; "
    "datasets.fetch_copydays brings the first two).",
)


def load_copydays(
    path: Folder, attack: str = "strong", *, distractors: Folder | None = None, complete: bool = True
) -> RetrievalDataset:
    """Load one attack of Copydays: attacked images are searched among the 157 originals.

    Parameters
    ----------
    path : path
        Folder with ``original`` (or the originals themselves) and the folders of the attacks.
    attack : str, default="strong"
        ``"strong"`` (229 images: print and scan, paint, blur, …), ``"jpeg3"`` to ``"jpeg75"`` (quality), ``"crop10"``
        to ``"crop80"`` (percent cut away); 157 images each.
    distractors : path, optional
        Folder of 10,000 images that are added to the originals.
    complete : bool, default=True
        See `load_oxford5k`.

    Returns
    -------
    RetrievalDataset
        Ids are paths under `path`, e.g. ``original/200000.jpg``. The first four digits of a name say what is relevant.
        Measured with ``copydays-strong`` and so on.

    References
    ----------
    M. Douze, H. Jégou, H. Sandhawalia, L. Amsaleg and C. Schmid. Evaluation of GIST descriptors for web-scale image
    search. CIVR 2009.
    """
    root = COPYDAYS.root(path)
    folder = COPYDAYS.folder(root, _attack_folder(attack))
    originals = root / "original" if (root / "original").is_dir() else root
    # Without a folder of their own the originals lie beside the folders of the attacks.
    files = [file for file in COPYDAYS.images(originals) if originals != root or file.parent == root]
    database = {file.relative_to(root).as_posix(): file for file in files}
    by_group: dict[str, set[str]] = {}
    for name, file in database.items():
        by_group.setdefault(_group(file), set()).add(name)
    twice = next((sorted(names) for names in by_group.values() if len(names) > 1), None)
    if twice:
        raise COPYDAYS.error(f"{twice[0]} and {twice[1]} are originals of one group.")
    queries = []
    for file in COPYDAYS.images(folder):
        relevant = by_group.get(_group(file), set())
        if relevant:
            queries.append(Query(file.relative_to(root).as_posix(), file, frozenset(relevant)))
        elif complete:
            raise COPYDAYS.error(f"{file} has no original {_group(file)}00.jpg (complete=False leaves it out).")
    labels = Labels(
        database, queries, f"copydays:{attack}", (f"copydays-{attack}",), 157, 229 if attack == "strong" else 157
    )
    dataset = make_dataset(COPYDAYS, labels, complete=complete)
    if distractors is None:
        return dataset
    return with_distractors(dataset, distractors, "10k", (f"copydays-{attack}+10k",), complete=complete)


def _attack_folder(attack: str) -> str:
    if attack == "strong":
        return "strong"
    named = re.fullmatch(r"(jpeg|crop)(\d+)", attack)
    if not named:
        raise ValueError(
            f"The 'attack' parameter of load_copydays must be 'strong', 'jpeg75' or 'crop80' (other numbers likewise). "
            f"Got {attack!r} instead."
        )
    return f"{'jpegqual' if named[1] == 'jpeg' else 'crops'}/{named[2]}"


def _group(file: Path) -> str:
    if not (len(file.stem) == 6 and file.stem.isdecimal()):
        raise COPYDAYS.error(f"{file} is not named by six digits.")
    return file.stem[:4]
