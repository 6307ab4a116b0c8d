"""Pictures: the same bytes each time, pages no larger than paper, and what is drawn is what the numbers say."""

import re

import numpy as np
import pandas as pd
import pytest
from reference import sweep_folder

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import curves, dots, looks, picture, progress, tables
from domainbed_sage.results.folder import load_records

KINDS = {"png": b"\x89PNG\r\n", "pdf": b"%PDF", "svg": b"<?xml"}
NAN = float("nan")


def table(folder):
    return tables.build(load_records(folder).records, "training-domain", labels={})


def look_of(result):
    return looks.looks(result.averages.cells.index)


def methods(number, envs, trials=3, datasets=("PACS",), steps=4):
    """Means of rising curves, as `progress.means` gives them; the later a method, the higher its curves."""
    rows = [
        {"dataset": dataset, "label": f"m{at:02}", "env": env, "environment": f"e{env}", "step": 10 * step}
        | {"trials": trials, "selected_so_far": 0.5 + at / 100 + step / 1000, "source_validation": 0.6, "loss": 1.0}
        for dataset in datasets
        for at in range(number)
        for env in range(envs)
        for step in range(steps)
    ]
    frame = pd.DataFrame(rows)
    ends = {
        f"{name}_{end}": frame[name] + shift
        for name in progress.MEASURES
        for end, shift in (("low", -0.1), ("high", 0.1))
    }
    return frame.assign(**ends)


def drawn(means):
    names = {name: [f"e{env}" for env in range(rows["env"].max() + 1)] for name, rows in means.groupby("dataset")}
    return curves.draw(means, names, looks.looks(sorted(means["label"].unique())))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_the_same_each_time(gappy, kind):
    for draw in (lambda: dots.draw(table(gappy), look_of(table(gappy)))[0], lambda: drawn(methods(2, 1))[0]):
        one = picture.written(draw(), kind)
        assert one.startswith(KINDS[kind])
        assert picture.written(draw(), kind) == one
        assert not re.search(rb"CreationDate|dc:date|20\d\d-\d\d-\d\d", one)


def test_files_and_their_order(tmp_path, monkeypatch):
    """One file for each page and format; the bytes of one do not depend on which others are asked for."""
    monkeypatch.setattr(picture, "HEIGHT", 4)
    means = methods(1, 1, datasets=("a", "b"))
    paths = picture.write_all(drawn(means), tmp_path / "both", "curves", ["svg", "png"])
    assert [path.name for path in paths] == ["curves.png", "curves.svg", "curves-2.png", "curves-2.svg"]
    again = picture.write_all(drawn(means), tmp_path / "one", "curves")
    assert [path.name for path in again] == ["curves.png", "curves-2.png"]
    assert paths[0].read_bytes() == again[0].read_bytes()


@pytest.mark.parametrize(("number", "envs"), [(1, 2), (12, 5)])
def test_pages_are_no_larger_than_paper(number, envs, tmp_path):
    datasets = ("PACS", "VLCS", "OfficeHome")
    keys = [(dataset, f"m{at}", env, 0) for dataset in datasets for at in range(number) for env in range(envs)]
    sweep_folder.write_flat(tmp_path, [0.5] * envs, algorithm="m0")
    result = tables.build(
        load_records(tmp_path).records, "oracle", expected=keys, labels={name: [""] * envs for name in datasets}
    )
    pages = [*dots.draw(result, look_of(result)), *drawn(methods(number, envs, datasets=datasets))]
    for page in pages:
        width, height = page.get_size_inches()
        assert width <= 7
        assert height <= picture.HEIGHT
        assert width * page.get_dpi() <= 1800
    panels = sum(len([panel for panel in page.get_axes() if panel.axison]) for page in pages)
    assert panels == 3 * (envs + 1) + 4 + 3 * 3 * envs


def test_packed():
    assert picture.packed([3, 3, 3, 3, 20, 1], 9) == [[0, 1, 2], [3], [4], [5]]
    assert picture.packed([], 9) == []


def test_a_page_leaves_room_for_its_title_and_no_more():
    """Half an inch for the title, and 0.12 for each further line below."""
    first, fits, less = (picture.Block(high, lambda part: part.subplots()) for high in (picture.HEIGHT - 1, 0.5, 0.51))
    assert len(picture.pages([first, fits], "title", "one line")) == 1
    assert len(picture.pages([first, less], "title", "one line")) == 2
    assert len(picture.pages([first, fits], "title", "one\ntwo")) == 2


def test_long_names_lose_their_middle():
    assert picture.shortened("a" * 32) == "a" * 32
    assert picture.shortened("abcdefghijklmnopqrstuvwxyz0123456") == "abcdefghijklmnop…stuvwxyz0123456"
    assert picture.shortened("a\x1bb") == "a\\x1bb"


def test_strips():
    assert [list(share) for share in picture.strips(6, 4)] == [[0, 1, 2], [3, 4, 5]]
    assert [list(share) for share in picture.strips(4, 4)] == [[0, 1, 2, 3]]
    assert [len(share) for share in picture.strips(9, 4)] == [3, 3, 3]


def test_dots_show_the_table(gappy):
    (page,) = dots.draw(table(gappy), look_of(table(gappy)), {"PACS": 45.0})
    panels = page.get_axes()
    assert [panel.get_title() for panel in panels] == ["env0", "env1", "env2", "Avg"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["ERM", "SAGE"]
    texts = {text.get_text(): text for text in panels[1].texts}
    assert {"60.0", "80.0*", "chance"} == set(texts)
    assert texts["60.0"].get_fontweight() == "bold"  # one that lacks trials does not compete
    assert texts["80.0*"].get_fontweight() == "normal"
    assert [text.get_text() for text in panels[2].texts] == ["chance 45.0", "73.0", "X"]
    marks = [line for line in panels[1].lines if line.get_marker() in ("o", "s")]
    assert [list(line.get_xdata()) for line in marks] == [[pytest.approx(60)], [pytest.approx(80)]]
    assert [line.get_color() for line in marks] == [look.colour for look in look_of(table(gappy)).values()]
    assert marks[1].get_markerfacecolor() == "white"
    lines = [line for line in panels[0].lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in lines] == [45.0]
    assert len({panel.get_ylim() for panel in panels}) == 1  # rows are level
    shown = " ".join(text.get_text() for text in page.texts)
    assert "hollow" in shown or "hollow" in page.get_supxlabel()


def test_numbers_do_not_lie_on_dots(gappy):
    """The part of a panel in which the numbers are is right of everything that is drawn."""
    (page,) = dots.draw(table(gappy), look_of(table(gappy)))
    for panel in page.get_axes():
        low, high = panel.get_xlim()
        ends = [x for line in panel.lines for x in line.get_xdata()]
        ends += [x for bars in panel.collections for path in bars.get_paths() for x in path.vertices[:, 0]]
        assert np.nanmax(ends) < low + (1 - dots.NUMBERS) * (high - low)


def test_curves_are_the_means():
    means = methods(3, 2)
    (page,) = drawn(means)
    panels = page.get_axes()
    assert len(panels) == 6
    for panel, (measure, env) in zip(panels, [(m, env) for m in progress.MEASURES for env in (0, 1)], strict=True):
        scale = 1 if measure == "loss" else 100
        assert len(panel.lines) == len(panel.collections) == 3  # with a band for each
        for line, (_, rows) in zip(panel.lines, means[means["env"] == env].groupby("label"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), rows["step"])
            np.testing.assert_allclose(line.get_ydata(), scale * rows[measure])
            assert line.get_linestyle() == ("--" if measure == "source_validation" else "-")


def test_a_loss_that_diverges_does_not_flatten_the_others():
    means = methods(12, 2)
    means.loc[(means["label"] == "m03") & (means["env"] == 1) & (means["step"] == 30), "loss"] = 1e11
    (page,) = drawn(means)
    losses = page.get_axes()[-2:]
    assert [panel.get_ylim()[1] < 1.1 for panel in losses] == [True, True]
    assert [[text.get_text() for text in panel.texts] for panel in losses] == [[], ["1 curve beyond ↑"]]
    assert [len(panel.lines) for panel in losses] == [12, 12]
    assert "beyond a panel's scale of losses, which suits the curves in colour: m03\n" in page.get_supxlabel()


def test_of_many_methods_the_first_and_the_best_are_in_colour():
    means = methods(17, 2)
    labels = sorted(means["label"].unique())
    assert curves.highlighted(means, labels) == ["m00", "m12", "m13", "m14", "m15", "m16"]
    assert curves.highlighted(means[means["label"] < "m08"], labels[:8]) == labels[:8]
    gap = means[(means["label"] != "m16") | (means["env"] != 1)]  # its average is over another environment
    assert curves.highlighted(gap, labels) == ["m00", "m11", "m12", "m13", "m14", "m15"]
    (page,) = drawn(means)
    panel = page.get_axes()[0]
    colours = [line.get_color() for line in panel.lines]
    assert len(colours) == 17
    assert colours.count(picture.PALE) == 11
    assert colours[12] == looks.looks(labels)["m12"].colour  # as where all are in colour
    assert not panel.collections
    legend = [text.get_text() for text in page.legends[0].get_texts()]
    assert legend == ["m00", "m12", "m13", "m14", "m15", "m16", "11 others"]
    assert "pale: m01, m02" in page.get_supxlabel()


def test_what_a_curve_is_of_is_said():
    assert "one trial" in drawn(methods(2, 2, trials=1))[0]._supxlabel.get_text()
    means = methods(2, 2)
    means.loc[(means["label"] == "m01") & (means["env"] == 1), "trials"] = 2
    text = drawn(means)[0]._supxlabel.get_text()
    assert "mean over 3 trials; bands" in text
    assert "fewer trials than others: m01 on PACS, e1" in text


def test_weights_that_a_method_ends_in_are_a_point(tmp_path):
    lines = sweep_folder.records([[0.5, 0.6]] * 3, [[0.5, 0.5]] * 3)
    lines[-1]["evaluated"] = "average of steps 10 … 20"
    sweep_folder.write(tmp_path, lines)
    means = progress.means(progress.of_runs(load_records(tmp_path).records, {"PACS": ["a", "b"]}))
    (page,) = curves.draw(means, {"PACS": ["a", "b"]}, looks.looks(["ERM"]))
    line = page.get_axes()[0].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([20], [50])
    assert line.get_marker() == "o"


def test_nothing_to_draw():
    with pytest.raises(UserError, match="no training curves"):
        curves.draw(progress.means(progress.of_runs([], {})), {}, {})
