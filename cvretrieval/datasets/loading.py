"""Telling the form of a data set from its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from cvretrieval._validation import check_flag
from cvretrieval.datasets.benchmarks.forms import BENCHMARK_FORMS, find_benchmark, load_benchmark
from cvretrieval.datasets.dataset import RetrievalDataset
from cvretrieval.datasets.folders import folder_per_class, groups_of_n, query_reference
from cvretrieval.datasets.ground_truth_csv import csv_ground_truth, database_folder
from cvretrieval.images import find_images

QUERY_NAMES = ("queries", "query")
CSV_NAME = "ground_truth.csv"

#: form → what the folder must look like, for help texts and messages.
FORMS = {
    "csv": f"{CSV_NAME} with the columns query, relevant[, junk, hard, box]",
    "query_reference": "sub-folders queries/ and reference/ (or database/), files paired by name; "
    "query_reference:NAME takes the queries from the sub-folder NAME",
    "folder_per_class": "one sub-folder per class, every image a query",
    "groups_of_4": "groups of 4 (or any number) in the order of the file names; never guessed, name it",
}


def load_dataset(
    path: str | os.PathLike[str], form: str | Any | None = None, *, complete: bool = True
) -> RetrievalDataset:
    """Load a labelled set of images.

    Parameters
    ----------
    path : path
        Folder of the data set, or a CSV file.
    form : str or protocol, optional
        One of `FORMS`; or a public set in its official layout: one of `BENCHMARK_FORMS`, ``copydays:ATTACK``,
        ``vpr:25m``, the name of a protocol of theirs (``"roxford"``, ``"holidays-upright"``) or a protocol (anything
        with an attribute ``form``). By default it is told from the folder: ``ground_truth.csv``, else sub-folders for
        queries and references, else sub-folders with images as classes.
    complete : bool, default=True
        For public sets, whether counts must be right and no image missing; False takes what there is.

    Returns
    -------
    RetrievalDataset
        Its `form` says what was found.

    Raises
    ------
    ValueError
        If the folder has none of the forms, with the list of them; or if something of a public set is missing, with
        the address where it is to be had.
    """
    check_flag("load_dataset", "complete", complete)
    root = Path(path)
    form = form if form is None or isinstance(form, str) else form.form
    benchmark = None if form is None else find_benchmark(form.partition("@")[0])
    if benchmark is not None:
        return load_benchmark(root, benchmark, complete=complete)
    if root.is_file() and form in (None, "csv"):
        return csv_ground_truth(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder." if root.exists() else f"{root} does not exist.")
    if form is None:
        form = _detect_form(root)
    groups = re.fullmatch(r"groups_of_(\d+)", form)
    if groups:
        return groups_of_n(root, int(groups[1]))
    if form == "csv":
        if not (root / CSV_NAME).is_file():
            raise ValueError(f"{root} has no {CSV_NAME}.")
        return csv_ground_truth(root / CSV_NAME)
    if form == "folder_per_class":
        return folder_per_class(root)
    name, _, queries = form.partition(":")
    if name == "query_reference":
        return query_reference(*_find_pair(root, queries))
    known = (*FORMS, *BENCHMARK_FORMS, "copydays:strong", "vpr:25m")
    raise ValueError(f"There is no form {form!r}. Known: {', '.join(known)}.")


def _detect_form(root: Path) -> str:
    if (root / CSV_NAME).is_file():
        return "csv"
    if database_folder(root) is not None or _query_folder(root) is not None:
        return "query_reference"
    files = find_images(root)
    if files and all(file.parent != root for file in files):
        return "folder_per_class"
    found = f"{len(files)} images" if files else "no images"
    forms = "\n".join(f"  {form}: {description}" for form, description in FORMS.items())
    raise ValueError(f"{root} has {found} but none of the known forms:\n{forms}")


def _query_folder(root: Path) -> Path | None:
    found = [child for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() in QUERY_NAMES]
    return found[0] if found else None


def _find_pair(root: Path, queries: str) -> tuple[Path, Path]:
    reference = database_folder(root)
    query = root / queries if queries else _query_folder(root)
    if reference is None or query is None:
        missing = "reference (or references, database)" if reference is None else "queries"
        others = sorted(child.name for child in root.iterdir() if child.is_dir() and child != reference)
        hint = f" Its queries are in another sub-folder? Name it: form='query_reference:{others[0]}'." if others else ""
        raise ValueError(f"{root} has no sub-folder {missing}.{hint if query is None else ''}")
    return query, reference
