"""How Sphinx builds these pages: `make docs`. The page "Configuration" is written anew at each build."""

import sys
from itertools import pairwise
from pathlib import Path

from sphinx.application import Sphinx

import caliper

sys.path.insert(0, str(Path(__file__).parent))

project = "Caliper"
author = "The Caliper maintainers"
version = release = caliper.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
html_theme = "alabaster"
html_theme_options = {
    "description": "Calibrated Q-learning from pixels, offline then online",
    "page_width": "72em",
    "sidebar_width": "16em",
    "fixed_sidebar": True,
}


def as_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are written for people: what is indented below a blank line is shown as it stands."""
    shown: list[str] = []
    literal = False
    for before, line in pairwise(["", *lines]):
        if not line.startswith(" "):
            literal = literal and not line.strip()
        elif what in ("module", "class") and not before.strip() and not literal and not _in_section(shown):
            literal = True
            shown += ["::", ""]
        shown.append(line if literal else line.replace("|", "\\|"))
    lines[:] = shown


def _in_section(lines: list[str]) -> bool:
    """Whether the last words are indented, as below "Args:"."""
    return next((line for line in reversed(lines) if line.strip()), "").startswith(" ")


def setup(app: Sphinx) -> None:
    from configuration import write_page

    app.connect("builder-inited", lambda app: write_page(Path(app.srcdir) / "configuration.md"))
    app.connect("autodoc-process-docstring", as_text, priority=100)  # before napoleon reads its sections
