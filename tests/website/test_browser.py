"""The pages in a browser: by WCAG 2.1 A and AA, in light and dark, enlarged, with the keyboard alone, and offline."""

from pathlib import Path

import pytest

from tests.website.conftest import offline_page
from website import browser, links, packages

SITE = Path(__file__).resolve().parents[2] / "dist/site"
PAGES = [str(file.relative_to(SITE)) for file in links.pages(SITE)]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
NOTEBOOKS = [name for name in PAGES if name.startswith("notebooks/")]
LONG = "notebooks/01_fully_connected_nets.html"


def violations(page, where="html"):
    """What axe-core finds on a page, or in the elements that a selector names: rule, and element, in short."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate((packages.FOLDER / "axe-core/axe.min.js").read_text(encoding="utf-8"))
    run = "([where, rules]) => axe.run(where, {runOnly: rules, resultTypes: ['violations']})"
    found = page.evaluate(run, [where, RULES])["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]


def focused(page):
    """The element that has the focus: its tag, its text or label, and whether the focus can be seen."""
    return page.evaluate("""() => {
        const element = document.activeElement, style = getComputedStyle(element);
        const seen = style.outlineStyle !== "none" || style.boxShadow !== "none";
        return [element.tagName, (element.ariaLabel || element.textContent).trim().replace(/\\s+/g, " "), seen];
    }""")


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in PAGES])
def each(request, chromium, site):
    """Each page of the site in turn, opened once for all the tests that look at it."""
    with offline_page(chromium) as page:
        browser.show(page, site / request.param)
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(each, scheme):
    each.set_viewport_size({"width": 1280, "height": 900})
    each.emulate_media(color_scheme=scheme)
    each.wait_for_selector(f"html[data-theme={scheme}]", state="attached")
    assert violations(each) == []


@pytest.mark.parametrize("width", [640, 320])  # a laptop's screen at 200 and 400 %
def test_an_enlarged_page_scrolls_in_one_direction_alone(each, width):
    each.set_viewport_size({"width": width, "height": 450})
    assert each.evaluate("() => document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.parametrize("media", ["screen", "print"])
def test_no_line_of_a_code_cell_is_cut_off(page, site, name, media):
    browser.show(page, site / name)
    page.emulate_media(media=media)
    cut = "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.textContent)"
    assert page.eval_on_selector_all("div.cell_input pre", cut) == []


def test_on_a_phone_a_figure_and_a_table_scroll_and_keep_their_words_legible(page, site):
    page.set_viewport_size({"width": 375, "height": 700})
    browser.show(page, site / LONG)
    widths = page.eval_on_selector_all("img", "figures => figures.map(f => [f.width, Math.min(f.naturalWidth, 608)])")
    assert widths
    assert [(width, least) for width, least in widths if width < least] == []
    browser.show(page, site / "docs/gpu.html")
    page.wait_for_selector(".pst-scrollable-table-container[tabindex='0']")
    words = "cells => cells.filter(c => c.textContent.trim().length > 20).map(c => c.clientWidth)"
    assert min(page.eval_on_selector_all("td", words)) > 60


def test_a_comma_and_a_number_stay_on_the_line_of_their_formula(page, site):
    page.set_viewport_size({"width": 375, "height": 700})
    browser.show(page, site / LONG)
    tops = page.eval_on_selector_all(
        "span.together",
        """spans => spans.map(span => {
            const range = document.createRange();
            range.selectNode(span.lastChild);
            return [span.firstChild.getBoundingClientRect().bottom, range.getBoundingClientRect().top];
        })""",
    )
    assert len(tops) > 20
    assert [(formula, comma) for formula, comma in tops if comma > formula] == []
    assert max(page.eval_on_selector_all(".eqno", "numbers => numbers.map(n => n.offsetHeight)")) < 40


def test_axe_can_find_something(page, site):
    browser.show(page, site / "index.html")
    page.evaluate("""() => { document.querySelector("article").innerHTML += "<img src='x'><a href='y'></a>"; }""")
    assert [found.split(":")[0] for found in violations(page)] == ["image-alt", "link-name"]


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(page, site):
    browser.show(page, site / "index.html")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(focused(page))
    texts = [text for _, text, _ in reached]
    assert texts[0] == "Skip to main content"
    assert {"Pages of Modules", "2 Batch normalization", "Fully connected nets"} <= set(texts)
    assert any(text.startswith("Search") for text in texts)
    assert [(tag, text) for tag, text, seen in reached if tag in ("A", "BUTTON", "SUMMARY") and not seen] == []


def test_the_theme_is_switched_by_the_keyboard(page, site):
    browser.show(page, site / "index.html")
    menu = "button.theme-change-button.active:focus"
    for keys, mode in ((["ArrowDown"], "light"), (["ArrowDown"], "dark"), (["ArrowUp", "ArrowUp"], "auto")):
        page.locator("button.theme-switch-button").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(menu)
        for key in [*keys, "Enter"]:
            page.keyboard.press(key)
        page.wait_for_selector(f"html[data-mode={mode}]", state="attached")


def test_the_search_finds_a_formulas_function_by_the_keyboard(page, site):
    browser.show(page, site / "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("batchnorm_backward_alt")
    page.keyboard.press("Enter")
    page.wait_for_selector("ul.search a")
    assert page.url.split("?")[0].endswith("search.html")
    found = page.eval_on_selector_all("ul.search a", "links => links.map(link => link.getAttribute('href'))")
    assert any(address.startswith("api/batchnorm.html") for address in found)
    assert violations(page) == []


def test_a_copy_button_copies_a_cells_code(page, site):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    browser.show(page, site / LONG)
    cell = page.locator("div.cell_input").first
    cell.locator("button.copybtn").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("button.copybtn.success")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.strip() == cell.locator("pre").inner_text().strip()


def test_formulas_are_typeset_and_read_aloud(page, site):
    browser.show(page, site / LONG)
    formulas = page.locator("mjx-container")
    assert formulas.count() == page.locator(".math").count() > 50
    assert page.locator("mjx-container mjx-assistive-mml math").count() == formulas.count()
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_notebook_has_a_pdf_that_its_page_links_to(page, site, name):
    browser.show(page, site / name)
    pdf = site / "notebooks" / page.locator(".other-form a[href$=pdf]").get_attribute("href")
    assert pdf.resolve().read_bytes().startswith(b"%PDF-")
    assert pdf.stat().st_size > 100_000
