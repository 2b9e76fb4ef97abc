"""The forms of the public sets, by the name that a protocol gives: one table from form to loader."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cvretrieval.datasets.benchmarks.buildings import load_oxford5k, load_paris6k
from cvretrieval.datasets.benchmarks.copydays import load_copydays
from cvretrieval.datasets.benchmarks.distractors import find_distractors
from cvretrieval.datasets.benchmarks.fine_grained import load_cars196, load_cub200
from cvretrieval.datasets.benchmarks.holidays import load_holidays
from cvretrieval.datasets.benchmarks.places import load_places
from cvretrieval.datasets.benchmarks.products import load_inshop, load_sop
from cvretrieval.datasets.benchmarks.revisited import load_roxford5k, load_rparis6k
from cvretrieval.datasets.benchmarks.smvs import load_smvs
from cvretrieval.datasets.benchmarks.street_view import load_pitts30k, load_pitts250k, load_tokyo247
from cvretrieval.datasets.benchmarks.ukbench import load_ukbench
from cvretrieval.datasets.dataset import RetrievalDataset


@dataclass(frozen=True)
class BenchmarkForm:
    """How a public set is loaded, and what it is measured with.

    Attributes
    ----------
    load : callable
        Takes the folder and ``complete=``.
    protocols : tuple of str
        Beginnings of the names of its protocols, besides the form itself.
    distractors : str or None
        Key of `DISTRACTORS`, for sets with them.
    """

    load: Callable[..., RetrievalDataset]
    protocols: tuple[str, ...] = ()
    distractors: str | None = None


def _revisited(key: str, suffix: str = "") -> tuple[str, ...]:
    return (f"{key}{suffix}", *(f"{key}-{difficulty}{suffix}" for difficulty in ("easy", "medium", "hard")))


#: form → how it is loaded; `copydays:ATTACK` and `vpr:RADIUS` beside these.
BENCHMARK_FORMS = {
    "oxford5k": BenchmarkForm(load_oxford5k, ("oxford5k-full",)),
    "oxford5k+100k": BenchmarkForm(load_oxford5k, ("oxford105k",), "100k"),
    "paris6k": BenchmarkForm(load_paris6k, ("paris6k-full",)),
    "paris6k+100k": BenchmarkForm(load_paris6k, ("paris106k",), "100k"),
    "roxford5k": BenchmarkForm(load_roxford5k, _revisited("roxford")),
    "roxford5k+1m": BenchmarkForm(load_roxford5k, _revisited("roxford", "+1m"), "1m"),
    "rparis6k": BenchmarkForm(load_rparis6k, _revisited("rparis")),
    "rparis6k+1m": BenchmarkForm(load_rparis6k, _revisited("rparis", "+1m"), "1m"),
    "holidays": BenchmarkForm(load_holidays),
    "holidays:upright": BenchmarkForm(partial(load_holidays, upright=True), ("holidays-upright",)),
    "ukbench": BenchmarkForm(load_ukbench),
    "cub200": BenchmarkForm(load_cub200),
    "cub200:cropped": BenchmarkForm(partial(load_cub200, cropped=True), ("cub200-cropped",)),
    "cars196": BenchmarkForm(load_cars196),
    "cars196:cropped": BenchmarkForm(partial(load_cars196, cropped=True), ("cars196-cropped",)),
    "sop": BenchmarkForm(load_sop),
    "inshop": BenchmarkForm(load_inshop),
    "pitts30k": BenchmarkForm(load_pitts30k),
    "pitts250k": BenchmarkForm(load_pitts250k),
    "tokyo247": BenchmarkForm(load_tokyo247),
    "smvs": BenchmarkForm(load_smvs, ("smvs-map",)),
}


def find_benchmark(name: str) -> BenchmarkForm | None:
    """Return how a form is loaded; the name of a protocol stands for its form. None if there is no such form."""
    if name in BENCHMARK_FORMS:
        return BENCHMARK_FORMS[name]
    copies = re.fullmatch(r"copydays[:-](strong|jpeg\d+|crop\d+)(\+10k)?", name)
    if copies:
        return BenchmarkForm(partial(load_copydays, attack=copies[1]), (), "10k" if copies[2] else None)
    places = re.fullmatch(r"vpr[:-](?:(\d+(?:\.\d+)?)m|(\d+)frames)(-panorama)?", name)
    if places:
        radius: Any = float(places[1]) if places[1] else int(places[2])
        load = partial(load_places, radius=radius, unit="metres" if places[1] else "frames")
        return BenchmarkForm(lambda path, complete=True: load(path))
    for form in BENCHMARK_FORMS.values():
        if name in form.protocols:
            return form
    return None


def load_benchmark(path: Path, form: BenchmarkForm, *, complete: bool) -> RetrievalDataset:
    """Load a public set, with the distractors that lie in its folder or beside it where its form has some."""
    if form.distractors is None or not path.is_dir():
        return form.load(path, complete=complete)
    return form.load(path, distractors=find_distractors(path, form.distractors), complete=complete)
