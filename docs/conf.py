import re

import ganparts

project = "ganparts"
author = "the ganparts authors"
release = version = ganparts.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
html_theme = "furo"
html_title = "ganparts"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # torch.nn.Module's text says nothing of ours
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_heading_anchors = 3
exclude_patterns = ["_build"]


def _shorten(app, what, name, obj, options, signature, return_annotation):
    """A signature without what only tyro reads, and with a plain word for "the preset's choice"."""
    if signature is None:
        return None
    signature = re.sub(r"~?(?:typing\.)?Annotated\[([^,]+), ~?tyro[^(]*\([^)]*\)\]", r"\1", signature)
    return signature.replace("= _UNSET", "= <the preset's>").replace("~collections.abc.", ""), return_annotation


def setup(app):
    app.connect("autodoc-process-signature", _shorten)
