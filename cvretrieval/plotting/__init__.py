"""Showing results: reports as single HTML files, and matplotlib figures (extra ``[plot]``)."""

from cvretrieval.plotting.classification_report import write_classification_report
from cvretrieval.plotting.confusion import plot_confusion
from cvretrieval.plotting.duplicates_report import write_duplicates_report
from cvretrieval.plotting.evaluation_report import write_evaluation_report
from cvretrieval.plotting.figures import plot_matches, show_search_result
from cvretrieval.plotting.heat_map import plot_cluster_map, plot_heat_map, plot_regions
from cvretrieval.plotting.match_report import write_match_report
from cvretrieval.plotting.search_report import write_search_report
from cvretrieval.plotting.training_report import plot_training, write_training_report
from cvretrieval.plotting.words import plot_words

__all__ = [
    "plot_cluster_map",
    "plot_confusion",
    "plot_heat_map",
    "plot_matches",
    "plot_regions",
    "plot_training",
    "plot_words",
    "show_search_result",
    "write_classification_report",
    "write_duplicates_report",
    "write_evaluation_report",
    "write_match_report",
    "write_search_report",
    "write_training_report",
]
