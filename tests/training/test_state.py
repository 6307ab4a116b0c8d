"""What an algorithm gives to its checkpoint: refused at once where no restart could, or should, continue from it."""

import pytest
import torch
from helpers import assert_same, records, run, small_config

from domainbed_sage.core.errors import UserError
from domainbed_sage.training import checkpoint


def poison(monkeypatch, change):
    state_dict = torch.nn.Module.state_dict

    def poisoned(self):
        state = {"model": state_dict(self.model), "optimizer": self.optimizer.state_dict(), "perturbation_cosine": None}
        return change(state) or state

    monkeypatch.setattr("domainbed_sage.algorithms.base.Algorithm.state_dict", poisoned)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("part", "name"), [("optimizer", r"optimizer\.state\.0\.exp_avg"), ("extra", r"extra\.momentum\.1")]
)
def test_a_state_that_is_not_finite_is_not_saved(begun, monkeypatch, part, name, value):
    before = (begun / "checkpoint.pt").read_bytes()

    def change(state):
        bad = torch.tensor([1.0, value])
        if part == "optimizer":
            state["optimizer"]["state"][0]["exp_avg"] = bad
        else:
            state["extra"] = {"momentum": [torch.zeros(1), bad]}

    with monkeypatch.context() as patch:
        poison(patch, change)
        with pytest.raises(UserError, match=rf"^{name} in the algorithm's state is not finite.*from before are kept"):
            run(small_config(), begun)
    assert (begun / "checkpoint.pt").read_bytes() == before


def test_weights_that_are_not_finite_are_not_saved(begun, monkeypatch):
    """The last step of a run: no later loss could tell."""
    step = "domainbed_sage.training.train.Loop._step"

    def break_weights(self, at, batch):
        self.pending.setdefault("loss", []).append(torch.tensor(1.0))
        if at == 5:
            self.algorithm.params[0].data[0] = float("inf")

    monkeypatch.setattr(step, break_weights)
    with pytest.raises(UserError, match="The weights of ERM are not finite after step 5"):
        run(small_config(checkpoint_freq=100), begun.parent / "fresh")
    assert not (begun.parent / "fresh" / "done").exists()


@pytest.mark.parametrize(("value", "refused"), [(float("nan"), True), (float("-inf"), False)])
def test_a_mask_in_the_model_may_be_infinite(value, refused):
    state = {"model": {"mask": torch.tensor([0.0, value]), "none": torch.zeros(0), "count": torch.tensor(3)}}
    if refused:
        with pytest.raises(UserError, match=r"model\.mask in the algorithm's state is not finite"):
            checkpoint.check_finite(state)
    else:
        checkpoint.check_finite(state)


class Counter:
    """Of a plugin."""


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Counter(), r"holds test_state\.Counter, which no restart could read back. It may hold tensors, numbers"),
        (lambda: 1, r"state cannot be saved: .*lambda.*It may hold tensors, numbers, texts"),
        ((i for i in ()), r"state cannot be saved: cannot pickle 'generator' object"),
    ],
    ids=["object", "function", "generator"],
)
def test_a_state_that_could_not_be_read_back_is_refused_at_once(tmp_path, monkeypatch, thing, message):
    """Otherwise the run goes on for hours, and dies when it is continued."""
    poison(monkeypatch, lambda state: state | {"thing": thing})
    with pytest.raises(UserError, match=message):
        run(small_config(), tmp_path / "run")
    assert [line["step"] for line in records(tmp_path / "run")] == [0]
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_a_state_that_its_algorithm_does_not_take_up(begun, undisturbed, monkeypatch):
    def forgetful(self, state):
        raise KeyError("momentum")

    with monkeypatch.context() as patch:
        patch.setattr("domainbed_sage.algorithms.base.Algorithm.load_state_dict", forgetful)
        message = r"ERM cannot take up the state that its checkpoint holds: KeyError\('momentum'\)\. Its code, or its"
        with pytest.raises(UserError, match=message):
            run(small_config(), begun)
    assert_same(run(small_config(), begun), undisturbed)
