"""Results folders to report on, and what is made of them."""

import json
import re
from html.parser import HTMLParser

import numpy as np
from reference import sweep_folder

from domainbed_sage.results import correctness
from domainbed_sage.results.correctness import Correct
from domainbed_sage.results.report import page
from domainbed_sage.results.report.gathered import Wanted

METHODS = ("ERM", "SAM", "SAGE")
SIZES = {"PACS": 4, "VLCS": 4, "OfficeHome": 3}
TIMES = {"step_time": 0.5, "mem_gb": 2.0}


def grow(folder, *, methods=METHODS, sizes=SIZES, trials=3, evaluations=3, better=0.02, keep=lambda *key: True, **more):
    """Runs with accuracies that are drawn with a fixed seed; each method is `better` than the one before."""
    rng = np.random.default_rng(0)
    for dataset, n in sizes.items():
        for at, method in enumerate(methods):
            for env in range(n):
                for trial in range(trials):
                    accuracies = 0.5 + better * at + 0.05 * rng.random((2, evaluations, n))
                    if keep(dataset, method, env, trial):
                        facts = {"dataset": dataset, "algorithm": method, "test_envs": [env], "trial": trial}
                        lines = sweep_folder.records(*accuracies.tolist(), **facts, **(TIMES | more))
                        sweep_folder.write(folder, lines)
    return folder


def grow_with_images(folder, *, images=200):
    """ERM and the better SAGE, with two trials on two datasets of two environments, whose runs keep correct images."""
    rng = np.random.default_rng(0)
    for dataset in ("PACS", "VLCS"):
        for at, method in enumerate(("ERM", "SAGE")):
            for env in range(2):
                for trial in range(2):
                    right = rng.random(images) < 0.5 + 0.1 * at
                    facts = {"dataset": dataset, "algorithm": method, "test_envs": [env], "trial": trial}
                    ins = [right.sum() / images if other == env else 0.5 for other in range(2)]
                    run = sweep_folder.write(folder, sweep_folder.records([ins], [[0.5] * 2], **facts))
                    correctness.write(run, {env: Correct("names", np.ones(images, bool), {0: right})})
    return folder


def made(folder, tmp_path, **wanted):
    """The page, its text, and the numbers of a report."""
    out = tmp_path / "made" / "report.html"
    faults = page.write([folder], Wanted(**wanted), out)
    html = out.read_text()
    return html, read(html), json.loads(out.with_suffix(".json").read_text()), faults


class _Reader(HTMLParser):
    """The text of each section, and the rows of each table, as texts of cells."""

    def __init__(self):
        super().__init__()
        self.sections, self.tables, self.section, self.cell, self.skipped = {}, {}, "head", None, False

    def handle_starttag(self, tag, attrs):
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag == "table":
            self.tables.setdefault(self.section, []).append([])
        if tag == "tr":
            self.tables[self.section][-1].append([])
        if tag in ("th", "td"):
            self.cell = ""
        self.skipped = tag in ("script", "style", "text")

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.tables[self.section][-1][-1].append(self.cell.strip())
            self.cell = None
        self.skipped = False

    def handle_data(self, data):
        if self.skipped:
            return
        self.sections[self.section] = self.sections.get(self.section, "") + data
        if self.cell is not None:
            self.cell += data


def read(html):
    """A `_Reader` of a page."""
    reader = _Reader()
    reader.feed(html)
    return reader


def embedded(html):
    """What the page's script gets."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
