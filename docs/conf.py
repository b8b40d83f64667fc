"""How Sphinx builds these pages: `make docs`."""

import caliper

project = "Caliper"
author = "The Caliper maintainers"
version = release = caliper.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
    "description": "Calibrated Q-learning from pixels, offline then online",
    "page_width": "70em",
}
