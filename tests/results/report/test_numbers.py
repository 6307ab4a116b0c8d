"""The numbers of a report: those of the table, of the comparison, and of the records."""

import math
import re

import numpy as np
import pytest
from reference import sweep_folder
from report_cases import SIZES, embedded, grow, grow_with_images, made
from scipy import stats

import domainbed_sage as dg
from domainbed_sage.results.compare import QUESTIONS
from domainbed_sage.results.selection import METHODS as SELECTIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return grow(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    return made(folder, tmp_path_factory.mktemp("out"))


def number(text):
    return float(text.replace("−", "-"))


def test_tables_are_those_of_table(folder, report):
    _, page, numbers, _ = report
    table = dg.table(folder)
    shown = [*page.tables["averages"], *page.tables["datasets"]]
    stored = [numbers["averages"], *numbers["datasets"]["grids"]]
    for rows, data, grid in zip(shown, stored, (table.averages, *table.grids), strict=True):
        assert data["columns"] == rows[0][1 : len(grid.cells.columns) + 1] == list(grid.cells.columns)
        for own, row, (method, *cells) in zip(data["rows"], rows[1:], grid.cells.itertuples(), strict=True):
            assert own["method"] == row[0] == method
            assert [cell["mean"] for cell in own["cells"]] == [cell.mean for cell in cells]
            assert [cell["err"] for cell in own["cells"]] == [None if math.isnan(c.err) else c.err for c in cells]
            assert row[1 : len(cells) + 1] == [cell.text(" ±").replace("± ", "±").replace("  ", " ") for cell in cells]


def test_differences_are_those_of_compare(folder, report):
    _, page, numbers, _ = report
    frame = dg.compare(folder, "ERM", ["SAM", "SAGE"]).frame
    rows = numbers["differences"]["rows"]
    assert [row["method"] for row in rows] == ["SAGE", "SAM"]
    for row in rows:
        expected = frame.loc[row["method"]]
        assert {name: row[name] for name in frame.columns} == expected.astype(object).where(
            expected.notna(), None
        ).to_dict()
    head, *shown = page.tables["differences"][0]
    assert head[0] == "Method"
    for cells, row in zip(shown, rows, strict=True):
        assert number(cells[2]) == pytest.approx(row["difference"], abs=0.0051)
        for at, question in zip((3, 5), QUESTIONS, strict=True):
            ends = [number(end) for end in cells[at].split(" to ")]
            assert ends == pytest.approx([row[f"{question}_low"], row[f"{question}_high"]], abs=0.0051)
            p = row[f"{question}_p_holm"]
            assert cells[at + 1] == ("< 0.001" if p < 0.001 else f"{p:.3f}")


def test_differences_on_each_dataset(folder, report):
    _, page, numbers, _ = report
    data = numbers["by_dataset"]
    assert data["datasets"] == page.tables["differences"][1][0][1:]
    assert [row["method"] for row in data["rows"]] == ["SAGE", "SAM"]
    results = dg.table(folder).results.set_index(["dataset", "algorithm", "trial_seed", "env"])["test_acc"]
    for row, (_, *texts) in zip(data["rows"], page.tables["differences"][1][1:], strict=True):
        for dataset, cell, text in zip(data["datasets"], row["cells"], texts, strict=True):
            points = 100 * (results[dataset, row["method"]] - results[dataset, "ERM"]).groupby("trial_seed").mean()
            test = stats.ttest_1samp(points, 0)
            assert cell["difference"] == pytest.approx(points.mean())
            assert (cell["low"], cell["high"]) == pytest.approx(tuple(test.confidence_interval()))
            assert cell["trials"] == len(points) == 3
            shown = [number(part) for part in re.findall(r"[+−][\d.]+", text)]
            assert shown == pytest.approx([cell["difference"], cell["low"], cell["high"]], abs=0.0051)


def test_what_a_dataset_does_not_answer(tmp_path):
    """VLCS has one trial of SAM in common with ERM, PACS equal differences in both, OfficeHome nothing of SAM."""
    for dataset, trials in (("PACS", 2), ("VLCS", 2), ("OfficeHome", 2)):
        for trial in range(trials):
            sweep_folder.write_flat(tmp_path, [0.5, 0.6], dataset=dataset, trial=trial)
            if dataset == "PACS" or (dataset, trial) == ("VLCS", 1):
                sweep_folder.write_flat(tmp_path, [0.52, 0.6], dataset=dataset, trial=trial, algorithm="SAM")
    _, page, numbers, _ = made(tmp_path, tmp_path)
    (sam,) = numbers["by_dataset"]["rows"]
    cells = dict(zip(numbers["by_dataset"]["datasets"], sam["cells"], strict=True))
    nothing = {"low": None, "high": None}
    one = pytest.approx(1.0)
    assert cells == {
        "PACS": {"difference": one, **nothing, "trials": 2},
        "VLCS": {"difference": one, **nothing, "trials": 1},
        "OfficeHome": {"difference": None, **nothing, "trials": 0},
    }
    assert page.tables["differences"][1][1][1:] == [{"OfficeHome": "–"}.get(name, "+1.00") for name in cells]


def test_the_interval_of_other_test_images_is_that_of_compare(tmp_path):
    folder = grow_with_images(tmp_path / "runs")
    html, page, numbers, _ = made(folder, tmp_path)
    frame = dg.compare(folder, "ERM", ["SAGE"]).frame
    (row,) = numbers["differences"]["rows"]
    ends = [row["images_low"], row["images_high"]]
    assert ends == [frame.loc["SAGE", "images_low"], frame.loc["SAGE", "images_high"]]
    head, cells = page.tables["differences"][0]
    assert head[-1] == "Other test images"
    assert [number(end) for end in cells[-1].split(" to ")] == pytest.approx(ends, abs=0.0051)
    assert html.count('class="dotted"') == 1
    assert "Dotted, below: other test images" in page.sections["differences"]


def test_without_correct_images_they_are_not_mentioned(report):
    html, page, *_ = report
    assert 'class="dotted"' not in html
    assert "test images" not in page.sections["differences"]


def test_p_of_declared_comparisons_is_adjusted_for_these_alone(folder, tmp_path):
    _, page, numbers, _ = made(folder, tmp_path, compared=("SAM",))
    frame = dg.compare(folder, "ERM", ["SAM"]).frame
    by_method = {row["method"]: row for row in numbers["differences"]["rows"]}
    assert by_method["SAM"]["these_p_holm"] == frame.loc["SAM", "these_p"]
    assert by_method["SAGE"]["these_p_holm"] is by_method["SAGE"]["like_p_holm"] is None
    assert [row["declared"] for row in by_method.values()] == [name == "SAM" for name in by_method]
    assert numbers["verdict"]["sentences"] == dg.compare(folder, "ERM", ["SAM"]).sentence().splitlines()
    assert "1 declared comparison (Holm)" in page.sections["differences"]


def test_verdict_without_a_declared_comparison_says_so(folder, report):
    _, page, numbers, _ = report
    everything = dg.compare(folder, "ERM", ["SAM", "SAGE"]).sentence().splitlines()
    assert numbers["verdict"]["sentences"] == [everything[1]]
    assert "No comparison was declared" in page.sections["verdict"]
    assert "p-values are adjusted for all 2 rows" in page.sections["verdict"]


def test_shaded_rows_are_not_separable_from_the_best(folder, report):
    html, _, numbers, _ = report
    assert numbers["averages"]["best"] == "SAGE"
    frame = dg.compare(folder, "SAGE", ["ERM", "SAM"]).frame
    for row in numbers["averages"]["rows"]:
        if row["method"] != "SAGE":
            assert row["p_to_best"] == frame.loc[row["method"], "these_p_holm"]
            assert row["inseparable"] == (row["p_to_best"] > 0.05)
            assert (f'<tr class="near"><th scope="row">{row["method"]}' in html) == row["inseparable"]
    assert '<tr class="near"><th scope="row">SAGE' in html


def test_a_row_that_only_chance_sets_apart_is_shaded(tmp_path):
    html, page, numbers, _ = made(grow(tmp_path / "runs", methods=("ERM", "A"), better=0.0), tmp_path)
    rows = {row["method"]: row for row in numbers["averages"]["rows"]}
    (other,) = rows.keys() - {numbers["averages"]["best"]}
    assert rows[other]["p_to_best"] > 0.05
    assert rows[other]["inseparable"]
    assert html.count('<tr class="near">') == 2
    assert f"not separable from {numbers['averages']['best']}" in page.sections["averages"]


def test_heat_is_the_mean_over_common_trials(folder, report):
    _, page, numbers, _ = report
    cells = dg.table(folder).results.set_index(["algorithm", "dataset", "env", "trial_seed"])["test_acc"] * 100
    heat = numbers["heat"]
    places = [(g["dataset"], env) for g in heat["groups"] for env in range(len(g["environments"]))]
    assert sorted(places) == [(dataset, env) for dataset, n in sorted(SIZES.items()) for env in range(n)]
    assert [group["dataset"] for group in heat["groups"]] == [grid.title for grid in dg.table(folder).grids]
    for row in heat["rows"]:
        for (dataset, env), points in zip(places, row["points"], strict=True):
            expected = np.mean(
                [cells[row["method"], dataset, env, t] - cells["ERM", dataset, env, t] for t in range(3)]
            )
            assert points == pytest.approx(expected, abs=1e-9)
    shown = page.tables["environments"][0][2:]
    assert [[number(text) for text in cells[1:]] for cells in shown] == [
        pytest.approx(row["points"], abs=0.051) for row in heat["rows"]
    ]


def test_selection_methods(folder, report):
    selections = report[2]["selections"]
    assert {own["name"] for own in selections["columns"]} | {"leave-one-domain-out"} == set(SELECTIONS)
    for at, own in enumerate(selections["columns"]):
        means = dg.table(folder, own["name"]).averages.means["Avg"]
        assert [row["means"][at] for row in selections["rows"]] == list(means)
    assert "leave-one-domain-out cross-validation: it needs also the runs" in selections["without"][0]


def test_source_validation(folder, report):
    results = dg.table(folder).results
    validation = report[2]["validation"]
    by = results.groupby(["algorithm", "dataset"])[["val_acc", "test_acc"]].mean() * 100
    for row in validation["rows"]:
        own = by.loc[row["method"]].loc[validation["datasets"]]
        assert row["gaps"] == pytest.approx(list(own["val_acc"] - own["test_acc"]))
        assert (row["validation"], row["held_out"]) == pytest.approx(tuple(own.mean()))
    assert all(-1 <= value <= 1 for value in validation["rank_correlations"])


def test_ranks_wins_and_losses(folder, report):
    comparison = dg.compare(folder, "ERM", ["SAM", "SAGE"])
    rows = {row["method"]: row for row in report[2]["ranks"]["rows"]}
    assert list(rows) == ["SAGE", "SAM", "ERM"]
    assert {name: row["rank"] for name, row in rows.items()} == comparison.ranks.to_dict()
    assert [rows["SAGE"][name] for name in ("wins", "ties", "losses")] == list(
        comparison.frame.loc["SAGE", ["wins", "ties", "losses"]]
    )
    assert rows["ERM"]["wins"] is None


def test_curves_end_at_the_table(folder, report):
    html, _, numbers, _ = report
    table = dg.table(folder)
    for data, grid in zip(numbers["curves"]["datasets"], table.grids, strict=True):
        assert (data["name"], data["environments"]) == (grid.title, list(grid.cells.columns[:-1]))
        for method, envs in data["lines"]["selected_so_far"].items():
            assert [env[-1] for env in envs] == pytest.approx(list(grid.means.loc[method])[:-1])
        steps = table.results[table.results["dataset"] == grid.title].groupby(["algorithm", "env"])["step"]
        for (method, env), chosen in steps:
            assert data["selected"][method][env] == sorted(set(chosen))
    drawn = embedded(html)["curves"][0]["lines"]["selected_so_far"]["SAM"][0]
    exact = numbers["curves"]["datasets"][0]["lines"]["selected_so_far"]["SAM"][0]
    assert drawn == pytest.approx(exact, rel=5e-4)


def test_scalars_that_a_method_logs_are_curves(tmp_path):
    grow(tmp_path / "runs", sizes={"PACS": 2}, agreement=0.25)
    numbers = made(tmp_path / "runs", tmp_path)[2]
    lines = numbers["curves"]["datasets"][0]["lines"]
    assert list(lines) == ["selected_so_far", "source_validation", "loss", "agreement"]
    assert lines["agreement"]["SAM"] == [[0.25] * 3] * 2


def test_cost(folder, report):
    """Steps 0, 10 and 20 with 0.5 s each: 21 steps; 11 environments and 3 trials."""
    row = report[2]["cost"]["rows"][0]
    assert (row["runs"], row["step_s"], row["memory_gb"]) == (33, 0.5, 2.0)
    assert row["hours"] == pytest.approx(33 * 21 * 0.5 / 3600)
    assert row["average"] == dg.table(folder).averages.means.loc["ERM", "Avg"]
    assert row["points_per_hour"] == pytest.approx(row["average"] / row["hours"])


def test_every_run_with_its_settings(folder, report):
    html, page, numbers, _ = report
    runs = numbers["runs"]
    assert {row["folder"] for row in runs["rows"]} == {path.name for path in folder.iterdir()}
    results = dg.table(folder).results
    for row in runs["rows"]:
        (own,) = results[
            (results["dataset"] == row["dataset"])
            & (results["algorithm"] == row["method"])
            & (results["env_name"] == row["held_out"][0])
            & (results["trial_seed"] == row["trial"])
        ].to_dict("records")
        assert (row["step"], row["accuracy"]) == (own["step"], pytest.approx(100 * own["test_acc"]))
    assert (runs["common"], [own["values"] for own in runs["settings"]]) == ({"lr": 1.0}, [{}])
    assert "The same in all runs: lr 1.0" in page.sections["runs"]
    assert [row[-1] for row in embedded(html)["runs"]] == [row["folder"] for row in runs["rows"]]


def test_paper_is_shown_on_request(folder, report, tmp_path):
    assert "--paper" in report[1].sections["paper"]
    _, page, numbers, _ = made(folder, tmp_path, with_paper=True)
    assert ["", "paper", "97.4", "85.5", "87.1", "61.1", "63.4", "78.9", "78.9"] in page.tables["paper"][0]
    assert numbers["paper"]["columns"][0] == ""
