"""Sphinx's settings. `website.build` stages the sources and calls Sphinx with this file."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # Sphinx imports website.mathml by its name

project = "cvj_ml"
extensions = ["myst_parser", "website.mathml"]
root_doc = "docs/index"
templates_path = [str(HERE / "templates")]

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4  # GitHub's anchors, which the pages link to
myst_dmath_double_inline = True
# Blocks without a language are what a screen shows; `console` and `yaml` are named.
highlight_language = "none"
pygments_style = "friendly"
pygments_dark_style = "native"

html_theme = "furo"
html_title = "cvj_ml"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_permalinks_icon = "#"
html_copy_source = False  # the Markdown lies beside each page instead
html_show_sourcelink = False
html_show_copyright = False
html_use_index = False  # the reference is one page, and search finds it
html_show_search_summary = False  # excerpts are fetched, which no browser permits on pages opened from a disk
