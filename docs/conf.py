"""How `make docs` builds the documentation: Sphinx, with the API reference from the docstrings."""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

# The API reference imports Airflow, which makes itself a home at its first import.
_home = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ.update(AIRFLOW_HOME=_home.name, AIRFLOW__CORE__LOAD_EXAMPLES="False")

_distribution = metadata("airflow-provider-amazon-datazone")
project = "Amazon DataZone for Apache Airflow"
author = _distribution["Author"]
version = release = _distribution["Version"]
project_copyright = f"{author}. Apache License 2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# A name in the API reference, a page or an anchor that does not exist is an error.
nitpicky = True
# Other people's names. There is no inventory of theirs to look up: the site is built without a network.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(airflow|botocore|boto3|collections|datetime|logging|moto|typing|typing_extensions|werkzeug)\..*",
    ),
    ("py:.*", r"[^.]*"),
    # What `mock_datazone` makes of a function.
    ("py:class", r"airflow_provider_datazone\.testing\.mock\.(T|MockDataZone)"),
]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

# Written here and not in the pages, so that these read well as plain Markdown on a git host.
NAVIGATION = {
    "index": {
        "Begin": ["quick-start", "installing", "connection"],
        "Use": ["operators", "waiting", "publishing", "reacting", "examples", "testing", "migrating"],
        "Operate": ["scaling", "reliability", "performance", "metrics", "troubleshooting", "versions"],
        "Reference": ["api/index", "changelog"],
    },
    "api/index": {
        "": [
            "operators",
            "sensors",
            "hooks",
            "triggers",
            "links",
            "metadata_generation",
            "exceptions",
            "testing",
            "internals",
        ]
    },
}


def complete(app: Any, page: str, source: list[str]) -> None:
    """Add to a page what the site alone needs: the navigation, and the text of the changelog."""
    if page == "changelog":
        source[0] = (Path(app.srcdir).parent / "CHANGELOG.md").read_text(encoding="utf-8")
    for caption, pages in NAVIGATION.get(page, {}).items():
        options = [":hidden:", f":caption: {caption}"] if caption else [":hidden:"]
        source[0] += "\n".join(["", "```{toctree}", *options, "", *pages, "```", ""])


def setup(app: Any) -> None:
    app.connect("source-read", complete)
