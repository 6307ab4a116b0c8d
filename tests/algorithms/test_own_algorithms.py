"""An algorithm of a plugin: what its update returns is looked at in the step, not hours later in the record."""

import pytest
import torch
from helpers import run, small_config

from domainbed_sage.algorithms import algorithms, register
from domainbed_sage.core.errors import UserError

ERM = algorithms["ERM"]

pytestmark = pytest.mark.usefixtures("forget_plugins")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"Own\.update should return a dict of scalar tensors to log\. Found None"),
        (3.0, r"should return a dict of scalar tensors to log\. Found 3\.0"),
        ({"loss": 3.0}, r"should return scalar tensors to log\. Found 'loss': 3\.0"),
        ({"loss": torch.zeros(2)}, r"should return scalar tensors to log\. Found 'loss': a tensor \[2\]"),
        ({3: torch.zeros(())}, r"should return scalar tensors to log\. Found 3: a tensor \[\]"),
    ],
)
def test_what_an_update_returns(tmp_path, returned, message):
    @register("Own")
    class Own(ERM):
        def update(self, batch):
            return returned

    with pytest.raises(UserError, match=message):
        run(small_config("Own"), tmp_path / "run")
    assert not (tmp_path / "run" / "results.jsonl").exists()


def test_a_number_in_brackets_is_one(tmp_path):
    @register("Own")
    class Own(ERM):
        def update(self, batch):
            return {"loss": super().update(batch)["loss"].reshape(1)}

    assert run(small_config("Own", steps=1), tmp_path / "run").joinpath("done").exists()
