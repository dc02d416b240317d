"""How Sphinx builds this site. `make docs` writes it to build/site/."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.builders.dirhtml import DirectoryHTMLBuilder
from sphinx.util.osutil import relative_uri

project = "edgeproxy"
author = "The edgeproxy developers"
copyright = "The edgeproxy developers"

extensions = ["myst_parser"]
exclude_patterns = ["changes", "Thumbs.db"]
nitpicky = True

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "edgeproxy"
html_favicon = "images/favicon.svg"
html_static_path = ["static"]
html_css_files = ["edgeproxy.css"]
html_baseurl = ""  # where the site is published; its path is what 404.html links to
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False

html_theme_options = {
    "light_logo": "logo.svg",
    "dark_logo": "logo.svg",
    "light_css_variables": {
        "color-brand-primary": "#0b6e63",
        "color-brand-content": "#0b6e63",
        "color-brand-visited": "#4d5f8f",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5cc8b8",
        "color-brand-content": "#5cc8b8",
        "color-brand-visited": "#a3b4e6",
    },
}
pygments_style = "tango"
pygments_dark_style = "monokai"

NOT_FOUND = "404"
ROOT = urlsplit(html_baseurl).path or "/"


class SiteBuilder(DirectoryHTMLBuilder):
    """`dirhtml`, with `404.html` at the root: Pages shows that file at any depth, so it links from
    the root where the other pages link to each other relatively.
    """

    def get_output_path(self, page_name: str, /) -> Path:
        if page_name == NOT_FOUND:
            return Path(self.outdir) / "404.html"
        return super().get_output_path(page_name)

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return "404.html" if docname == NOT_FOUND else super().get_target_uri(docname, typ)

    def get_relative_uri(self, from_: str, to: str, typ: str | None = None) -> str:
        if from_ == NOT_FOUND:
            return ROOT + self.get_target_uri(to, typ)
        return super().get_relative_uri(from_, to, typ)


def adapt_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """The language of a German page, and links from the root on `404.html`."""
    if pagename.startswith("de/"):
        context["language"] = "de"
    if pagename != NOT_FOUND:
        return

    def from_root(other: str, resource: bool = False, baseuri: str | None = None) -> str:
        if resource and "://" in other:
            return other
        uri = other if resource else app.builder.get_target_uri(other)
        return ROOT + relative_uri("", uri) if uri else ROOT

    context["pathto"] = from_root
    context["content_root"] = ROOT
    for name in ("css_tag", "js_tag"):
        context[name] = partial(tag_from_root, context[name])


def tag_from_root(make: Callable[[Any], str], resource: Any) -> str:
    """The tag of a style or script, which Sphinx makes without asking the `pathto` above."""
    return make(resource).replace('="_static/', f'="{ROOT}_static/')


def setup(app: Sphinx) -> None:
    app.add_builder(SiteBuilder, override=True)
    app.connect("html-page-context", adapt_page, priority=100)
