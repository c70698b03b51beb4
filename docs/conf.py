import os
import re
import sys
from pathlib import Path

import matplotlib

import ganparts

matplotlib.use("Agg")
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ganparts"
author = "the ganparts authors"
copyright = f"2026, {author}"
release = version = ganparts.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "catalogue",
    "mathml",
    "reference",
    "sphinx_gallery.gen_gallery",
    "webpage",
]
html_theme = "furo"
html_title = "ganparts"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # torch.nn.Module's text says nothing of ours
autosummary_generate = False
maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp"
plot_formats = ["svg"]
plot_html_show_formats = plot_html_show_source_link = False
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "ExampleTitleSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e6,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "copyfile_regex": "",
}
exclude_patterns = ["_build", "_ext", "examples", "plots"]  # notebooks are shown by howto/kaggle

if os.environ.get("DOCS_ONLINE"):  # links to the references of Python and PyTorch; their lists of names are fetched
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }


def _shorten(app, what, name, obj, options, signature, return_annotation):
    """A signature without what only tyro reads, and with a plain word for "the preset's choice"."""
    if signature is None:
        return None
    signature = re.sub(r"~?(?:typing\.)?Annotated\[([^,]+), ~?tyro[^(]*\([^)]*\)\]", r"\1", signature)
    return signature.replace("= UNSET", "= <the preset's>").replace("~collections.abc.", ""), return_annotation


def setup(app):
    app.connect("autodoc-process-signature", _shorten)
