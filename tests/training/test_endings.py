"""Methods that watch the validation loss, and that end in other weights than those of the last step."""

import math

import pytest
import torch
from helpers import records, run, small_config, weights

from domainbed_sage.algorithms import algorithms, register
from domainbed_sage.data.emoji import load_small
from domainbed_sage.training.evaluate import Evaluator

ERM = algorithms["ERM"]

pytestmark = pytest.mark.usefixtures("forget_plugins")


@pytest.fixture
def heard():
    return []


@pytest.fixture
def own(heard, forget_plugins):
    @register("Ending")
    class Ending(ERM):
        watches_loss = True

        def validated(self, loss):
            heard.append((self.step, loss))

        def finish(self):
            heard.append("finish")
            with torch.no_grad():
                for p in self.params:
                    p.zero_()
            return "zeros"

    return Ending


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("steps", "grid"), [(5, [0, 2, 4]), (6, [0, 2, 4])])
def test_evaluations_on_the_grid_are_told_and_the_last_record_is_of_the_end(tmp_path, heard, steps, grid):
    config = small_config("Ending", steps=steps, checkpoint_freq=2)
    folder = run(config, tmp_path)
    found = records(folder)
    assert heard[-1] == "finish"
    assert [step for step, _ in heard[:-1]] == grid
    sources = [i for i in range(4) if i not in config.test_envs]
    for (step, loss), record in zip(heard, found[:-1], strict=False):
        assert record["step"] == step
        assert loss == pytest.approx(sum(record[f"env{i}_out_loss"] for i in sources) / 3)
        assert "evaluated" not in record
    last = found[-1]
    assert (last["step"], last["evaluated"]) == (steps - 1, "zeros")
    assert last[f"env{sources[0]}_out_loss"] == pytest.approx(math.log(len(load_small().classes)))
    assert not any(weight.any() for name, weight in weights(folder).items() if name.endswith(("weight", "bias")))


@pytest.mark.usefixtures("own")
def test_the_last_accuracies_are_those_of_the_ending(tmp_path):
    """Zero logits predict class 0 everywhere."""
    config = small_config("Ending", steps=3, checkpoint_freq=2, evaluation="full")
    last = records(run(config, tmp_path))[-1]
    assert len({round(last[f"env{i}_in_acc"], 1) for i in range(4)}) == 1
    assert max(last[f"env{i}_in_acc"] for i in range(4)) < 0.2


def test_others_are_evaluated_once_a_time_and_measure_no_losses(tmp_path, monkeypatch):
    calls = []
    measure = Evaluator.measure
    monkeypatch.setattr(Evaluator, "measure", lambda self, *args: calls.append(args) or measure(self, *args))
    found = records(run(small_config("ERM", steps=4, checkpoint_freq=2, evaluation="full"), tmp_path))
    assert len(calls) == len(found) == 3
    assert not any(key.endswith("_loss") or key == "evaluated" for record in found for key in record)
