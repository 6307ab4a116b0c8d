"""`domainbed-sage evaluate`: what it prints, writes and refuses."""

import errno
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import on_cpu, run, small_config, strictly

from domainbed_sage.cli import evaluate, main
from domainbed_sage.config import make_config
from domainbed_sage.training.assessment import Assessment, SplitResult, assess
from domainbed_sage.training.finished import FinishedRun
from domainbed_sage.training.metrics import Scores


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return run(small_config(), tmp_path_factory.mktemp("evaluated") / "run")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture
def say(capsys, monkeypatch):
    """Call the command on the CPU: its exit status, what it prints, and its errors, in which no stack trace may be."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*words):
        status = main(["evaluate", *(str(word) for word in words), "--device", "cpu"])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return call


@pytest.fixture
def facts(say, folder):
    def call(*words):
        status, out, err = say(folder, "--json", *words)
        assert (status, err) == (0, "")
        return strictly(out)

    return call


def last_record(folder):
    return json.loads((folder / "results.jsonl").read_text().splitlines()[-1])


def overview(out):
    """Rows of the first table, by environment and split."""
    rows = re.findall(r"^(\S+) +(source|held out) +(in|out) +(\d+) +(\S+) +(\S+) +(\S+) +(\S+) *$", out, re.MULTILINE)
    return {(name, split): (role, int(images), *numbers) for name, role, split, images, *numbers in rows}


# What it prints


def test_text_has_the_numbers_of_the_json(say, folder, facts):
    status, out, _ = say(folder)
    assert status == 0
    found, results = overview(out), facts()["results"]
    assert list(found) == [(result["environment"], result["split"]) for result in results]
    for result in results:
        numbers = [result[key] for key in ("accuracy", "macro_accuracy", "macro_f1", "recorded_accuracy")]
        shown = ["-" if number is None else f"{100 * number:.2f}" for number in numbers]
        role = "held out" if result["held_out"] else "source"
        assert found[result["environment"], result["split"]] == (role, result["images"], *shown)


def test_json_has_the_recorded_accuracies(facts, folder):
    record, found = last_record(folder), facts()
    assert [result["held_out"] for result in found["results"]] == [True, True] + 6 * [False]
    for result in found["results"]:
        recorded = record[f"env{result['env']}_{result['split']}_acc"]
        assert result["recorded_accuracy"] == recorded
        assert recorded is None or result["accuracy"] == recorded
    assert sum(result["recorded_accuracy"] is not None for result in found["results"]) == 5
    assert found["config"] == json.loads((folder / "run.json").read_text())
    assert found["weights"]["file"] == str(folder / "model.pkl")
    assert len(found["classes"]) == 10


def test_confusions_in_text_and_json(say, folder, facts):
    (result,) = facts("--envs", "noto", "--split", "in")["results"]
    confusion, classes = np.array(result["confusion"]), facts()["classes"]
    assert confusion.sum() == result["images"] == 238
    assert confusion.sum(axis=1).tolist() == result["class_images"]
    out = say(folder, "--envs", "noto", "--split", "in")[1]
    assert "\nnoto, source, in split\n" in out
    for i, name in enumerate(classes):
        images, accuracy, mistaken = re.search(rf"^{name} +(\d+) +(\S+) ?(.*)$", out, re.MULTILINE).groups()
        assert (int(images), accuracy) == (confusion[i].sum(), f"{100 * confusion[i, i] / confusion[i].sum():.2f}")
        pairs = re.findall(r"(\w+) (\d+)", mistaken.partition("…")[0].rpartition(",")[0] or mistaken)
        assert all(confusion[i, classes.index(other)] == int(n) for other, n in pairs)
        assert [int(n) for _, n in pairs] == sorted((int(n) for _, n in pairs), reverse=True)
        assert pairs or confusion[i].sum() == confusion[i, i]


def test_only_what_was_asked_for(say, folder):
    out = say(folder, "--envs", "3", "fluent_hc", "--split", "out")[1]
    assert list(overview(out)) == [("fluent_hc", "out"), ("twemoji", "out")]


def synthetic(classes, environment, n=500):
    """An assessment with numbers of no run."""
    rng = np.random.default_rng(0)
    labels, predicted = (rng.integers(0, len(classes) - 1, n) for _ in range(2))
    scores = Scores.of(labels, predicted, len(classes))
    result = SplitResult(5, environment, True, "out", [""] * n, labels, predicted, labels, None, 0.123, scores)
    config = make_config(dataset="DomainNet", algorithm="SAGE", model="small_cnn", test_envs=[5])
    args = {key: getattr(config, key) for key in ("dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")}
    args["test_envs"] = list(config.test_envs)
    record = {f"env{i}_{half}_acc": 0.5 for i in range(6) for half in ("in", "out")} | {"args": args, "step": 5000}
    record |= {"device": "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "data": {"variant": "subset: a", "notes": ["b"]}}
    return Assessment(FinishedRun(Path("results/" + 10 * "long"), config, [record]), classes, (), (result,))


def test_text_fits_80_columns_and_shows_names_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    classes = (*(f"The_Great_Wall_of_China_{i}" for i in range(20)), "[red]", ":dog:", "never")
    evaluate.show(synthetic(classes, "location_of_many_letters"))
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" in out
    assert re.search(r"^never +0 +- *$", out, re.MULTILINE)
    assert {line.split()[0] for line in lines if line.strip()} >= {*classes}
    assert "population subset: a" in out.replace("\n", " ")


def test_a_wide_terminal_shows_80_columns(say, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert max(map(len, say(folder)[1].splitlines())) <= 80


# Which weights, and what differs


def unwrapped(text):
    return re.sub(r"\s+", " ", text)


def change_records(folder, change):
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    (folder / "results.jsonl").write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        (5, "Training-domain selection chooses the same step of this run."),
        (3, "Training-domain selection chooses step 3 of this run, so tables report other numbers."),
    ],
)
def test_says_which_weights_these_are(say, folder, best, sentence):
    keys = [f"env{i}_{half}_acc" for i in range(4) for half in ("in", "out")]
    change_records(folder, lambda line: line | dict.fromkeys(keys, 0.5 if line["step"] == best else 0.25))
    assert f"These are the weights after the last step, 5. {sentence}" in unwrapped(say(folder)[1])


def test_says_that_no_step_is_chosen(say, tmp_path):
    folder = run(small_config(steps=1, test_envs=[0, 2]), tmp_path / "run")
    assert "Tables report the step that model selection chooses, which may be another." in unwrapped(say(folder)[1])


def test_says_what_is_not_as_recorded(say, folder, facts):
    assert len(facts()["remarks"]) == 1
    key = "env2_out_acc"
    change_records(folder, lambda line: line | {key: line[key] + 0.01, "device": "cuda:7"})
    remark = facts()["remarks"][1]
    assert remark.startswith("Not the accuracy of the run's last record: openmoji out. Another device (it was cuda:7)")
    assert remark in unwrapped(say(folder)[1])


def test_says_that_the_notes_on_the_data_differ(facts, folder):
    change_records(folder, lambda line: line | {"data": {"variant": "", "notes": ["2 corrupt images left out"]}})
    assert facts()["remarks"][1] == (
        "The notes on the data were ['2 corrupt images left out'] when it was trained, and are [] now."
    )


# Predictions


@pytest.mark.parametrize(("name", "read"), [("p.csv", pd.read_csv), ("new/p.parquet", pd.read_parquet)])
def test_predictions_are_one_row_for_each_image(say, folder, tmp_path, name, read):
    status, out, _ = say(folder, "--predictions", tmp_path / name)
    assert status == 0
    assert out.endswith(f"Wrote {tmp_path / name}\n")
    found, expected = read(tmp_path / name), assess(folder, on_cpu(folder))
    assert list(found.columns) == ["environment", "key", "split", "label", "prediction", "probability"]
    assert len(found) == 4 * 297
    for (environment, split), rows in found.groupby(["environment", "split"]):
        (result,) = (r for r in expected.results if (r.environment, r.split) == (environment, split))
        assert rows["key"].tolist() == result.keys
        assert rows["label"].tolist() == [expected.classes[label] for label in result.labels]
        assert rows["prediction"].tolist() == [expected.classes[label] for label in result.predicted]
        assert rows["probability"].tolist() == pytest.approx(result.probability.tolist(), rel=1e-6)
        assert (rows["label"] == rows["prediction"]).mean() == result.scores.accuracy


@pytest.mark.parametrize(("name", "read"), [("p.csv", pd.read_csv), ("p.parquet", pd.read_parquet)])
def test_logits_on_request(say, folder, tmp_path, name, read):
    assert say(folder, "--envs", "2", "--split", "out", "--logits", "--json", "--predictions", tmp_path / name)[0] == 0
    found = read(tmp_path / name)
    (result,) = assess(folder, on_cpu(folder), ["2"], ["out"], keep_logits=True).results
    classes = assess(folder, on_cpu(folder), ["2"], ["out"]).classes
    logits = found[[f"logit_{name}" for name in classes]]
    assert list(found.columns[-10:]) == list(logits.columns)
    np.testing.assert_allclose(logits.to_numpy(), result.logits, rtol=1e-6)
    assert (logits.to_numpy().argmax(1) == [classes.index(name) for name in found["prediction"]]).all()


# What it refuses


@pytest.mark.parametrize("name", ["p.txt", "p", "p.csv.gz", "folder.csv"])
def test_other_endings(say, folder, tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    status, out, err = say(folder, "--predictions", tmp_path / name)
    assert (status, out) == (2, "")
    assert err == (f"error: --predictions should be a file that ends in .csv or .parquet. Found {tmp_path / name}.\n")


def refuse(*_, dir):
    raise PermissionError(errno.EACCES, "Permission denied", str(dir / "x"))


def test_a_place_that_cannot_be_written_to_is_found_before_anything_is_computed(say, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("domainbed_sage.training.assessment.assess", lambda *_, **__: pytest.fail("too late"))
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", refuse)
        err = say(folder, "--predictions", tmp_path / "p.csv")[2]
        assert f"Cannot write {tmp_path / 'x'}: Permission denied" in err
    status, out, err = say(folder, "--predictions", folder / "done" / "p.csv")
    assert (status, out) == (2, "")
    assert f"Cannot write {folder / 'done'}" in err


def test_logits_without_a_file(say, folder):
    assert say(folder, "--logits") == (2, "", "error: --logits says what --predictions FILE holds: give that, too.\n")


def test_a_mistake_writes_no_predictions(say, folder, tmp_path):
    (tmp_path / "p.csv").write_text("mine")
    (folder / "model.pkl").write_bytes(b"")
    status, out, err = say(folder, "--predictions", tmp_path / "p.csv", "--json")
    assert (status, out) == (2, "")
    assert re.search(r"^error: .*model\.pkl cannot be read as the weights of a run", err)
    assert (tmp_path / "p.csv").read_text() == "mine"


def test_unknown_environment(say, folder):
    status, out, err = say(folder, "--envs", "mars")
    assert (status, out) == (2, "")
    assert "EmojiStyles has no environment 'mars'. Known: 0 = fluent_hc, 1 = noto" in err
