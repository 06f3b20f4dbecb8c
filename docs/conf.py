"""Settings of the documentation site; `make docs` builds it, without a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for schema_tables

from edge_medgemma import __version__

project = "edge-medgemma"
author = "the edge-medgemma authors"
release = __version__

extensions = [
    "myst_parser",
    "schema_tables",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"edge-medgemma {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write `name`, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
