"""Find the broken links of a site's folder, offline: files, anchors, pictures, styles and scripts that are not there.

Run as `python -m website.links FOLDER`, this prints them, and fails if there are any.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The addresses that a page links to, those that it loads, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if "href" in found:
            (self.links if tag == "a" else self.loads).append(found["href"] or "")
        if "src" in found:
            self.loads.append(found["src"] or "")


def pages(folder):
    """The pages of a site, without templates and the pages of JupyterLite."""
    others = {folder / "_static", folder / "lite"}
    return [file for file in sorted(folder.rglob("*.html")) if not others & {*file.parents}]


def broken(folder):
    """Each link of the pages in a folder that leads nowhere, and whatever is loaded from elsewhere, as "page: address".

    The pages that links lead to on other sites are not asked.
    """
    folder = Path(folder).resolve()
    found = {file: _Page(file.read_text(encoding="utf-8")) for file in pages(folder)}
    return [
        f"{file.relative_to(folder)}: {address}"
        for file, page in found.items()
        for address, loaded in [*((a, False) for a in page.links), *((a, True) for a in page.loads)]
        if not _leads_somewhere(address, file, loaded, found)
    ]


def _leads_somewhere(address, file, loaded, pages):
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return parts.scheme == "data" if loaded else parts.scheme in ("http", "https", "mailto")
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if target in pages:
        return unquote(parts.fragment) in pages[target].anchors
    return target.is_file() and not parts.fragment


def main():
    found = broken(sys.argv[1])
    print("\n".join(found) or "no broken link")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
