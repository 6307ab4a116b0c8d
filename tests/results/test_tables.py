"""Tables: hand-computed numbers, missing results, equality with the literal restatement, and the rendered forms."""

import argparse
import io
import random
import re

import numpy as np
import pandas as pd
import pytest
from reference import domainbed_selection, sweep_folder

from domainbed_sage.cli import table as table_command
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import dots, expected, looks, paper, render, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.selection import DOMAINBED, METHODS
from domainbed_sage.results.tables import Cell


def table(folder, method="training-domain", **options):
    return tables.build(load_records(folder).records, method, labels={"PACS": "ACPS"}, **options)


def row(grid, algorithm):
    return list(grid.strings().loc[algorithm])


def test_cell_text():
    assert Cell(74.14, 0.44, 3, 3).text() == "74.1 +/- 0.4"
    assert Cell(74.14, 0.44, 3, 3).text("±") == "74.1 ± 0.4"
    assert Cell(74.14, 0.44, 2, 3).text() == "74.1 +/- 0.4 (2/3)"
    assert Cell(74.14, 0.44, 2, 3).text(short=True) == "74.1 +/- 0.4*"
    assert Cell(78.26).text() == "78.3"
    assert Cell(expected=3).text() == "X"


def test_hand_computed_numbers(tmp_path):
    """Env 0: mean of 50 and 54 is 52, standard error 2 / sqrt(2). Trials average 60 and 63.333."""
    sweep_folder.write_flat(tmp_path, [0.50, 0.60, 0.70], trial=0)
    sweep_folder.write_flat(tmp_path, [0.54, 0.60, 0.76], trial=1)
    result = table(tmp_path)
    (grid,) = result.grids
    assert row(grid, "ERM") == ["52.0 +/- 1.4", "60.0 +/- 0.0", "73.0 +/- 2.1", "61.7"]
    assert row(result.averages, "ERM") == ["61.7 +/- 1.2", "61.7"]
    assert not result.missing
    assert not result.footer
    assert (grid.trials, list(grid.cells.columns)) == ((0, 1), ["env0", "env1", "env2", "Avg"])
    first = result.results.iloc[0]
    assert list(first) == ["PACS", "ERM", 0, "env0", 0, 0.5, 0.5, 0, 0, 1, "PACS-ERM-0-t0h0"]


def test_one_trial_has_no_spread(tmp_path):
    """Two equal trials have one of zero; a plain average of cells has none, as before."""
    sweep_folder.write_flat(tmp_path, [0.5, 0.7], trial=3)
    result = table(tmp_path)
    assert row(result.grids[0], "ERM") == ["50.0", "70.0", "60.0"]
    assert row(result.averages, "ERM") == ["60.0", "60.0"]
    assert "accuracy in percent, trial 3 only." in render.caption(result, result.grids[0])
    sweep_folder.write_flat(tmp_path, [0.5, 0.7], trial=4)
    result = table(tmp_path)
    assert row(result.grids[0], "ERM") == ["50.0 +/- 0.0", "70.0 +/- 0.0", "60.0"]
    assert row(result.averages, "ERM") == ["60.0 +/- 0.0", "60.0"]
    assert "mean ± standard error over trials 3, 4." in render.caption(result, result.grids[0])


def test_overall_average_is_the_plain_mean_of_datasets(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.7], dataset="VLCS")
    sweep_folder.write_flat(tmp_path, [0.2, 0.2, 0.2, 0.6], dataset="PACS")
    result = table(tmp_path)
    assert row(result.averages, "ERM") == ["30.0", "60.0", "45.0"]
    assert list(result.averages.cells.columns) == ["PACS", "VLCS", "Avg"]
    assert result.footer == ("A number over one trial has no standard error.",)


def test_missing_is_shown_named_and_never_averaged_over(gappy):
    result = table(gappy)
    assert row(result.grids[0], "SAGE") == ["55.0 +/- 3.5", "80.0 (1/2)", "X", "X"]
    assert row(result.averages, "SAGE") == ["X", "X"]
    assert row(result.grids[0], "ERM")[-1] == "61.7"
    assert result.missing == (("PACS", "SAGE", 1, 1), ("PACS", "SAGE", 2, 0), ("PACS", "SAGE", 2, 1))
    assert result.footer[0] == "Missing: SAGE on PACS, held out env1 (trial 1); env2 (trials 0, 1): no run."


def test_average_over_complete_trials_is_marked(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], trial=0)
    sweep_folder.write_flat(tmp_path, [0.5, None], trial=1)
    assert row(table(tmp_path).averages, "ERM") == ["55.0 (1/2)", "X"]


def test_planned_results_set_what_is_expected_and_the_order(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], dataset="VLCS")
    plan = [(d, a, e, t) for d in ("VLCS", "PACS") for a in ("SAGE", "ERM") for e in (0, 1) for t in (0, 1)]
    result = table(tmp_path, expected=plan)
    assert [grid.title for grid in result.grids] == ["VLCS", "PACS"]
    assert list(result.averages.cells.index) == ["SAGE", "ERM"]
    assert row(result.grids[0], "ERM") == ["50.0 (1/2)", "60.0 (1/2)", "X"]
    assert list(result.grids[1].cells.columns) == ["A", "C", "P", "S", "Avg"]
    assert len(result.missing) == len(plan) - 2


def test_missing_explains_what_the_selection_needs(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.6])
    result = table(tmp_path, "leave-one-domain-out")
    assert row(result.grids[0], "ERM") == ["X", "X", "X"]
    assert result.footer == (
        "Missing: ERM on PACS, held out env0, env1 (trial 0): runs are there, but this selection needs also the runs "
        "that hold out each pair of environments.",
    )


def test_environment_names(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5] * 4, dataset="PACS")
    sweep_folder.write_flat(tmp_path, [0.5] * 2, dataset="Emoji")
    lines = sweep_folder.records([[0.5] * 2], [[0.5] * 2], dataset="Emoji", algorithm="SAGE", environments=["x", "y"])
    sweep_folder.write(tmp_path, lines)
    names = expected.environment_names(load_records(tmp_path).records, (), None)
    assert names == {"PACS": ("A", "C", "P", "S"), "Emoji": ("x", "y")}
    lines = sweep_folder.records([[0.5] * 3], [[0.5] * 3], dataset="Emoji", algorithm="SAM")
    sweep_folder.write(tmp_path, lines, name="larger")
    with pytest.raises(UserError, match=r"larger.* both on Emoji, but one has 2 environments"):
        table(tmp_path)


def test_searched_settings_are_stated(tmp_path):
    for seed in (0, 1, 2):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], hparams_seed=seed)
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], algorithm="SAGE")
    footer = table(tmp_path).footer
    assert footer[-1] == "Selected among several hyperparameter settings per number: ERM 3."


def test_averaged_weights_are_stated(tmp_path):
    for name, more in (("ERM", {}), ("SWAD", {"evaluated": "average of steps 1 … 9"}), ("BMA", {"evaluated": "b"})):
        for trial in (0, 1):
            sweep_folder.write_flat(tmp_path, [0.5, 0.5], algorithm=name, trial=trial, **more)
    assert table(tmp_path).footer == (
        "Evaluated with the averaged weights that the method ends in, not at a checkpoint: BMA, SWAD.",
    )


def test_unknown_method(gappy):
    with pytest.raises(UserError, match="Known: training-domain, leave-one-domain-out, oracle"):
        table(gappy, "best")


@pytest.mark.parametrize("method", DOMAINBED)
def test_equals_literal_restatement(tmp_path, method):
    rng = random.Random(7)
    sizes, trials, records = {"PACS": 4, "VLCS": 3}, (0, 1, 2), []
    for dataset, n in sizes.items():
        sets = [[i] for i in range(n)] + [[i, j] for i in range(n) for j in range(i)]
        for algorithm in ("ERM", "SAGE"):
            for trial in trials:
                for hparams_seed in (0, 1):
                    for test_envs in sets:
                        ins, outs = ([[rng.randint(0, 8) / 8 for _ in range(n)] for _ in range(4)] for _ in range(2))
                        args = {"dataset": dataset, "algorithm": algorithm, "trial": trial}
                        lines = sweep_folder.records(ins, outs, test_envs=test_envs, hparams_seed=hparams_seed, **args)
                        sweep_folder.write(tmp_path, lines)
                        records += lines
    result = table(tmp_path, method)
    for algorithm in ("ERM", "SAGE"):
        for grid in result.grids:
            rule = (records, grid.title, algorithm, sizes[grid.title], trials, method)
            assert row(grid, algorithm) == domainbed_selection.dataset_row(*rule)
        rule = (records, sizes, algorithm, trials, method)
        assert row(result.averages, algorithm) == domainbed_selection.averages_row(*rule)


def pipe_table(text):
    """Cells of the first pipe table by the first cell of their row."""
    lines = [line for line in text.partition("\n## Averages")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set("".join(rows[1])) == set(":-")
    return {name: cells for name, *cells in rows}


def test_markdown_bolds_the_best_complete_cells(tmp_path):
    for algorithm, accuracies in {"ERM": [0.5, 0.9], "SAGE": [0.50049, None], "SAM": [0.4, 0.8]}.items():
        sweep_folder.write_flat(tmp_path, accuracies, algorithm=algorithm)
    found = pipe_table(render.markdown(table(tmp_path)))
    assert found["ERM"] == ["**50.0**", "**90.0**", "**70.0**"]
    assert found["SAGE"] == ["**50.0**", "X", "X"]
    assert found["SAM"] == ["40.0", "80.0", "60.0"]


def test_incomplete_cell_does_not_compete_for_bold(gappy):
    found = pipe_table(render.markdown(table(gappy)))
    assert found["SAGE"] == ["**55.0 ± 3.5**", "80.0 (1/2)", "X", "X"]
    assert found["ERM"][:2] == ["52.0 ± 1.4", "**60.0 ± 0.0**"]


def test_latex_is_complete_and_escaped(tmp_path):
    lines = sweep_folder.records([[0.5, 0.6]], [[0.5, 0.6]], algorithm="A_1&B%#", environments=["fluent_hc", "noto"])
    sweep_folder.write(tmp_path, lines)
    text = render.latex(table(tmp_path))
    assert r"Algorithm & fluent\_hc & noto & Avg \\" in text
    assert r"A\_1\&B\%\# & 50.0 & X & X \\" in text
    for command in (r"\begin{table}", r"\caption{PACS", r"\toprule", r"\midrule", r"\bottomrule", r"\end{table}"):
        assert text.count(command) == (1 if "PACS" in command else 2)
    assert "accuracy in percent, trial 0 only. Model selection: training-domain validation set." in text
    assert text.isascii()


def test_csv_keeps_full_precision(tmp_path):
    sweep_folder.write_flat(tmp_path, [1 / 3, 2 / 3])
    result = table(tmp_path)
    again = pd.read_csv(io.StringIO(render.csv(result)))
    assert list(again["test_acc"]) == [1 / 3, 2 / 3]
    assert list(again.columns) == list(result.results.columns)


def test_text_fits_a_terminal_and_keeps_domainbeds_values(tmp_path):
    for trial in (0, 1, 2):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6, 0.7, 0.8], trial=trial)
    for trial in (0, 1):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6, 0.7, 0.8], algorithm="LongName", trial=trial)
    text = render.text(table(tmp_path))
    assert max(map(len, text.splitlines())) <= 80
    assert "-------- Dataset: PACS, model selection method: training-domain validation set" in text
    assert "ERM        50.0 +/- 0.0   60.0 +/- 0.0" in text
    assert "LongName   50.0 +/- 0.0*" in text
    assert "* trials missing, see below" in text


def test_write_all(gappy, tmp_path):
    paths = render.write_all(table(gappy), tmp_path / "out")
    assert [path.name for path in paths] == ["table.md", "table.tex", "table.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)


def test_unwritable_folder(gappy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        render.write_all(table(gappy), tmp_path / "file")


def test_means_are_numbers(gappy):
    means = table(gappy).grids[0].means
    np.testing.assert_allclose(means.loc["ERM"], [52, 60, 73, 185 / 3])
    assert np.isnan(means.loc["SAGE", "Avg"])


def command(*words):
    parser = argparse.ArgumentParser()
    table_command.add_arguments(parser)
    return table_command.main(parser.parse_args([str(word) for word in words]))


def test_command_prints_and_writes(gappy, capsys):
    sweep_folder.write(gappy, sweep_folder.records([[0.5] * 3], [[0.5] * 3], trial=5), name="half", done=False)
    assert command(gappy, "--selection", "all", "--paper", "--pictures") == 0
    printed = capsys.readouterr().out
    for title in (METHODS[name].title for name in DOMAINBED):
        assert f"-------- Dataset: PACS, model selection method: {title}" in printed.replace(",\n        ", ",")
    assert "Left out, not finished: 1 (half)." in printed
    for name in DOMAINBED:
        for file in (f"table-{name}.md", f"table-{name}.png", f"paper-{name}.csv"):
            assert (gappy / file).exists()
            assert file in printed
    assert command(gappy, "--latex", "--include-unfinished", "--out", gappy / "out") == 0
    printed = capsys.readouterr().out
    assert r"\begin{table}" in printed
    assert "Included although not finished: 1 (half)." in printed
    assert "Not runs" not in printed
    assert (gappy / "out" / "table.tex").exists()
    assert not list((gappy / "out").glob("*.png"))  # only on request


def test_a_folder_that_cannot_be_written_to_is_printed(gappy, capsys, monkeypatch):
    def refuse(path, content):
        raise UserError(f"Cannot write {path}: Read-only file system. Choose another folder.")

    monkeypatch.setattr(render, "write_atomically", refuse)
    assert command(gappy) == 0
    printed = capsys.readouterr()
    assert "-------- Dataset: PACS" in printed.out
    assert "Wrote" not in printed.out
    assert "Read-only file system" in printed.err
    assert "--out DIR" in printed.err
    with pytest.raises(UserError, match="Read-only"):
        command(gappy, "--out", gappy / "there")


T_95 = {1: 12.706204736432095, 2: 4.302652729696142, 3: 3.182446305284263}  # two-sided 5% points of Student's t, by df


def test_intervals_of_cells_and_averages(tmp_path):
    """Half-widths by hand: deviation with ddof 1, over sqrt(trials), times t; environments are averaged in a trial."""
    cells = {"PACS": [[0.5, 0.7], [0.6, 0.7], [0.58, 0.76]], "VLCS": [[0.2, 0.4], [0.3, 0.4]]}
    for dataset, trials in cells.items():
        for trial, accuracies in enumerate(trials):
            sweep_folder.write_flat(tmp_path, accuracies, dataset=dataset, trial=trial)
    result = table(tmp_path, interval=True)
    pacs, vlcs, averages = (grid.cells.loc["ERM"] for grid in (*result.grids, result.averages))
    variances = {name: np.var(100 * np.mean(trials, axis=1), ddof=1) for name, trials in cells.items()}
    assert pacs["env0"].err == pytest.approx(T_95[2] * np.std([50, 60, 58], ddof=1) / 3**0.5)
    assert vlcs.iloc[1].err == 0
    for own, name, n in ((pacs, "PACS", 3), (vlcs, "VLCS", 2)):
        expected_half = T_95[n - 1] * (variances[name] / n) ** 0.5
        assert own["Avg"].err == pytest.approx(expected_half)
        assert averages[name].err == pytest.approx(expected_half)
    assert averages["Avg"].err == pytest.approx(T_95[3] * (variances["PACS"] / 3 + variances["VLCS"] / 2) ** 0.5 / 2)
    plain = table(tmp_path)
    for ours, theirs in zip((*result.grids, result.averages), (*plain.grids, plain.averages), strict=True):
        np.testing.assert_allclose(ours.means.to_numpy(), theirs.means.to_numpy(), rtol=1e-12)


def test_an_average_without_all_of_its_trials_has_no_interval(gappy):
    """SAGE lacks results; ERM's average lacks a trial when another row plans it."""
    result = table(gappy, interval=True)
    assert row(result.grids[0], "SAGE") == ["55.0 +/- 63.5", "80.0 (1/2)", "X", "X"]
    assert row(result.averages, "SAGE") == ["X", "X"]
    uneven = [("PACS", "ERM", env, trial) for env in range(3) for trial in (0, 1)] + [("PACS", "ERM", 0, 2)]
    sweep_folder.write_flat(gappy, [0.5, None, None], trial=2)
    assert row(table(gappy, interval=True, expected=uneven).grids[0], "ERM")[-1] == "61.4"


def test_one_trial_has_no_interval(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.7], trial=3)
    sweep_folder.write_flat(tmp_path, [0.5, 0.7], dataset="VLCS", trial=3)
    sweep_folder.write_flat(tmp_path, [0.5, 0.8], dataset="VLCS", trial=4)
    result = table(tmp_path, interval=True)
    assert row(result.averages, "ERM") == ["60.0", "62.5 +/- 31.8", "61.2"]
    assert result.footer[1] == "A number over one trial has no confidence interval."


@pytest.mark.parametrize("interval", [False, True])
def test_no_format_has_a_spread_over_one_trial(tmp_path, interval):
    sweep_folder.write_flat(tmp_path, [0.5, 0.7, 0.6, 0.6])
    result = table(tmp_path, interval=interval)
    comparison = paper.compare(result, load_records(tmp_path).records)
    printed = [form(result) for form in (render.text, render.markdown, render.latex)]
    printed += [form(comparison) for form in (paper.text, paper.markdown, paper.latex)]
    printed.append(result._repr_html_())
    for text in printed:
        assert not re.search(r"\d (±|\+/-|\$\\pm\$) ", text)
    numbers = pd.read_csv(io.StringIO(paper.csv(comparison)))
    assert numbers["half_width_95" if interval else "stderr"].isna().all()
    if interval:
        assert pd.read_csv(io.StringIO(render.csv(result)))["half_width_95"].isna().all()


def test_every_format_says_which_spread_it_has(tmp_path):
    for trial in (0, 1, 2):
        sweep_folder.write_flat(tmp_path, [0.5 + 0.01 * trial, 0.7], trial=trial)
    result = table(tmp_path, interval=True)
    half, title = f"{T_95[2] / 3**0.5:.1f}", "half-width of the 95% confidence interval"
    assert f"51.0 +/- {half}" in render.text(result)
    assert f"51.0 ± {half}" in render.markdown(result)
    assert rf"51.0 $\pm$ {half}" in render.latex(result)
    assert f"51.0 ± {half}" in result._repr_html_()
    for text in (render.markdown(result), render.latex(result).replace("\\%", "%"), result._repr_html_()):
        assert f"{title} over trials 0, 1, 2" in text
        assert "standard error over" not in text
    assert "half-width of a 95% confidence" in render.text(result).replace("\n  ", " ")
    cells = pd.read_csv(io.StringIO(render.csv(result)))
    assert list(cells["column"]) == ["env0", "env1", "Avg", "PACS", "Avg"]
    assert cells["half_width_95"].iloc[0] == pytest.approx(T_95[2] / 3**0.5)
    assert list(cells["trials"]) == [3, 3, 0, 3, 0]
    below = [dots.draw(shown, looks.looks(["ERM"]))[0].get_supxlabel() for shown in (result, table(tmp_path))]
    assert title in below[0]
    assert "standard error" in below[1]


def test_command_writes_intervals_to_files_of_their_own(gappy, capsys):
    assert command(gappy) == 0
    before = (gappy / "table.md").read_text()
    assert command(gappy, "--interval", "--paper") == 0
    assert "55.0 +/- 63.5" in capsys.readouterr().out
    assert (gappy / "table.md").read_text() == before
    assert (gappy / "paper-interval.csv").exists()
    assert "Not runs" not in (gappy / "table-interval.md").read_text()
