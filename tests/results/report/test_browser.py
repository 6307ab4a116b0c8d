"""The report in a real browser: it works, asks for nothing, fits a phone, and stumbles nobody.

`make test-page` installs the browser and axe-core, which looks for what people with disabilities stumble over.
"""

import os

import pytest
from browser import AXE, Browser, executable
from report_cases import grow, grow_with_images

from domainbed_sage.results.report import page
from domainbed_sage.results.report.gathered import Wanted

REQUIRED = "DOMAINBED_SAGE_BROWSER_REQUIRED"
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
PAGES = ("full.html", "single.html", "images.html")
LONG = "a method with quite a long name, of which nobody would think in advance"


@pytest.fixture(scope="module")
def browser():
    if executable() is None:
        assert REQUIRED not in os.environ, "these tests must not be skipped here"
        pytest.skip("there is no Chromium here: `make test-page` installs one (Debian, root)")
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A full report, one of a single run, and one of runs that keep their correct images."""
    folder = tmp_path_factory.mktemp("pages")
    full = grow(folder / "runs", methods=("ERM", "SAM", "SAGE", LONG), trials=3, agreement=0.5)
    single = grow(folder / "single", methods=("ERM",), sizes={"PACS": 2}, trials=1, keep=lambda *key: key[2] == 0)
    images = grow_with_images(folder / "images")
    page.write([images], Wanted(), folder / "images.html")
    page.write([full], Wanted(with_paper=True), folder / "full.html")
    page.write([single], Wanted(), folder / "single.html")
    return folder


def cells(browser, section, column):
    """The texts of one column of the first table of a section."""
    rows = f"document.querySelectorAll('#{section} table')[0].tBodies[0].rows"
    return browser.ask(f"[...{rows}].map((row) => row.cells[{column}].textContent.trim())")


def press(browser, selector):
    browser.ask(f"document.querySelector({selector!r}).click()")


def choose(browser, name, value):
    change = f"node.value = {value!r}; node.dispatchEvent(new Event('change'))"
    browser.ask(f"{{ const node = document.getElementById('curve-{name}'); {change} }}")


def lines(browser):
    """The drawn curves, as methods and paths."""
    return browser.ask(
        "Object.fromEntries([...document.querySelectorAll('#curve-plot path')].map((line) => "
        "[line.textContent, line.getAttribute('d')]))"
    )


def complaints_of(browser):
    """What the browser itself, or the page, had to say, and what it asked for."""
    return browser.complaints(), browser.requests()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_opens_without_a_complaint_or_a_request_and_fits(browser, pages, name, width, scheme):
    browser.open(pages / name, width=width, scheme=scheme)
    assert complaints_of(browser) == ([], [])
    assert browser.ask("document.documentElement.dataset.ready !== undefined")
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.ask("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    assert browser.ask("[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_is_accessible(browser, pages, name, width, scheme):
    if AXE is None:
        assert REQUIRED not in os.environ, "these tests must not be skipped here"
        pytest.skip("there is no axe-core here: `make test-page` fetches it (npm)")
    browser.open(pages / name, width=width, scheme=scheme)
    browser.ask("document.querySelectorAll('details').forEach((own) => { own.open = true; })")
    browser.ask(f"{AXE.read_text()}; 0")
    found = browser.ask(
        "axe.run(document).then(({ violations }) => violations.map(({ id, nodes }) => "
        "`${id}: ${nodes[0].html} ${nodes[0].failureSummary}`))"
    )
    assert found == []


def test_tables_are_sorted(browser, pages):
    browser.open(pages / "full.html")
    before = [float(text) for text in cells(browser, "averages", 4)]
    press(browser, "#averages thead th:nth-child(5) button")
    assert [float(text) for text in cells(browser, "averages", 4)] == sorted(before, reverse=True)
    assert browser.ask("document.querySelector('#averages [aria-sort]').ariaSort") == "descending"
    press(browser, "#averages thead th:nth-child(5) button")
    assert [float(text) for text in cells(browser, "averages", 4)] == sorted(before)
    press(browser, "#averages thead th:first-child button")
    assert cells(browser, "averages", 0) == [LONG, "ERM", "SAGE", "SAM"]
    press(browser, "#averages thead th:last-child button")
    assert cells(browser, "averages", 5)[-1] == "–"
    press(browser, "#averages thead th:last-child button")
    assert cells(browser, "averages", 5)[-1] == "–"


@pytest.mark.parametrize("width", WIDTHS)
def test_differences_are_drawn_overall_and_on_each_dataset(browser, pages, width):
    """Every bar within its cell, and a dotted one for other test images below the others."""
    browser.open(pages / "images.html", width=width)
    bars = browser.ask(
        "[...document.querySelectorAll('#differences tbody .plot')].map((plot) => { const cell = plot.parentElement; "
        "const own = cell.getBoundingClientRect(); "
        "return [...plot.querySelectorAll('.thick, .thin, .dotted')].map((bar) => { "
        "const box = bar.getBoundingClientRect(); "
        "return [bar.getAttribute('class'), own.left <= box.left && box.right <= own.right, box.top - own.top]; }); })"
    )
    overall, *each = [{name: (within, top) for name, within, top in row} for row in bars]
    assert [set(row) for row in (overall, *each)] == [{"thick", "dotted"}, {"thick"}, {"thick"}]
    assert all(within for row in (overall, *each) for within, _ in row.values())
    assert overall["dotted"][1] > overall["thick"][1] + 6


def test_curves_are_chosen(browser, pages):
    browser.open(pages / "full.html")
    first = lines(browser)
    assert set(first) == {"ERM", "SAM", "SAGE", LONG}
    assert browser.ask("[...document.getElementById('curve-dataset').options].map((own) => own.text)") == [
        *("VLCS", "PACS", "OfficeHome")
    ]
    for name, value in (("env", "1"), ("dataset", "2"), ("measure", "loss"), ("steps", "0.5")):
        before = lines(browser)
        choose(browser, name, value)
        assert lines(browser) != before, name
    choose(browser, "measure", "agreement")
    assert browser.ask("document.querySelector('#curve-methods .value').textContent") == "0.5"
    press(browser, "#curve-methods input")
    assert set(lines(browser)) == {"SAM", "SAGE", LONG}
    assert browser.ask("document.activeElement === document.querySelector('#curve-methods input')")
    for _ in range(3):
        press(browser, "#curve-methods input:checked")
    assert lines(browser) == {}
    assert browser.ask("document.getElementById('curve-plot').textContent").startswith("Nothing is chosen")
    assert complaints_of(browser) == ([], [])


def test_curves_differ_in_the_stroke_of_their_methods(browser, pages):
    browser.open(pages / "full.html")
    strokes = "[...document.querySelectorAll('#curve-plot path')].map((line) => getComputedStyle(line).stroke)"
    light = browser.ask(strokes)
    assert len(set(light)) == 4
    browser.open(pages / "full.html", scheme="dark")
    assert browser.ask(strokes) != light


def test_runs_are_filtered_sorted_and_shown_on_demand(browser, pages):
    browser.open(pages / "full.html")
    count = "document.querySelectorAll('#run-list tbody tr').length"
    assert browser.ask(count) == 100
    press(browser, "#run-all")
    assert browser.ask(count) == 132
    assert not browser.ask("document.getElementById('run-all').checkVisibility()")
    filtering = "node.value = 'pacs sage-'; node.dispatchEvent(new Event('input'))"
    browser.ask(f"{{ const node = document.getElementById('run-filter'); {filtering} }}")
    assert browser.ask(count) == 12
    assert browser.ask("document.getElementById('run-count').textContent") == "12 of 132 runs"
    press(browser, "#run-list thead th:nth-child(8) button")
    accuracies = [float(text) for text in cells(browser, "runs", 7)]
    assert accuracies == sorted(accuracies, reverse=True)


@pytest.mark.parametrize(("kind", "start"), [("markdown", "| Algorithm"), ("latex", "% Needs"), ("csv", "Algorithm,")])
def test_tables_are_copied(browser, pages, kind, start):
    browser.open(pages / "full.html")
    browser.ask("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }; 0")
    press(browser, f"[data-copy={kind}]")
    assert browser.ask("window.copied").startswith(start)


def test_without_script_tables_are_there_and_tools_say_what_they_need(browser, pages):
    browser.open(pages / "full.html", script=False)
    text = browser.ask("document.body.innerText")
    assert "The curves need JavaScript" in text
    assert "The list of runs needs JavaScript" in text
    assert "Copy" not in text
    assert len(cells(browser, "averages", 0)) == 4
    assert complaints_of(browser)[1] == []


def test_prints_without_tools(browser, pages):
    browser.open(pages / "full.html")
    tools = "[...document.querySelectorAll('nav, select, [data-copy]')].filter((own) => own.checkVisibility()).length"
    assert browser.ask(tools) > 0
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.ask(tools) == 0
    assert browser.ask("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    browser.call("Emulation.setEmulatedMedia", media="")
