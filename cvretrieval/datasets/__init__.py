"""Labelled image sets: loaders for the usual forms, and rendered scenes with known geometry."""

from cvretrieval.datasets.class_folders import load_class_folders
from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.datasets.folders import folder_per_class, groups_of_n, query_reference
from cvretrieval.datasets.ground_truth_csv import csv_ground_truth
from cvretrieval.datasets.loading import FORMS, load_dataset
from cvretrieval.datasets.oxford import oxford_buildings, oxford_ground_truth
from cvretrieval.datasets.scenes import Scenes, make_scenes

__all__ = [
    "FORMS",
    "Query",
    "RetrievalDataset",
    "Scenes",
    "csv_ground_truth",
    "folder_per_class",
    "groups_of_n",
    "load_class_folders",
    "load_dataset",
    "make_scenes",
    "oxford_buildings",
    "oxford_ground_truth",
    "query_reference",
]
