"""The documentation as HTML: `make docs`, which builds it into `build/docs` without a network."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import matplotlib

from cvretrieval import __version__

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
import tests.matching_torchvision  # noqa: E402, F401  (beside a torch for CPUs alone)

matplotlib.use("Agg")

project = "cvretrieval"
author = "cvretrieval developers"
version = release = __version__
project_copyright = author

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "moved_links",
    "name_links",
    "own_members",
    "numpydoc_template",
    "published",
    "measured",
    "command_line",
]
exclude_patterns = ["_*", "auto_examples/**/*.ipynb", "auto_examples/**/*.py.md5"]
templates_path = ["_templates"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

smartquotes = False  # they would also bend the quotes of "hard" in the types of parameters
default_role = "py:obj"
autosummary_generate = sorted(f"api/{path.name}" for path in (HERE / "api").glob("*.md"))
autodoc_typehints = "none"
numpydoc_show_class_members = False
# Citations of docstrings are numbered within each page.
numpydoc_class_members_toctree = False

# Pages show pictures of the gallery, which are not there where it was not run.
suppress_warnings = ["image.not_readable"] if "plot_gallery=0" in sys.argv else []

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "gallery_order.ReadingOrder",
    "filename_pattern": r"[/\\]plot_",
    "ignore_pattern": r"^(?!plot_)",  # the others are scripts to run, not pages
    "write_computation_times": False,
    "backreferences_dir": "api/backreferences",
    "doc_module": ("cvretrieval",),
    "reference_url": {"cvretrieval": None},
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1,
    "remove_config_comments": True,
    "capture_repr": (),  # what is printed and drawn, not what a last line happens to return
    "plot_gallery": "True",
}
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

html_theme = "pydata_sphinx_theme"
html_title = "cvretrieval"
html_static_path = ["_static"]
html_css_files = ["cvretrieval.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = dict.fromkeys(
    ("getting_started", "which_method", "reproducing", "parity", "scaling", "clusters", "milvus", "command_line",
     "serve", "deep", "datasets", "changelog", "benchmarks/*"), ()
)  # fmt: skip
html_theme_options = {
    "logo": {"text": "cvretrieval"},
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "collapse_navigation": True,  # 230 pages with 230 entries each would take longer than all else
}
