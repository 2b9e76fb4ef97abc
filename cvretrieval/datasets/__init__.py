"""Labelled image sets: loaders for the usual forms and the public benchmarks, and rendered scenes."""

from cvretrieval.datasets.benchmarks import (
    BENCHMARK_FORMS,
    load_cars196,
    load_copydays,
    load_cub200,
    load_holidays,
    load_inshop,
    load_oxford5k,
    load_paris6k,
    load_pitts30k,
    load_pitts250k,
    load_places,
    load_roxford5k,
    load_rparis6k,
    load_smvs,
    load_sop,
    load_tokyo247,
    load_ukbench,
    read_plain_pickle,
    read_rotations,
    turn_upright,
)
from cvretrieval.datasets.class_folders import load_class_folders
from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.datasets.folders import folder_per_class, groups_of_n, query_reference
from cvretrieval.datasets.ground_truth_csv import csv_ground_truth
from cvretrieval.datasets.loading import FORMS, load_dataset
from cvretrieval.datasets.oxford import oxford_buildings, oxford_ground_truth
from cvretrieval.datasets.scenes import Scenes, make_scenes

__all__ = [
    "BENCHMARK_FORMS",
    "FORMS",
    "Query",
    "RetrievalDataset",
    "Scenes",
    "csv_ground_truth",
    "folder_per_class",
    "groups_of_n",
    "load_cars196",
    "load_class_folders",
    "load_copydays",
    "load_cub200",
    "load_dataset",
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
    "make_scenes",
    "oxford_buildings",
    "oxford_ground_truth",
    "query_reference",
    "read_plain_pickle",
    "read_rotations",
    "turn_upright",
]
