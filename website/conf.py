"""Settings of Sphinx: see https://www.sphinx-doc.org/en/master/usage/configuration.html."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from website import colab, docstrings, packages  # noqa: E402

project = "cs231n"
author = "the cs231n pack's authors"
html_title = "cs231n: deep learning from scratch"
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["extra"]
nitpicky = True
nitpick_ignore = [("py:class", "collections.abc.Callable")]  # no page here
add_module_names = False
toc_object_entries_show_parents = "hide"
autodoc_preserve_defaults = True  # as the code has them: the value of a path is that of one machine
smartquotes = False  # code and equations in docstrings stay as they are written

# Notebooks: as committed, never executed.  A progress bar is shown as its text: a widget needs a script from a CDN.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4

# Nothing is loaded from elsewhere: MathJax is a copy, and its menu, which would load more, is off.
html_theme = "sphinx_book_theme"
html_static_path = ["static", str(packages.FOLDER / "mathjax")]
html_extra_path = [str(ROOT / "build/site/source/extra")]  # the figures
html_css_files = ["site.css"]
html_js_files = ["site.js"]
mathjax_path = "es5/tex-chtml-full.js"
mathjax3_config = {"options": {"enableMenu": False}}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "show_toc_level": 2,
    "show_navbar_depth": 1,
}
if colab.repository():
    html_theme_options |= {
        "repository_url": colab.repository(),
        "repository_branch": "main",
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
copybutton_selector = "div.cell_input pre, :not(.output) > div.highlight > pre"
copybutton_exclude = ".linenos, .gp"


class NumberedEquations(SphinxTransform):
    """Number the equations of each notebook, as in 1.7, and give each an anchor, as in #equation-7."""

    default_priority = 500

    def apply(self):
        folder, _, name = self.env.docname.partition("/")
        if folder != "notebooks":
            return
        for k, equation in enumerate(self.document.findall(nodes.math_block), start=1):
            equation["number"] = f"{int(name[:2])}.{k}"
            equation["ids"] = [f"equation-{k}"]


def setup(app):
    names = docstrings.public_names(ROOT / "cs231n")

    def process(app, what, name, obj, options, lines):
        def link(text):
            target = docstrings.resolve(text, name, names)
            return f":py:obj:`{text} <{target}>`" if target else f"``{text}``"

        lines[:] = docstrings.rst(lines, what, link)

    app.connect("autodoc-process-docstring", process)
    app.add_transform(NumberedEquations)
