"""What two rows of a table differ in beside the method."""

import json

import pytest
from reference import sweep_folder

import domainbed_sage as dg

FACTS = {"model": "clip", "optimizer": "adam", "precision": "fp32", "steps": 21, "holdout_fraction": 0.2}


def write(folder, algorithm, dataset="PACS", hparams_seeds=(0,), own=(), **more):
    """Two environments, three trials, with all facts that a record states."""
    for trial in range(3):
        for env in (0, 1):
            for seed in hparams_seeds:
                ins, outs = [[0.5 + 0.1 * trial, 0.6]] * 3, [[0.5, 0.5]] * 3
                facts = {"versions": {"torch": "2.9.1", "numpy": "2.3"}, "commit": "abc", "device": "cpu"} | more
                args = {"dataset": dataset, "algorithm": algorithm, "test_envs": [env], "trial": trial}
                lines = sweep_folder.records(ins, outs, hparams_seed=seed, **args, **facts)
                for line in lines:
                    line["args"] |= FACTS | dict(own)
                sweep_folder.write(folder, lines)


def unequal(folder):
    return [note for note in dg.compare(folder).notes if "unequal" in note]


def test_equal_conditions_need_no_word(tmp_path):
    write(tmp_path, "ERM")
    write(tmp_path, "SAGE")
    assert unequal(tmp_path) == []


@pytest.mark.parametrize(
    ("own", "more", "sentence"),
    [
        ({"model": "small_cnn"}, {}, "unequal model: small_cnn, ERM clip (PACS)."),
        ({"optimizer": "muon"}, {}, "unequal optimizer: muon, ERM adam (PACS)."),
        ({"precision": "bf16"}, {}, "unequal precision: bf16, ERM fp32 (PACS)."),
        ({"holdout_fraction": 0.1}, {}, "unequal holdout_fraction: 0.1, ERM 0.2 (PACS)."),
        ({}, {"device": "H200"}, "unequal device: H200, ERM cpu (PACS)."),
        ({}, {"versions": {"torch": "2.10", "numpy": "2.3"}}, "unequal version of torch: 2.10, ERM 2.9.1 (PACS)."),
        ({}, {"commit": "def"}, "unequal commit: def, ERM abc (PACS)."),
        ({}, {"hparams_seeds": (0, 1, 2)}, "unequal hyperparameter settings per result: 3, ERM 1 (PACS)."),
    ],
)
def test_each_fact_is_named(tmp_path, own, more, sentence):
    write(tmp_path, "ERM")
    write(tmp_path, "SAGE", own=own, **more)
    assert unequal(tmp_path) == [f"SAGE: {sentence}"]
    assert sentence in json.loads(dg.compare(tmp_path).to_json())["notes"][-1]


def test_steps(tmp_path):
    write(tmp_path, "ERM", own={"steps": 31})
    for results in tmp_path.glob("*/results.jsonl"):  # the last evaluation is that of the last step
        results.write_text(results.read_text().replace('"step": 20', '"step": 30'))
    write(tmp_path, "SAGE")
    assert unequal(tmp_path) == ["SAGE: unequal training steps: 21, ERM 31 (PACS)."]


def test_steps_of_each_dataset_count_by_themselves(tmp_path):
    """5001 on one and 15001 on another are equal conditions, as long as both methods have them."""
    for algorithm in ("ERM", "SAGE"):
        write(tmp_path, algorithm)
        write(tmp_path, algorithm, dataset="VLCS", device="H200")
    assert unequal(tmp_path) == []
    write(tmp_path / "more", "ERM")
    write(tmp_path / "more", "SAGE", device="H200")
    write(tmp_path / "more", "SAGE", dataset="VLCS", device="A100")
    assert unequal(tmp_path / "more") == ["SAGE: unequal device: H200, ERM cpu (PACS)."]


def test_a_fact_that_records_do_not_say_agrees_with_everything(tmp_path):
    write(tmp_path, "ERM", own={"model": None}, versions={}, commit=None, device="")
    write(tmp_path, "SAGE")
    assert unequal(tmp_path) == []


def test_averaged_weights_are_stated_and_no_warning(tmp_path):
    write(tmp_path, "ERM")
    write(tmp_path, "SAGE", evaluated="average of steps 1 … 9")
    assert dg.compare(tmp_path).notes[-1] == (
        "Evaluated with the averaged weights that the method ends in, not at a checkpoint: SAGE."
    )
    assert unequal(tmp_path) == []
