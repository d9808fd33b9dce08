"""Sphinx settings of the documentation: `make docs` builds it into docs/_build, warnings are errors."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from airflow_provider_gemini_batch import __version__

# Docstrings are read from modules that import Airflow, which makes a home for itself and says so.
os.environ.setdefault("AIRFLOW_HOME", str(Path(__file__).parents[1] / ".airflow"))
logging.getLogger("airflow").setLevel(logging.WARNING)

project = "airflow-provider-gemini-batch"
author = "the authors of airflow-provider-gemini-batch"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_design"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "diagrams"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# GitHub reads the same files: links to example Dags and the changelog lead out of docs/ there, and are copied here.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
toc_object_entries_show_parents = "hide"

# A sidebar with all pages under captions, as Airflow's own documentation has it.
html_theme = "furo"
html_title = f"Gemini batch for Airflow {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
# The pages are searched; an alphabetical list of the Python names helps nobody.
html_use_index = False
html_domain_indices = False
