"""Reading results folders: what is tolerated, what is reported, what is refused."""

import json
import logging

import numpy as np
import pytest
from reference import sweep_folder

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.records import read_run

NAN = float("nan")


def lines(**args):
    return sweep_folder.records([[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]], **args)


def test_record_arrays(tmp_path):
    sweep_folder.write(tmp_path, lines(test_envs=[1, 0], trial=2, hparams_seed=1, environments=["a", "b"]), name="run")
    (run,) = load_records(tmp_path).records
    assert (run.name, run.dataset, run.algorithm, run.test_envs) == ("run", "PACS", "ERM", (0, 1))
    assert (run.trial_seed, run.hparams_seed, run.hparams) == (2, 1, '{"lr": 0.1}')
    assert (run.n_envs, run.environments, run.single) == (2, ("a", "b"), False)
    np.testing.assert_array_equal(run.steps, [0, 10])
    np.testing.assert_array_equal(run.in_acc, [[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_array_equal(run.out_acc, [[0.5, 0.6], [0.7, 0.8]])
    np.testing.assert_array_equal(run.loss, [1.0, 0.5])


def test_what_a_run_was_made_with(tmp_path):
    made = lines(commit="abc", versions={"torch": "2.14", "cuda": None}, device="A100")
    made[1] |= {"versions": {"torch": "2.15", "cuda": None, "numpy": "2.4"}, "device": "H100", "commit": "abc"}
    for line in made:
        line["args"] |= {"model": "small_cnn", "optimizer": "sgd", "precision": "tf32", "label": "ERM, sgd"}
    sweep_folder.write(tmp_path, [*made, made[0] | {"step": 20}], name="run")
    sweep_folder.write(tmp_path, lines(trial=1, versions=None, device=None, commit=None), name="silent")
    run, silent = load_records(tmp_path).records
    assert (run.algorithm, run.label, run.model, run.optimizer) == ("ERM", "ERM, sgd", "small_cnn", "sgd")
    assert (run.precision, run.device) == ("tf32", "A100 | H100")
    assert run.versions == '{"commit": "abc", "numpy": "2.4", "torch": "2.14 | 2.15"}'
    assert (silent.label, silent.model, silent.optimizer, silent.precision) == ("ERM", "", "", "")
    assert (silent.device, silent.versions) == ("", "")


def test_not_evaluated_is_nan(tmp_path):
    records = lines()
    records[0]["env0_in_acc"] = NAN  # the word NaN in the file, as version 0.1.0 wrote it
    records[1]["env0_in_acc"] = None
    del records[1]["loss"]
    sweep_folder.write(tmp_path, records)
    (run,) = load_records(tmp_path).records
    assert np.isnan(run.in_acc[:, 0]).all()
    assert np.isnan(run.loss[1])


@pytest.mark.parametrize("tail", [b'{"step": 20, "env0', b"\x00\x00\x00", b"12", b'{"a": "\xff'])
def test_torn_last_line_is_dropped_with_a_warning(tmp_path, caplog, tail):
    path = sweep_folder.write(tmp_path, lines()) / "results.jsonl"
    path.write_bytes(path.read_bytes() + tail)
    with caplog.at_level(logging.WARNING):
        assert len(read_run(path)) == 2
    (message,) = caplog.messages
    assert str(path) in message
    assert "line 3" in message


def test_complete_last_line_without_newline_counts(tmp_path, caplog):
    path = sweep_folder.write(tmp_path, lines()) / "results.jsonl"
    path.write_bytes(path.read_bytes().rstrip())
    assert len(read_run(path)) == 2
    assert not caplog.messages


def test_unreadable_line_in_the_middle(tmp_path):
    path = sweep_folder.write(tmp_path, lines()) / "results.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second[:30]}\n{second}\n")
    with pytest.raises(UserError, match=r"results\.jsonl, line 2, is not a JSON object"):
        load_records(tmp_path)


def test_everything_in_the_folder_is_accounted_for(tmp_path):
    sweep_folder.write(tmp_path, lines(), name="good")
    sweep_folder.write(tmp_path, lines(trial=1), name="half", done=False)
    (tmp_path / "logs").mkdir()
    (tmp_path / "sweep.yaml").write_text("x")
    (tmp_path / "table.md").write_text("x")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "results.jsonl").write_text("")
    (tmp_path / "begun" / "done").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "done").write_text("")
    (tmp_path / "other" / "results.jsonl").write_text('{"accuracy": 1}\n')
    loaded = load_records(tmp_path)
    assert [run.name for run in loaded.records] == ["good"]
    assert loaded.unfinished == ("half",)
    assert loaded.empty == ("begun",)
    assert loaded.foreign == ("logs", "other", "sweep.yaml", "table.md")
    assert loaded.notes() == [
        "Left out, not finished: 1 (half).",
        "Without any evaluation: 1 (begun).",
        "Not runs: 3 (logs, other, sweep.yaml).",
    ]
    both = load_records(tmp_path, include_unfinished=True)
    assert [run.name for run in both.records] == ["good", "half"]
    assert both.notes()[0] == "Included although not finished: 1 (half)."


def test_long_lists_are_cut(tmp_path):
    sweep_folder.write(tmp_path, lines())
    for i in range(30):
        (tmp_path / f"x{i:02}").mkdir()
    (note,) = load_records(tmp_path).notes()
    assert note.startswith("Not runs: 30 (x00, x01,")
    assert note.endswith("and 22 more).")


def test_same_run_twice(tmp_path):
    sweep_folder.write(tmp_path, lines(test_envs=[0, 1]), name="first")
    sweep_folder.write(tmp_path, lines(test_envs=[1, 0]), name="second")
    with pytest.raises(UserError, match=r"first and .*second hold the same run: ERM on PACS"):
        load_records(tmp_path)


def test_unfinished_copy_does_not_disturb(tmp_path):
    sweep_folder.write(tmp_path, lines(), name="first")
    sweep_folder.write(tmp_path, lines(), name="second", done=False)
    assert len(load_records(tmp_path).records) == 1
    with pytest.raises(UserError, match="hold the same run"):
        load_records(tmp_path, include_unfinished=True)


def test_other_hyperparameters_are_another_run(tmp_path):
    sweep_folder.write(tmp_path, lines(hparams={"rho": 1}), name="first")
    sweep_folder.write(tmp_path, lines(hparams={"rho": 2}), name="second")
    assert len(load_records(tmp_path).records) == 2


def spoil(records, **changes):
    args = {key[5:]: value for key, value in changes.items() if key.startswith("args_")}
    rest = {key: value for key, value in changes.items() if not key.startswith("args_")}
    return [records[0], {**records[1], **rest, "args": {**records[1]["args"], **args}}]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (spoil(lines(), args_trial_seed=7), "mixes two runs: record 2"),
        (spoil(lines(), step=0), "step 0 follows step 0"),
        (spoil(lines(), step=None), "record 2 has no 'step'"),
        (spoil(lines(), env1_in_acc="high"), "record 2: 'env1_in_acc' should be a number. Found 'high'"),
        (spoil(lines(), args_test_envs=None), "record 2: 'args' should hold dataset"),
        (lines(test_envs=[2]), r"holds out environments \[2\] but has accuracies for 2"),
        (lines(test_envs=[]), r"holds out environments \[\]"),
    ],
)
def test_contradictory_records(tmp_path, records, message):
    run = tmp_path / "run"
    run.mkdir()
    (run / "done").write_text("")
    (run / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match=message):
        load_records(tmp_path)


def test_no_folder_no_run_no_finished_run(tmp_path):
    with pytest.raises(UserError, match="no results folder"):
        load_records(tmp_path / "nowhere")
    (tmp_path / "logs").mkdir()
    with pytest.raises(UserError, match=r"looked for <run>/results\.jsonl .* Found 1 \(logs\)"):
        load_records(tmp_path)
    run = sweep_folder.write(tmp_path, lines(), done=False)
    with pytest.raises(UserError, match="--include-unfinished"):
        load_records(tmp_path)
    with pytest.raises(UserError, match="itself a run directory"):
        load_records(run)


def with_variant(folder, trial, variant):
    sweep_folder.write_flat(folder, [0.5, 0.6, 0.7], trial=trial)
    for path in folder.glob("*/results.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if all("data" not in line and line["args"]["trial_seed"] == trial for line in lines):
            lines = [line | {"data": {"variant": variant, "notes": []}} for line in lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_population_is_named(tmp_path):
    with_variant(tmp_path, 0, "24330")
    loaded = load_records(tmp_path)
    assert {run.variant for run in loaded.records} == {"24330"}
    assert loaded.notes() == ["PACS: population 24330."]


def test_two_populations_are_never_mixed(tmp_path):
    with_variant(tmp_path, 0, "24330")
    with_variant(tmp_path, 1, "24788")
    with pytest.raises(UserError, match=r"ran on population '24\d+' of PACS.* cannot be averaged"):
        load_records(tmp_path)
