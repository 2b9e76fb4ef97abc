"""The public benchmarks in their official layouts on disk."""

from cvretrieval.datasets.benchmarks.buildings import load_oxford5k, load_paris6k
from cvretrieval.datasets.benchmarks.copydays import load_copydays
from cvretrieval.datasets.benchmarks.fine_grained import load_cars196, load_cub200
from cvretrieval.datasets.benchmarks.forms import BENCHMARK_FORMS
from cvretrieval.datasets.benchmarks.holidays import load_holidays, read_rotations, turn_upright
from cvretrieval.datasets.benchmarks.places import load_places
from cvretrieval.datasets.benchmarks.plain_pickle import read_plain_pickle
from cvretrieval.datasets.benchmarks.products import load_inshop, load_sop
from cvretrieval.datasets.benchmarks.revisited import load_roxford5k, load_rparis6k
from cvretrieval.datasets.benchmarks.smvs import load_smvs
from cvretrieval.datasets.benchmarks.street_view import load_pitts30k, load_pitts250k, load_tokyo247
from cvretrieval.datasets.benchmarks.ukbench import load_ukbench

__all__ = [
    "BENCHMARK_FORMS",
    "load_cars196",
    "load_copydays",
    "load_cub200",
    "load_holidays",
    "load_inshop",
    "load_oxford5k",
    "load_paris6k",
    "load_pitts30k",
    "load_pitts250k",
    "load_places",
    "load_roxford5k",
    "load_rparis6k",
    "load_smvs",
    "load_sop",
    "load_tokyo247",
    "load_ukbench",
    "read_plain_pickle",
    "read_rotations",
    "turn_upright",
]
