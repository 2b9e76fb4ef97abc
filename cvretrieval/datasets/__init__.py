"""Labelled image sets: loaders for the usual forms, and rendered scenes with known geometry."""

from cvretrieval.datasets.dataset import Query, RetrievalDataset
from cvretrieval.datasets.folders import folder_per_class, groups_of_n, query_reference
from cvretrieval.datasets.ground_truth_csv import csv_ground_truth
from cvretrieval.datasets.loading import FORMS, load_dataset
from cvretrieval.datasets.oxford import oxford_buildings, oxford_ground_truth

__all__ = [
    "FORMS",
    "Query",
    "RetrievalDataset",
    "csv_ground_truth",
    "folder_per_class",
    "groups_of_n",
    "load_dataset",
    "oxford_buildings",
    "oxford_ground_truth",
    "query_reference",
]
