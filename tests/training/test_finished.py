"""Reading a finished run back: each way in which it may not be what was asked for has one message."""

import json
import math
import shutil

import pytest
import torch
from helpers import on_cpu, run, small_config

from domainbed_sage.core.errors import UserError
from domainbed_sage.training.finished import load, read


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return run(small_config(), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def assert_refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        load(read(folder), on_cpu(folder))
    assert str(folder) in str(caught.value)


def change_records(folder, change):
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


def change_weights(folder, change):
    file = torch.load(folder / "model.pkl", weights_only=True)
    torch.save(change(file), folder / "model.pkl")


def test_the_weights_are_those_of_the_file(folder):
    model = load(read(folder), on_cpu(folder)).algorithm.model
    stored = torch.load(folder / "model.pkl", weights_only=True)["model_dict"]
    assert all(torch.equal(weight, stored[name]) for name, weight in model.state_dict().items())
    assert not model.training


# What is no finished run


def test_no_run(tmp_path):
    for name in "abcd":
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "run.json").write_text("{}")
    assert_refused(tmp_path / "nowhere", r"nowhere is not the folder of a run: it has no run\.json\. Give the folder")
    assert_refused(tmp_path / "results", r"it has no run\.json\. Found in it: a, b, c, …\. Give the folder of one run")


def test_run_of_a_plugin(folder):
    values = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(values | {"algorithm": "Mine"}))
    assert_refused(folder, r"Unknown algorithm 'Mine'.*What a plugin registers is known only with --plugin FILE")


def test_unfinished(folder):
    (folder / "done").unlink()
    assert_refused(
        folder, r"is not finished: it has a record of step 5 of its 6 steps, and no file 'done'.*same command"
    )
    (folder / "results.jsonl").unlink()
    assert_refused(folder, r"is not finished: it has no record of its 6 steps")


@pytest.mark.parametrize(("keep", "found"), [(0, "None"), (2, "3")])
def test_lost_records(folder, keep, found):
    change_records(folder, lambda lines: lines[:keep])
    assert_refused(folder, rf"results\.jsonl should end with the record of step 5\. Found step {found}\.")


# Its weights


def test_run_without_weights(tmp_path):
    folder = run(small_config(steps=1), tmp_path / "run", skip_model_save=True)
    assert_refused(folder, r"model\.pkl does not exist: the run was trained with --skip_model_save")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_cut_weights(folder, part):
    content = (folder / "model.pkl").read_bytes()
    (folder / "model.pkl").write_bytes(content[: int(part * len(content))])
    assert_refused(folder, r"model\.pkl cannot be read as the weights of a run: .*restore it from a copy")


def test_one_flipped_bit_in_the_weights(folder):
    content = bytearray((folder / "model.pkl").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.pkl").write_bytes(content)
    assert_refused(folder, r"model\.pkl cannot be read as the weights of a run: .*(checksum|CRC)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1], "list indices"),
        ({"args": {}, "model_dict": {}}, "it has no 'model_hparams'"),
        ({"args": {}, "model_hparams": {}}, "it has no 'model_dict'"),
        ({"args": {}, "model_hparams": {}, "model_dict": {"a": 1}}, "its model_dict should hold tensors"),
    ],
)
def test_another_file_in_place_of_the_weights(folder, content, reason):
    torch.save(content, folder / "model.pkl")
    assert_refused(folder, rf"model\.pkl cannot be read as the weights of a run: {reason}")


def test_weights_of_another_run(folder, tmp_path):
    other = run(small_config(seed=1, hparams={"lr": 0.5}), tmp_path / "other")
    shutil.copy(other / "model.pkl", folder)
    message = (
        r"model\.pkl holds the weights of another run; it differs from run\.json in: (?=.*seed 1 → 0)(?=.*'lr': 0.5)"
    )
    assert_refused(folder, message)


def test_weights_of_another_architecture(folder):
    def change(file):
        weights = dict(file["model_dict"])
        weights["classifier.weight"] = torch.zeros(3, 64)
        weights["extra"] = weights.pop("classifier.bias")
        return file | {"model_dict": weights}

    change_weights(folder, change)
    message = (
        r"3 mistakes in .*model\.pkl, read as weights of small_cnn:(?s:.*)classifier\.bias \(10\) is missing(?s:.*)"
        r"classifier\.weight should be 10×64\. Found 3×64(?s:.*)extra is not part of the model"
    )
    assert_refused(folder, message)


# Its data


def test_another_population(folder):
    change_records(folder, lambda lines: [line | {"data": {"variant": "24330", "notes": []}} for line in lines])
    assert_refused(folder, r"was trained on population '24330' of EmojiStyles\. Found ''\. .*own data with --data_dir")


def test_other_environments(folder):
    change_records(folder, lambda lines: [line | {"environments": ["a", "b", "c", "d"]} for line in lines])
    assert_refused(folder, r"was trained on environments \['a', 'b', 'c', 'd'\] of EmojiStyles\. Found \['fluent_hc'")


# Which step its tables report


@pytest.mark.parametrize(("best", "step"), [(0, 0), (1, 3), (2, 5)])
def test_step_that_selection_chooses(folder, best, step):
    def change(lines):
        return [
            line | {f"env{i}_{half}_acc": 0.5 if at == best else 0.25 for i in range(4) for half in ("in", "out")}
            for at, line in enumerate(lines)
        ]

    change_records(folder, change)
    assert read(folder).selected_step == step


def test_no_step_is_chosen_where_several_environments_are_held_out(tmp_path):
    folder = run(small_config(steps=1, test_envs=[0, 2]), tmp_path / "run")
    assert read(folder).selected_step is None


def test_null_and_nan_mean_the_same(folder):
    step = read(folder).selected_step
    change_records(folder, lambda lines: [{k: math.nan if v is None else v for k, v in line.items()} for line in lines])
    assert read(folder).selected_step == step
