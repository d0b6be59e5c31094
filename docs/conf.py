"""Configuration of the documentation (Sphinx, MyST, furo)."""

from importlib.metadata import version as installed_version

project = "kktcert"
author = "the kktcert authors"
copyright = "the kktcert authors"
release = version = installed_version("kktcert")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "kktcert"
