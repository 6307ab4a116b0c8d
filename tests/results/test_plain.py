"""`table --json`: every number of the tables, and nothing else on standard output."""

import json

import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.cli import main
from domainbed_sage.results import paper, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.zero_shot import PUBLISHED


@pytest.fixture
def say(capsys):
    def call(*words):
        assert main(["table", "--json", *map(str, words)]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return call


def cell(mean, err, trials, expected, best=False):
    near = [None if value is None else pytest.approx(value) for value in (mean, err)]
    return {"mean": near[0], "err": near[1], "trials": trials, "expected": expected, "best": best}


def result(method, env, trial, accuracy, run):
    return {
        "dataset": "PACS",
        "method": method,
        "env": env,
        "held_out": f"env{env}",
        "trial": trial,
        "accuracy": pytest.approx(accuracy),
        "validation": 50.0,
        "step": 0,
        "hparams_seed": 0,
        "settings": 1,
        "run": run,
    }


def test_everything_of_a_table(tmp_path, say):
    sweep_folder.write_flat(tmp_path, [0.5, 0.75], trial=0)
    sweep_folder.write_flat(tmp_path, [0.7, 0.75], trial=1)
    sweep_folder.write_flat(tmp_path, [0.5, None], trial=0, algorithm="SAGE")
    runs = {(run.algorithm, run.test_envs[0], run.trial_seed): run.name for run in load_records(tmp_path).records}
    found, err = say(tmp_path, "--out", tmp_path / "out")
    (one,) = found.pop("tables")
    assert found == {"unit": "percent", "zero_shot": None}
    rows = [
        {
            "method": "ERM",
            "cells": [cell(60, 10 / 2**0.5, 2, 2, True), cell(75, 0, 2, 2, True), cell(67.5, None, 0, 0, True)],
        },
        {
            "method": "SAGE",
            "cells": [cell(50, None, 1, 2), cell(None, None, 0, 2), cell(None, None, 0, 0)],
        },
    ]
    whole = [cell(67.5, 5 / 2**0.5, 2, 2, True), cell(67.5, None, 0, 0, True)]
    missing = [("SAGE", 0, 1), ("SAGE", 1, 0), ("SAGE", 1, 1)]
    assert one == {
        "selection": "training-domain",
        "title": "training-domain validation set",
        "spread": "stderr",
        "datasets": [{"title": "PACS", "columns": ["env0", "env1", "Avg"], "rows": rows}],
        "averages": {
            "title": "Averages",
            "columns": ["PACS", "Avg"],
            "rows": [
                {"method": "ERM", "cells": whole},
                {"method": "SAGE", "cells": [cell(None, None, 0, 2), cell(None, None, 0, 0)]},
            ],
        },
        "results": [
            result(method, env, trial, accuracy, runs[method, env, trial])
            for method, env, trial, accuracy in (
                *(("ERM", 0, 0, 50), ("ERM", 0, 1, 70), ("ERM", 1, 0, 75), ("ERM", 1, 1, 75)),
                ("SAGE", 0, 0, 50),
            )
        ],
        "missing": [{"dataset": "PACS", "method": name, "env": env, "trial": trial} for name, env, trial in missing],
        "notes": [
            "Missing: SAGE on PACS, held out env0 (trial 1); env1 (trials 0, 1): no run.",
            "A number over one trial has no standard error.",
        ],
        "paper": None,
    }
    assert "table.md" in err


def test_the_front_door_gives_the_same(tmp_path, say):
    sweep_folder.write_flat(tmp_path, [0.5, 0.75])
    (one,) = say(tmp_path)[0]["tables"]
    assert one.pop("paper") is None
    assert json.loads(dg.table(tmp_path).to_json()) == one


def test_several_selections_of_a_part(tmp_path, say):
    for trial in range(2):
        sweep_folder.write_flat(tmp_path, [0.5, 0.75], trial=trial)
    found, _ = say(tmp_path, "--selection", "all", "--only", "averages", "--interval")
    chosen = [(one["selection"], one["spread"], one["datasets"]) for one in found["tables"]]
    names = ("training-domain", "leave-one-domain-out", "oracle")
    assert chosen == [(name, "half_width_95", []) for name in names]


def test_the_paper_and_published_accuracies_beside_it(tmp_path, say):
    sweep_folder.write_flat(tmp_path, [0.5, 0.75])
    sweep_folder.write_flat(tmp_path, [0.96, 0.964], algorithm="ZeroShot")
    found, _ = say(tmp_path, "--paper")
    beside = found["tables"][0]["paper"]
    records = load_records(tmp_path).records
    comparison = paper.compare(tables.build(records, "training-domain"), records)
    assert beside["notes"] == list(comparison.notes)
    (erm,) = (row for row in beside["rows"] if (row["algorithm"], row["dataset"]) == ("ERM", "PACS"))
    assert (erm["mean"], erm["printed"], erm["difference"]) == (62.5, comparison.printed.loc["ERM", "PACS"], None)
    (verdict,) = found["zero_shot"]
    assert (verdict["dataset"], verdict["published"]) == ("PACS", PUBLISHED["PACS"].accuracy)


def test_one_form_at_a_time(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["table", str(tmp_path), "--json", "--latex"])
    assert "not allowed with argument" in capsys.readouterr().err
