"""Figures 3 and 5, from records: what they say of those that come with the suite, and what of a part of them."""

import json
import math
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from domainbed_sage.core.resources import shipped
from domainbed_sage.paper import fig1, fig2, fig3, fig5, records
from domainbed_sage.results import packed

SWEEPS = {fig3.GRID: fig3.check_grid, fig3.COMPONENTS: fig3.check_components, fig5.SWEEP: fig5.check}
COMMITTED = Path(__file__).parent.parent.parent / "results/paper_check/figures.json"
WORDS = ("claim", "computed", "verdict", "how")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The records of a sweep, unpacked where `sweep run` writes them."""

    def unpack(name):
        with packed.unpacked(shipped(f"results/{name}")) as whole:
            shutil.copytree(whole, tmp_path / "results" / name)
        return tmp_path / "results" / name

    monkeypatch.chdir(tmp_path)
    return unpack


def a_run(folder):
    return sorted(run for run in folder.iterdir() if run.is_dir())[0]


@pytest.fixture(scope="module")
def of_suite(tmp_path_factory):
    """What the records that come with the suite say, by sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        return {name: check(0, False) for name, check in SWEEPS.items()}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_folder_here_wins_and_gives_the_same(name, results, of_suite):
    folder = results(name)
    assert records.folder(name).resolve() == folder
    assert SWEEPS[name](0, False).findings == of_suite[name].findings
    assert of_suite[name].figure is not None


@pytest.mark.parametrize("name", SWEEPS)
def test_a_missing_run_leaves_the_figure_out_and_says_what_makes_it(name, results, capsys):
    shutil.rmtree(a_run(results(name)))
    part = SWEEPS[name](0, False)
    assert part.figure is None
    assert list(part.findings) == []
    flag = " --log_alignment" if name == fig5.SWEEP else ""
    assert f"domainbed-sage sweep run {name}{flag}\n" in capsys.readouterr().err


def test_no_records_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert records.folder("nothing", "--flag") is None
    assert "there are no records in results/nothing. To make them: domainbed-sage sweep run nothing --flag" in (
        capsys.readouterr().err
    )


def test_the_grid(results):
    table = fig3.complete(fig3.GRID)
    grid = fig3.cells(table)
    assert [(cell.rho, cell.gamma) for cell in grid] == [
        (rho, gamma) for rho in (1e-4, 3e-4, 1e-3, 3e-3) for gamma in (1e-5, 1e-4, 1e-3, 1e-2)
    ]
    accuracies = table.results.set_index(["algorithm", "env"])["test_acc"]
    assert grid[0].accuracy == pytest.approx(100 * accuracies["rho 1e-4 gamma 1e-5"].mean())


def cells(inner, outer):
    return [fig3.Cell(r, g, inner if r == g == 2 else outer) for r in (1.0, 2.0, 3.0) for g in (1.0, 2.0, 3.0)]


@pytest.mark.parametrize(
    ("inner", "outer", "verdict"), [(50.0, 47.9, "holds"), (50.0, 48.1, "holds in part"), (40.0, 50.0, "holds in part")]
)
def test_verdict_of_the_grid(inner, outer, verdict):
    """At a standard error of 1 point, the ends have to be two points below the inner setting."""
    assert fig3._of_grid(cells(inner, outer), 1.0).verdict == verdict


def test_inner_settings_that_differ_by_four_standard_errors_are_not_stable():
    grid = [fig3.Cell(float(r), float(g), 50.0 + 4 * (r == g == 2)) for r in range(4) for g in range(4)]
    assert fig3._of_grid(grid, 1.0).verdict == "does not hold"


def test_the_grid_is_drawn_at_its_places():
    """Rows of the picture are radii, columns noise scales, from the lowest at the lower left."""
    grid = [fig3.Cell(rho, gamma, 50 + 10 * rho + gamma) for rho in (2.0, 1.0) for gamma in (3.0, 5.0, 4.0)]
    figure = Figure()
    fig3._draw_grid(figure, grid)
    panel = figure.axes[0]
    assert panel.images[0].get_array().tolist() == [[63, 64, 65], [73, 74, 75]]
    assert panel.images[0].origin == "lower"
    texts = {text.get_position(): text.get_text() for text in panel.texts}
    assert texts == {(j, i): f"{63 + j + 10 * i:.1f}" for i in range(2) for j in range(3)}
    assert [label.get_text() for label in panel.get_xticklabels()] == ["3", "4", "5"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["1", "2"]
    assert [panel.get_xlabel()[-1], panel.get_ylabel()[-1]] == ["γ", "ρ"]


def test_lines_of_the_components_are_where_equality_with_sage_would_end():
    """SAGE minus the row is 3 within 1 to 5: the row's line goes from 5 to 1 below SAGE."""
    figure = Figure()
    fig3._draw_components(figure, {"SAGE": 60.0, "ERM": 57.0}, {"ERM": fig3.Gain(3.0, 1.0, 5.0)})
    lines = [line.get_xdata() for line in figure.axes[0].lines if list(line.get_ydata()) == [0, 0]]
    assert [list(ends) for ends in lines] == [[55, 59]] * 2
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["ERM", "SAGE"]


def test_chance_error_is_binomial():
    """Of four equal shares p of n images each, sqrt(p (1 - p) / n) / 2."""
    table = fig3.complete(fig3.COMPONENTS)
    p = table.results["test_acc"].mean()
    assert fig3.chance_error(table) == pytest.approx(100 * math.sqrt(p * (1 - p) / 238) / 2, rel=0.15)


def test_gains_are_paired():
    """Against a loop over pairs."""
    table = fig3.complete(fig3.COMPONENTS)
    accuracy = table.results.set_index(["algorithm", "env", "trial_seed"])["test_acc"] * 100
    gains = fig3.gains_of_sage(table)
    pairs = [[accuracy["SAGE", env, t] - accuracy["no noise", env, t] for t in range(2)] for env in range(4)]
    assert gains["no noise"].points == pytest.approx(np.mean(pairs))
    se = math.sqrt(sum(np.var(own, ddof=1) / 2 for own in pairs)) / 4
    assert gains["no noise"].high - gains["no noise"].points == pytest.approx(2.776445 * se, rel=1e-5)  # t, df 4


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ((2.0, 0.1, 4.0), "holds"),
        ((2.0, -0.1, 4.0), "holds in part"),
        ((-1.0, -3.0, 1.0), "does not hold"),
        ((0.0, -1.0, 1.0), "does not hold"),
    ],
)
def test_verdict_of_a_component(gain, verdict):
    means = {"SAGE": 50.0, "no noise": 48.0}
    assert fig3._of_component("no noise", "claim", means, fig3.Gain(*gain)).verdict == verdict


def test_runs_without_the_cosine_are_not_drawn(results, capsys):
    path = a_run(results(fig5.SWEEP)) / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "unseen_alignment"}) + "\n" for line in lines)
    )
    assert fig5.check(0, False).figure is None
    assert "are not the same, or have no cosine" in capsys.readouterr().err


def test_pairs_have_one_held_out_style_and_trial(monkeypatch, tmp_path, capsys):
    one = curve([0.1, 0.2])
    monkeypatch.setattr(records, "folder", lambda *_: tmp_path)
    monkeypatch.setattr(fig5, "curves", lambda folder: {"ERM": [one], "SAGE": [one._replace(trial=1)]})
    assert fig5.check(0, False).figure is None
    assert "are not the same" in capsys.readouterr().err


def test_curves_are_those_of_the_records(results):
    folder = results(fig5.SWEEP)
    found = fig5.curves(folder)
    run = a_run(folder)
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    first = found[lines[0]["args"]["algorithm"]][0]
    assert first.held_out == "fluent_hc"
    assert first.cosine.tolist() == [line["unseen_alignment"] for line in lines]
    assert first.late() == pytest.approx(np.mean([v["unseen_alignment"] for v in lines if v["step"] > 150]))


def curve(values):
    return fig5.Curve("a", 0, np.arange(float(len(values))), np.array(values))


def test_verdicts_of_the_cosine():
    up, down = [curve([0.1, 0.2, 0.4, 0.4 + d]) for d in (0.0, 0.01)], [curve([0.1, 0.2, 0.1, 0.1])] * 2
    assert [one.verdict for one in fig5.findings({"ERM": down, "SAGE": up})] == ["holds", "holds"]
    assert [one.verdict for one in fig5.findings({"ERM": up, "SAGE": down})] == ["holds", "does not hold"]
    wide = [curve([0.1, 0.2, 0.1, 0.1]), curve([0.1, 0.2, 0.1, 0.9])]
    assert fig5.findings({"ERM": down, "SAGE": wide})[1].verdict == "holds in part", "the interval has 0 inside"
    below = [curve([0.1, 0.2, -0.1, -0.1])] * 2
    assert fig5.findings({"ERM": below, "SAGE": up})[0].verdict == "holds in part"


def test_figures_without_random_numbers_are_committed_word_for_word(of_suite):
    """Figures 1, 3 and 5, and the noise of Section 3.2: they depend on records and formulas alone."""
    committed = {one["where"]: one for one in json.loads(COMMITTED.read_text())["findings"]}
    found = [*fig1.findings(), fig2._vanishing(), *chain(*(part.findings for part in of_suite.values()))]
    rest = {one.partition(",")[0] for one in set(committed) - {one.where for one in found}}
    assert rest == {"Figure 2", "Figure 4", "Appendix D"}
    for one in found:
        there = committed[one.where]
        assert {name: there[name] for name in WORDS} == {name: getattr(one, name) for name in WORDS}
        assert there["numbers"] == pytest.approx(dict(one.numbers), rel=1e-6, abs=1e-9)
