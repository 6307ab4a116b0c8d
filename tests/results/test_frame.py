"""The tidy frame of results: its rows, the way back to runs, and what it refuses."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from reference import sweep_folder

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.frame import COLUMNS, to_frame, to_records

NAN = float("nan")
NAMES = {"VLCS": ("k", "l", "m"), "PACS": ("a", "z")}
NUMBERS = ("step", "accuracy", "loss", "trial", "hparams_seed", "planned_steps", "holdout_fraction")
TEXTS = [column for column in COLUMNS if column not in NUMBERS]
ARGS = ("model", "optimizer", "precision", "label", "steps", "holdout_fraction")


def lines(in_acc, out_acc, **more):
    args = {key: more.pop(key) for key in ARGS if key in more}
    made = sweep_folder.records(in_acc, out_acc, **more)
    return [line | {"args": line["args"] | args} for line in made]


@pytest.fixture
def runs(tmp_path):
    """One with every fact and gaps in its accuracies, one of DomainBed's kind that holds out a pair."""
    facts = {"model": "small_cnn", "optimizer": "sgd", "precision": "bf16", "label": "ERM, sgd"}
    facts |= {"steps": 11, "holdout_fraction": 0.25}
    about = {"device": "cpu", "versions": {"torch": "2"}, "data": {"variant": "24788"}, "environments": ["a", "z"]}
    about["evaluated"] = "average of steps 1 … 2"
    rows = [[NAN, 0.2], [0.3, 0.4]], [[0.5, 0.6], [NAN, 0.8]]
    sweep_folder.write(tmp_path, lines(*rows, test_envs=[1], trial=2, hparams_seed=5, **facts, **about), name="full")
    pair = [[0.1, 0.2, 0.3]], [[0.4, 0.5, 0.6]]
    sweep_folder.write(tmp_path, lines(*pair, dataset="VLCS", algorithm="SAGE", test_envs=[0, 2]), name="pair")
    return load_records(tmp_path).records


@pytest.fixture
def frame(runs):
    return to_frame(runs, NAMES, ["SAGE"])


def assert_same_runs(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        for name in one.__dataclass_fields__:
            a, b = getattr(one, name), getattr(other, name)
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b)
                assert (a.dtype, a.flags.c_contiguous) == (b.dtype, True)
            elif name != "environments":
                assert (a, type(a)) == (b, type(b)), name
    assert [one.environments for one in ours] == [NAMES[other.dataset] for other in theirs]


def test_rows_are_run_by_run_step_environment_split(frame):
    assert tuple(frame.columns) == COLUMNS
    full = frame[frame["run"] == "full"]
    shown = full[["step", "env", "environment", "held_out", "split", "accuracy", "loss"]]
    expected = [
        (0, 0, "a", False, "in", NAN, 1.0),
        (0, 0, "a", False, "out", 0.5, 1.0),
        (0, 1, "z", True, "in", 0.2, 1.0),
        (0, 1, "z", True, "out", 0.6, 1.0),
        (10, 0, "a", False, "in", 0.3, 0.5),
        (10, 0, "a", False, "out", NAN, 0.5),
        (10, 1, "z", True, "in", 0.4, 0.5),
        (10, 1, "z", True, "out", 0.8, 0.5),
    ]
    pd.testing.assert_frame_equal(
        shown.astype({"environment": object, "split": object}),
        pd.DataFrame(expected, columns=shown.columns).astype({"environment": object, "split": object}),
        check_dtype=False,
    )
    pair = frame[frame["run"] == "pair"]
    assert list(pair["accuracy"]) == [0.1, 0.4, 0.2, 0.5, 0.3, 0.6]
    assert list(pair["held_out"]) == [True, True, False, False, True, True]


def test_facts_of_a_run_are_in_each_of_its_rows(frame):
    facts = frame.drop(columns=["step", "env", "environment", "held_out", "split", "accuracy", "loss"])
    full, pair = (row for _, row in facts.drop_duplicates().iterrows())
    assert full.to_dict() == {
        "dataset": "PACS",
        "algorithm": "ERM",
        "label": "ERM, sgd",
        "trial": 2,
        "hparams_seed": 5,
        "hparams": '{"lr": 1e-05}',
        "model": "small_cnn",
        "optimizer": "sgd",
        "run": "full",
        "n_envs": 2,
        "variant": "24788",
        "precision": "bf16",
        "planned_steps": 11,
        "holdout_fraction": 0.25,
        "device": "cpu",
        "versions": '{"torch": "2"}',
        "evaluated": "average of steps 1 … 2",
    }
    assert pair[["label", "n_envs"]].to_list() == ["SAGE", 3]
    assert set(pair[["variant", "model", "optimizer", "precision", "device", "versions", "evaluated"]]) == {""}


def test_texts_are_categories_in_the_order_given(frame):
    assert all(isinstance(frame[c].dtype, pd.CategoricalDtype) for c in TEXTS if c not in ("held_out", "env", "n_envs"))
    orders = {column: list(frame[column].cat.categories) for column in ("dataset", "label", "environment")}
    assert orders == {
        "dataset": ["VLCS", "PACS"],
        "label": ["SAGE", "ERM, sgd"],
        "environment": ["a", "k", "l", "m", "z"],
    }


WAYS = {
    "as it is": lambda frame: frame,
    "in another order": lambda frame: frame.sample(frac=1, random_state=3).sort_values("run", kind="stable"),
    "plain texts": lambda frame: frame.astype(dict.fromkeys(frame.select_dtypes("category"), object)),
    "through CSV": lambda frame: pd.read_csv(io.StringIO(frame.to_csv(index=False)), dtype={"variant": str}),
    "without what was not evaluated": lambda frame: frame.dropna(subset="accuracy"),
    "with a column more": lambda frame: frame.assign(error=1 - frame["accuracy"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_back(runs, frame, way):
    assert_same_runs(to_records(WAYS[way](frame)), runs)


def test_rows_that_are_not_there_are_nan(frame):
    rows = frame[(frame["run"] == "full") & ~((frame["step"] == 10) & (frame["env"] == 1) & (frame["split"] == "in"))]
    (run,) = to_records(rows)
    np.testing.assert_array_equal(run.in_acc, [[NAN, 0.2], [0.3, NAN]])
    (run,) = to_records(rows[rows["step"] == 0])
    np.testing.assert_array_equal(run.out_acc, [[0.5, 0.6]])


WRONG = {
    "variant of the frame should hold texts. Found 24788": lambda f: f.assign(variant=24788),
    "lacks step, loss": lambda f: f.drop(columns=["loss", "step"]),
    "Run full holds out no environment": lambda f: f.assign(held_out=f["held_out"] & (f["run"] != "full")),
    "has no rows": lambda f: f[f["trial"] == 9],
    "should have both in and out. Found out": lambda f: f[f["split"] == "out"],
    "should have both in and out. Found in, out, test": lambda f: f.assign(
        split=f["split"].astype(object).where(f.index > 0, "test")
    ),
    "has 8 rows twice, e.g. of run full": lambda f: pd.concat([f, f[f["run"] == "full"]]),
    "more than one trial in the rows of run pair": lambda f: f.assign(trial=f["trial"] + (f.index == f.index[-1])),
    r"Run full has 2 environments, but the frame has its rows of environments \[0\]": lambda f: f[~f["held_out"]],
    r"Run pair has 3 environments, but .* rows of environments \[0, 1\]": lambda f: f[f["env"] < 2],
    r"rows of environments \[0, 1, 7\]": lambda f: f.assign(env=f["env"].where(f["env"] < 2, 7)),
    r"rows of environments \[0, 1, 1, 2\]": lambda f: f.assign(held_out=f["held_out"] ^ (f.index == f.index[-3])),
}


@pytest.mark.parametrize("message", WRONG)
def test_refused(frame, message):
    with pytest.raises(UserError, match=message):
        to_records(WRONG[message](frame))


def test_reading_imports_nothing_heavy(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.6])
    code = (
        "import pathlib, sys\n"
        "from domainbed_sage.results import api, folder, paper, render\n"
        f"api.table(api.load_results({str(tmp_path)!r})).to_latex()\n"
        "print(sorted({'torch', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
