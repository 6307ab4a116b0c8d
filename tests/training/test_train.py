"""Training in one piece: records, evaluation, determinism, and the runs that have to stop."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from helpers import assert_same, on_cpu, records, run, small_config, weights
from PIL import Image

from domainbed_sage.algorithms import Algorithm, register
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import emoji
from domainbed_sage.data.splits import split
from domainbed_sage.data.stream import TrainStream
from domainbed_sage.results.folder import load_records
from domainbed_sage.training import train

# DomainBed `scripts/train.py`: its options, and the keys of its records.
DOMAINBED_ARGS = {
    *("data_dir", "dataset", "algorithm", "task", "hparams", "hparams_seed", "trial_seed", "seed", "steps"),
    *("checkpoint_freq", "test_envs", "output_dir", "holdout_fraction", "uda_holdout_fraction", "skip_model_save"),
    "save_model_every_checkpoint",
}
DOMAINBED_KEYS = {"step", "epoch", "loss", "step_time", "mem_gb", "args", "hparams"} | {
    f"env{i}_{part}_acc" for i in range(4) for part in ("in", "out")
}
IMAGES = 297  # in each environment of EmojiStyles


@pytest.fixture(scope="module")
def erm(tmp_path_factory):
    return run(small_config(evaluation="full"), tmp_path_factory.mktemp("erm") / "run")


def raw_records(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


# Records


def test_keys_are_domainbeds_and_ours(erm):
    for record in raw_records(erm):
        assert DOMAINBED_KEYS - set(record) == set()
        assert set(record) - DOMAINBED_KEYS >= {"environments", "versions", "device"}
        assert DOMAINBED_ARGS - set(record["args"]) == set()


def test_algorithms_add_their_metrics(tmp_path):
    (record,) = records(run(small_config("SAGE", steps=1), tmp_path))
    assert {"agreement", "beta", "epsilon_norm", "loss_perturbed"} <= set(record)
    assert record["beta"] == pytest.approx(0.1 * (1 - record["agreement"]))


def test_values_of_the_records(erm):
    config, record = small_config(evaluation="full"), raw_records(erm)[0]
    assert record["hparams"] == config.hparams == json.loads(record["args"]["hparams"])
    science = config.model_dump(mode="json", exclude={"hparams"})
    assert {key: record["args"][key] for key in science} == science
    assert record["args"]["output_dir"] == str(erm)
    assert (record["args"]["skip_model_save"], record["args"]["task"]) == (False, "domain_generalization")
    assert record["environments"] == ["fluent_hc", "noto", "openmoji", "twemoji"]
    assert record["versions"]["torch"] == torch.__version__
    assert (record["device"], record["mem_gb"]) == ("cpu", 0.0)
    assert 0 < record["step_time"] < 60


@pytest.mark.parametrize(
    ("steps", "freq", "grid"),
    [(6, 3, [0, 3, 5]), (7, 3, [0, 3, 6]), (1, 10, [0]), (3, 1, [0, 1, 2]), (3, 100, [0, 2])],
)
def test_grid_of_evaluations(tmp_path, steps, freq, grid):
    found = records(run(small_config(steps=steps, checkpoint_freq=freq), tmp_path))
    assert [record["step"] for record in found] == grid


def test_epoch_is_in_units_of_the_smallest_in_split(erm):
    """DomainBed: step / min(len(in split) / batch_size); an in split has 297 - ⌊0.2 · 297⌋ = 238 images."""
    assert [record["epoch"] for record in records(erm)] == [0.0, 3 / (238 / 2), 5 / (238 / 2)]


def test_loss_is_the_mean_since_the_last_record(tmp_path):
    every_step = [r["loss"] for r in records(run(small_config(checkpoint_freq=1), tmp_path / "1"))]
    grouped = [r["loss"] for r in records(run(small_config(), tmp_path / "3"))]
    assert grouped == pytest.approx([every_step[0], np.mean(every_step[1:4]), np.mean(every_step[4:6])], rel=1e-12)


def test_records_are_read_by_the_tables(erm):
    (record,) = load_records(erm.parent).records
    assert (record.dataset, record.algorithm, record.test_envs, record.trial_seed) == ("EmojiStyles", "ERM", (0,), 0)
    assert record.steps.tolist() == [0, 3, 5]
    assert record.out_acc.shape == (3, 4)
    assert record.out_acc[1, 2] == records(erm)[1]["env2_out_acc"]
    assert np.isfinite(record.in_acc).all()


def test_model_file(erm):
    file = torch.load(erm / "model.pkl", weights_only=True)
    expected = {"model_input_shape": [3, 32, 32], "model_num_classes": 10, "model_num_domains": 3}
    assert {key: file[key] for key in expected} == expected
    assert file["model_hparams"] == small_config().hparams
    assert file["args"]["algorithm"] == "ERM"
    assert sum(w.numel() for w in file["model_dict"].values()) > 10_000


def test_skip_model_save(tmp_path):
    run(small_config(steps=1), tmp_path, skip_model_save=True)
    assert not (tmp_path / "model.pkl").exists()
    assert (tmp_path / "done").exists()
    assert records(tmp_path)[0]["args"]["skip_model_save"] is True


# Evaluation


def test_accuracies_equal_a_loop_over_single_images(erm):
    """From the PNG bytes of the arrays to the fraction of hits, without our loaders, transforms or batches."""
    config, dataset = small_config(evaluation="full"), emoji.load_small()
    experiment = train.build(config, on_cpu(erm))
    model = experiment.algorithm.model
    model.load_state_dict(weights(erm))
    model.eval()
    last = records(erm)[-1]
    for i, environment in enumerate(dataset.environments):
        hits = []
        for index in range(IMAGES):
            image = Image.fromarray(environment.image(index).permute(1, 2, 0).numpy())  # 32 px: no resizing, no crop
            x = (np.asarray(image, dtype=np.float32) / 255 - 0.5) / 0.5
            with torch.no_grad():
                logits = model(torch.from_numpy(x).permute(2, 0, 1)[None])
            hits.append(int(logits.argmax()) == environment.labels[index])
        parts = split(IMAGES, i, config.trial_seed)
        assert last[f"env{i}_in_acc"] == np.mean([hits[k] for k in parts.in_])
        assert last[f"env{i}_out_acc"] == np.mean([hits[k] for k in parts.out])


def test_evaluation_has_no_dropout_and_no_augmentation(tmp_path, monkeypatch):
    """The loop evaluates in evaluation mode, twice alike, and goes on in training mode."""
    modes, forward, evaluate = [], Algorithm.forward, train.Loop._evaluate

    def forward_with_mode(self, x):
        modes.append(self.model.training)
        return forward(self, x)

    def evaluate_twice(self, last):
        modes.clear()
        first, second = evaluate(self, last), evaluate(self, last)
        assert modes
        assert not any(modes)
        assert self.algorithm.model.training
        assert first == second
        return first

    monkeypatch.setattr(Algorithm, "forward", forward_with_mode)
    monkeypatch.setattr(train.Loop, "_evaluate", evaluate_twice)
    hparams = {"dropout": 0.5, "augment": "domainbed"}
    config = small_config(steps=3, checkpoint_freq=2, evaluation="full", hparams=hparams)
    assert len(records(run(config, tmp_path / "twice"))) == 2
    monkeypatch.undo()
    assert_same(tmp_path / "twice", run(config, tmp_path / "once"))


def test_the_held_out_environment_and_the_out_splits_are_never_trained_on(tmp_path, monkeypatch):
    """With the same seed, another draw from `TrainStream` cannot hide them: every row of every step is looked at."""
    seen, getitem = [], TrainStream.__getitem__

    def spy(self, step):
        names = [source.name for source in self.sources]
        seen.extend((n, int(i)) for n, rows in zip(names, self.rows(step), strict=True) for i in rows)
        return getitem(self, step)

    monkeypatch.setattr(TrainStream, "__getitem__", spy)
    run(small_config(test_envs=[1, 3], trial_seed=2, hparams={"batch_size": 16}), tmp_path)
    in_splits = {name: set(split(IMAGES, i, 2).in_) for i, name in ((0, "fluent_hc"), (2, "openmoji"))}
    assert {name for name, _ in seen} == set(in_splits)
    assert all(index in in_splits[name] for name, index in seen)


# Determinism


def test_same_run_twice(erm, tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)
    assert_same(run(small_config(evaluation="full"), tmp_path / "again", num_workers=2), erm)


@pytest.mark.parametrize("change", [{"seed": 1}, {"trial_seed": 1}])
def test_other_seed_other_run(erm, tmp_path, change):
    run(small_config(evaluation="full", **change), tmp_path)
    ours, theirs = weights(tmp_path), weights(erm)
    assert [name for name in ours if torch.equal(ours[name], theirs[name])] == []
    assert records(tmp_path)[-1]["loss"] != records(erm)[-1]["loss"]


# Runs that have to stop


def test_rows_with_repeats_are_announced(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(small_config(steps=1, hparams={"batch_size": 300}), tmp_path)
    (message, *others) = caplog.messages
    assert "batch_size 300 is larger than the in split of noto (238 images)" in message
    assert "with replacement" in message
    assert [re.search(r"in split of (\w+)", m)[1] for m in others] == ["openmoji", "twemoji"]
    assert message in (tmp_path / "err.txt").read_text()


def test_loss_that_is_not_finite(tmp_path):
    """Step 0 has a finite loss and throws the weights far away; step 1 overflows."""
    config = small_config(hparams={"lr": 1e20})
    for _ in range(2):  # the same again: what was there before is kept
        message = r"loss of ERM is not finite at step 1 .*'lr': 1e\+20.*checkpoint from before that step are kept"
        with pytest.raises(UserError, match=message):
            run(config, tmp_path)
        assert [record["step"] for record in records(tmp_path)] == [0]
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert state["step"] == 1
        assert all(w.isfinite().all() for w in state["algorithm"]["model"].values())
        assert not (tmp_path / "done").exists()


def test_weights_that_are_not_finite_at_the_last_step(tmp_path):
    """Its loss is finite, and an argmax over NaN would pass for an accuracy."""
    with pytest.raises(UserError, match=r"The weights of ERM are not finite after step 0 .*lower learning rate"):
        run(small_config(steps=1, optimizer="sgd", hparams={"lr": 3e38, "weight_decay": 1e3}), tmp_path)
    assert not (tmp_path / "results.jsonl").exists()
    assert not (tmp_path / "done").exists()


def test_perturbation_that_drowns_in_rounding(tmp_path):
    hparams = {"rho": 1e-6, "gamma": 1e-6}
    message = r"(?s)SAGE's perturbation does not survive bf16 arithmetic\. .*cosine.*--precision fp32.*larger radius"
    with pytest.raises(UserError, match=message):
        run(small_config("SAGE", precision="bf16", hparams=hparams), tmp_path / "bf16")
    assert not (tmp_path / "bf16" / "results.jsonl").exists()
    assert len(records(run(small_config("SAGE", steps=1, hparams=hparams), tmp_path / "fp32"))) == 1


# Random numbers


@pytest.mark.usefixtures("forget_plugins")
def test_what_an_update_draws_is_decided_by_seed_and_step(tmp_path):
    """SAGE's noise and GGA's search: other numbers for every seed and step, the same ones again for the same."""

    @register("Draws")
    class Draws(Algorithm):
        def update(self, batch):
            return {"loss": self.loss(batch.x, batch.y).detach(), "drawn": torch.rand(())}

    found = {}
    for name, seed in (("a", 0), ("again", 0), ("b", 1)):
        config = small_config("Draws", seed=seed, steps=3, checkpoint_freq=1)
        found[name] = [record["drawn"] for record in records(run(config, tmp_path / name))]
    assert found["a"] == found["again"]
    assert len({*found["a"], *found["b"]}) == 6
