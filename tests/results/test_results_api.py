"""Frames and tables of the package's front door: the same numbers from a frame, or a part of it, as from the folder."""

import json
import random

import pandas as pd
import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.core.errors import UserError
from domainbed_sage.results.selection import METHODS

SIZES = {"VLCS": 3, "PACS": 4}
ROWS = ("SAGE", "ERM", "B & <b>")
TRIALS = (0, 1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep with single and pairwise runs of two settings; some are missing, one is not finished, one not planned."""
    rng, path = random.Random(5), tmp_path_factory.mktemp("sweep")
    for dataset, n in SIZES.items():
        sets = [[i] for i in range(n)] + [[i, j] for i in range(n) for j in range(i)]
        for label in ROWS:
            for trial in TRIALS[: 2 if label == "SAGE" else 3]:
                for test_envs, hparams_seed in ((envs, seed) for envs in sets for seed in (0, 1)):
                    if (label, dataset, trial, test_envs) != ("ERM", "PACS", 2, [1]):
                        ins, outs = ([[rng.randint(0, 8) / 8 for _ in range(n)] for _ in range(4)] for _ in range(2))
                        args = {"dataset": dataset, "algorithm": label, "trial": trial, "hparams_seed": hparams_seed}
                        lines = sweep_folder.records(ins, outs, test_envs=test_envs, **args)
                        folder = f"{dataset}{ROWS.index(label)}{trial}{hparams_seed}{test_envs}"
                        sweep_folder.write(path, lines, name=folder)
    late = sweep_folder.records([[0.5] * 3], [[0.5] * 3], dataset="VLCS", trial=3)
    sweep_folder.write(path, late, name="late", done=False)
    plan = [(d, a, [e], t) for d in SIZES for a in ROWS[:2] for e in range(SIZES[d]) for t in TRIALS]
    plan.append(("PACS", "ERM", [0, 1], 0))
    (path / "plan.json").write_text(json.dumps(plan))
    return path


@pytest.fixture
def frame(folder):
    return dg.load_results(folder)


def assert_same_tables(ours, theirs):
    assert ours.to_text() == theirs.to_text()
    assert ours.to_latex() == theirs.to_latex()
    pd.testing.assert_frame_equal(ours.results, theirs.results)
    assert ours.missing == theirs.missing


@pytest.mark.parametrize("method", METHODS)
def test_a_frame_gives_the_tables_of_its_folder(folder, frame, method):
    ours, theirs = dg.table(frame, method), dg.table(folder, method)
    assert_same_tables(ours, theirs)
    assert [grid.title for grid in ours.grids] == ["VLCS", "PACS"]
    assert list(ours.averages.cells.index) == list(ROWS)
    assert ours.missing
    assert "Left out, not finished: 1 (late)." in ours.footer


def test_without_a_plan_too(folder, tmp_path):
    for run in folder.iterdir():
        if run.is_dir():
            (tmp_path / run.name).symlink_to(run)
    assert_same_tables(dg.table(dg.load_results(tmp_path)), dg.table(tmp_path))
    assert list(dg.table(dg.load_results(tmp_path)).averages.cells.index) == ["ERM", "B & <b>", "SAGE"]


def test_a_part_of_a_frame_gives_the_numbers_of_the_whole(folder, frame):
    whole = dg.table(folder)
    sage = dg.table(frame[frame["label"] == "SAGE"])
    for ours, theirs in zip((*sage.grids, sage.averages), (*whole.grids, whole.averages), strict=True):
        assert list(ours.strings().loc["SAGE"]) == list(theirs.strings().loc["SAGE"])
    assert "(2/3)" in sage.grids[0].strings().loc["SAGE"].iloc[0]
    pacs = dg.table(frame[frame["dataset"] == "PACS"])
    pd.testing.assert_frame_equal(pacs.grids[0].strings(), whole.grids[1].strings())
    assert all(key[0] == "PACS" for key in pacs.missing)


def test_a_frame_that_forgot_what_was_missing(frame):
    joined = pd.concat([frame[frame["label"] == "SAGE"].rename_axis(None), frame[frame["label"] == "ERM"]])
    joined.attrs.clear()
    assert dg.table(joined[joined["label"] == "SAGE"]).missing == ()
    assert len(dg.table(joined).missing) == 8  # SAGE's third trial and ERM's gap


def test_unfinished_runs_on_request(folder):
    frame = dg.load_results(str(folder), include_unfinished=True)
    assert "late" in set(frame["run"])
    ours, theirs = dg.table(frame), dg.table(str(folder), include_unfinished=True)
    assert_same_tables(ours, theirs)
    assert "Included although not finished: 1 (late)." in ours.footer


def test_contradictory_frames_are_refused(frame):
    other = frame[frame["run"] == frame["run"].iloc[0]]
    twice = pd.concat([frame, other.assign(run="copy")])
    with pytest.raises(UserError, match="and copy hold the same run"):
        dg.table(twice)
    with pytest.raises(UserError, match="ran on population"):
        dg.table(pd.concat([frame, other.assign(run="copy", variant="24788", trial=9)]))


def test_label_of_its_own_makes_a_row_of_its_own(tmp_path):
    for label, accuracy in (("ERM, sgd", 0.6), ("ERM", 0.5)):
        lines = sweep_folder.records([[accuracy, 0.9]], [[0.5, 0.5]])
        lines[0]["args"]["label"] = label
        sweep_folder.write(tmp_path, lines, name=label)
    frame = dg.load_results(tmp_path)
    assert set(frame["algorithm"]) == {"ERM"}
    assert list(frame["label"].cat.categories) == ["ERM", "ERM, sgd"]
    for source in (frame, tmp_path):
        cells = dg.table(source).grids[0].strings()
        assert cells["env0"].to_dict() == {"ERM": "50.0", "ERM, sgd": "60.0"}


def test_every_name_is_escaped_in_html(folder, tmp_path):
    shown = dg.table(folder)._repr_html_()
    assert "<td>B &amp; &lt;b&gt;</td>" in shown
    name = "<script>alert(1)</script>"
    lines = sweep_folder.records(
        [[0.5, 0.9]],
        [[0.5, 0.5]],
        dataset=f"d{name}",
        algorithm=f"a{name}" + "x" * 60,
        environments=[f"e{name}", "y&z"],
    )
    sweep_folder.write(tmp_path, lines, name="run")
    (tmp_path / "no run <i>").mkdir()
    result = dg.table(tmp_path)
    for shown in (result._repr_html_(), result.averages._repr_html_(), result.grids[0]._repr_html_()):
        assert "<script" not in shown
        assert "<i>" not in shown
        assert "a&lt;script&gt;alert(1)&lt;/script&gt;" + "x" * 60 in shown
    assert "<th>e&lt;script&gt;" in result.grids[0]._repr_html_()
    assert "<th>d&lt;script&gt;" in result.averages._repr_html_()
    assert "<li>Not runs: 1 (no run &lt;i&gt;).</li>" in result._repr_html_()


def test_html_has_every_row_and_the_best_in_bold(tmp_path):
    for at in range(80):
        sweep_folder.write_flat(tmp_path, [at / 100, 0.5], algorithm=f"method {at:02}")
    shown = dg.table(tmp_path).grids[0]._repr_html_()
    assert shown.count("<tr") == 81
    assert "<td><b>79.0</b></td>" in shown
    assert "<td>78.0</td>" in shown


def test_printed_forms(folder):
    result = dg.table(folder)
    assert str(result) == repr(result) == result.to_text()
    assert result.to_markdown().startswith("# Model selection: training-domain validation set\n")
    assert r"\begin{tabular}" in result.to_latex()
    title, *lines = repr(result.averages).splitlines()
    assert title == "Averages"
    assert lines[0].split() == ["VLCS", "PACS", "Avg"]
    assert lines[2].startswith("SAGE")
