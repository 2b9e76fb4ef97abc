"""Showing results: reports as single HTML files, and matplotlib figures (extra ``[plot]``)."""

from cvretrieval.plotting.figures import plot_matches, show_search_result
from cvretrieval.plotting.match_report import write_match_report
from cvretrieval.plotting.search_report import write_search_report

__all__ = ["plot_matches", "show_search_result", "write_match_report", "write_search_report"]
