"""What a run is: its identity, its defaults, and every mistake in its description at once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import small_config

from domainbed_sage.config import Machine, RunConfig, make_config, read_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.specs import datasets

OTHER = {
    "dataset": "EmojiStylesDisjoint",
    "algorithm": "GGA",
    "test_envs": (1,),
    "model": "other",
    "optimizer": "sgd",
    "trial_seed": 1,
    "hparams_seed": 1,
    "seed": 1,
    "steps": 7,
    "checkpoint_freq": 4,
    "holdout_fraction": 0.3,
    "precision": "bf16",
    "evaluation": "full",
}


def changed(config, **fields):
    return RunConfig(**(config.model_dump() | fields))


def mistakes(**settings):
    """Lines of the message of one wrong description."""
    with pytest.raises(UserError) as caught:
        make_config(**({"dataset": "EmojiStyles", "algorithm": "ERM", "test_envs": [0]} | settings))
    first, *lines = str(caught.value).splitlines()
    assert first == f"{len(lines)} mistake{'s' * (len(lines) > 1)} in the description of the run:"
    return [line.removeprefix("  - ") for line in lines]


# Identity


def test_every_field_of_the_science_changes_the_identity():
    config = small_config()
    assert {*OTHER, "hparams"} == set(RunConfig.model_fields)
    ids = {name: changed(config, **{name: value}).run_id for name, value in OTHER.items()}
    ids |= {f"hparams.{name}": changed(config, hparams=config.hparams | {name: -1}).run_id for name in config.hparams}
    assert len({*ids.values(), config.run_id}) == len(ids) + 1


def test_identity_knows_no_machine(tmp_path, monkeypatch):
    here = small_config().run_id
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOMAINBED_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOSTNAME", "elsewhere")
    assert small_config().run_id == here
    assert set(RunConfig.model_fields).isdisjoint(Machine.__dataclass_fields__)


def test_identity_is_twelve_digits_and_in_the_folder_name():
    config = small_config("SAGE", test_envs=[0, 2], trial_seed=1)
    assert len(config.run_id) == 12
    assert int(config.run_id, 16) >= 0
    assert config.folder_name == f"EmojiStyles-SAGE-env0+2-trial1-{config.run_id}"


def long_name(*test_envs, trial_seed=0):
    return changed(small_config(), dataset="WILDS", test_envs=test_envs, trial_seed=trial_seed).folder_name


def test_a_folder_name_longer_than_file_systems_take_is_shortened_and_stays_unique(tmp_path):
    many = tuple(range(40, 120))
    names = {long_name(*many), long_name(*many, 7), long_name(*many, trial_seed=2**63 - 1)}
    assert len(names) == 3
    assert {len(name.encode()) <= 140 for name in names} == {True}
    assert {name.startswith("WILDS-ERM-env40+41+42+43+44+45+") for name in names} == {True}
    ids = changed(small_config(), dataset="WILDS", test_envs=many).run_id
    assert long_name(*many).endswith(f"...-trial0-{ids}")
    (tmp_path / long_name(*many)).mkdir()


def test_a_folder_name_that_fits_stays_as_it_is():
    """The longest has 255 bytes."""
    envs = (*range(100, 153), 1, 2, 3, 4, 5)
    name = long_name(*envs)
    assert len(name) == 255 - 1
    assert "+".join(map(str, envs)) in name
    assert len(long_name(*envs[:-1], 10)) == 255
    assert "..." in long_name(*envs[:-2], 10, 10)


def test_a_shortened_name_is_cut_between_characters():
    name = changed(small_config(), dataset="é" * 200, test_envs=(1,)).folder_name
    assert name.startswith("é" * 40)
    assert "\ufffd" not in name


def test_order_of_hyperparameters_does_not_matter():
    config = small_config()
    assert changed(config, hparams=dict(reversed(config.hparams.items()))).run_id == config.run_id


def test_through_json_and_back():
    config = small_config("SAGE", test_envs=[1, 2], hparams={"lr": 1})
    assert read_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    assert isinstance(config.hparams["lr"], float)


# Defaults


def test_defaults_of_the_dataset_and_the_model():
    config = make_config(dataset="EmojiStyles", algorithm="ERM", test_envs=[0])
    assert (config.model, config.steps, config.checkpoint_freq) == ("small_cnn", 301, 60)
    assert config.hparams["lr"] == 1e-3  # recommended by the model
    assert make_config(dataset="EmojiStyles", algorithm="ERM", test_envs=[0], hparams={"lr": 0.5}).hparams["lr"] == 0.5
    assert config.optimizer == "adam"
    assert (config.holdout_fraction, config.precision) == (0.2, "fp32")


def test_domainbeds_defaults_on_disk():
    config = make_config(dataset="PACS", algorithm="ERM", test_envs=[0], model="small_cnn")
    assert (config.steps, config.checkpoint_freq) == (5001, 300)
    config = make_config(dataset="DomainNet", algorithm="ERM", test_envs=[0], model="small_cnn")
    assert (config.steps, config.checkpoint_freq) == (5001, 1000)
    assert config.source_envs == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("given", [[2], ["2"], ["openmoji"]])
def test_environments_by_index_or_name(given):
    config = small_config(test_envs=given)
    assert config.test_envs == (2,)
    assert config.source_envs == (0, 1, 3)
    assert config == small_config(test_envs=[2])


# Environments whose names are numbers


@pytest.fixture
def called():
    """Register a dataset with these environments, for a while."""
    things = dict(datasets._things)

    def register(*names):
        datasets._things.pop("Numbers", None)
        spec = replace(datasets["EmojiStyles"], name="Numbers", environments=names, counts=())
        datasets.register("Numbers")(spec)

    yield register
    datasets._things.clear()
    datasets._things.update(things)


def held_out(*envs):
    return make_config(dataset="Numbers", algorithm="ERM", test_envs=envs).test_envs


@pytest.mark.parametrize("kind", [int, str])
def test_a_number_means_one_environment_or_none(called, kind):
    """However it is written: on the command line all are texts, in a sweep file some are numbers."""
    called("1", "2", "3")
    assert held_out(kind(0)) == (0,)  # an index only
    assert held_out(kind(3)) == (2,)  # a name only
    for number, by_name, by_index in ((1, "1", "2"), (2, "2", "3")):
        (found,) = mistakes(dataset="Numbers", test_envs=[kind(number)])
        assert found == (
            f"{kind(number)!r} in test_envs may mean more than one environment of Numbers. "
            f"Say name:{by_name} (index:{number - 1}) or name:{by_index} (index:{number})."
        )
    called("0", "1", "2")
    assert held_out(kind(1)) == (1,)  # both, and the same one


def test_names_and_indices_that_say_what_they_are(called):
    called("1", "2", "index:7", "name:0")
    assert held_out("name:1", "name:2") == (0, 1)
    assert held_out("index:0", "index:3") == (0, 3)
    assert held_out("index:7") == (2,)  # an environment's whole name wins
    assert held_out("name:0") == (3,)
    for wrong in ("name:3", "index:4", "index:-1", "index:", "name:", "index:1.0", "number:1", "name:name:0x"):
        (found,) = mistakes(dataset="Numbers", test_envs=[wrong])
        assert found.startswith(f"Numbers has no environment {wrong!r}. Known: 0 = 1, 1 = 2, 2 = index:7, 3 = name:0")


def test_yaml_drops_leading_zeros(called):
    """A sweep file's 01 is the number 1, which is as good as the name 01."""
    called("01", "02", "07")
    (found,) = mistakes(dataset="Numbers", test_envs=[1])
    assert found.endswith("Say name:01 (index:0) or name:02 (index:1).")
    assert held_out(7) == held_out("7") == held_out("07") == (2,)
    assert held_out("name:01") == (0,)


# Mistakes


def test_unknown_names_all_at_once():
    found = mistakes(dataset="EmojiStyle", algorithm="sage", model="vit", optimizer="adamax")
    assert len(found) == 4
    assert found[0].startswith("Unknown dataset 'EmojiStyle'. Did you mean 'EmojiStyles'? Known: ")
    assert found[1].startswith("Unknown algorithm 'sage'. Did you mean 'SAGE'? Known: ")
    assert "ERM" in found[1]
    assert found[2].startswith("Unknown model 'vit'.")
    assert found[3].startswith(
        "Unknown optimizer 'adamax'. Did you mean 'adam'? Known: adam, adamw, amsgrad, muon, sgd."
    )


@pytest.mark.parametrize("env", [4, "4", -1, "-1", "notto", "", 1.5])
def test_unknown_environment(env):
    (found,) = mistakes(test_envs=[0, env])
    assert found == (
        f"EmojiStyles has no environment {env!r}. Known: 0 = fluent_hc, 1 = noto, 2 = openmoji, 3 = twemoji."
    )


@pytest.mark.parametrize("envs", [[0, 0], [1, "noto"], []])
def test_environment_twice_or_none(envs):
    assert mistakes(test_envs=envs) == [f"test_envs should name each held-out environment once. Found {envs}."]


def test_no_environment_to_train_on():
    (found,) = mistakes(test_envs=[0, 1, 2, "twemoji"])
    assert found.startswith("test_envs [0, 1, 2, 'twemoji'] leave no environment of EmojiStyles to train on. Known: ")


@pytest.mark.parametrize("name", ["steps", "checkpoint_freq"])
@pytest.mark.parametrize("value", [0, -5, 2.5, "10", 10**9 + 1])
def test_impossible_steps(name, value):
    assert mistakes(**{name: value}) == [f"{name} should be a whole number ≥ 1 and ≤ 1,000,000,000. Found {value!r}."]


@pytest.mark.parametrize("name", ["seed", "trial_seed", "hparams_seed"])
@pytest.mark.parametrize("value", [-1, 2**63, 1.5, "0"])
def test_impossible_seeds(name, value):
    """A record with a larger one could not be read back into a table of 64-bit integers."""
    (found,) = mistakes(**{name: value})
    assert found == f"{name} should be a whole number ≥ 0 and ≤ 9,223,372,036,854,775,807. Found {value!r}."
    assert small_config(**{name: 2**63 - 1}).run_id != small_config(**{name: 0}).run_id


@pytest.mark.parametrize("value", [0, 1, -0.2, 1.2])
def test_impossible_holdout(value):
    assert mistakes(holdout_fraction=value) == [f"holdout_fraction should be between 0 and 1. Found {value!r}."]


@pytest.mark.parametrize("value", ["fp64", "int8"])
def test_impossible_precision(value):
    """fp64 would be recorded, and fp32 computed."""
    assert mistakes(precision=value) == [
        f"precision should be one of fp32, tf32, bf16, bf16x3, bf16x6. Found {value!r}."
    ]


def test_fp16_would_lose_gradients():
    """On a confident head: p - y of a class is near 1e-9, and float16 begins at 6e-8."""
    (message,) = mistakes(precision="fp16")
    assert message.startswith(
        "precision should be one of fp32, tf32, bf16, bf16x3, bf16x6. Found 'fp16'. Small gradients become zero"
    )
    assert message.endswith("use bf16 or fp32.")


def test_all_mistakes_at_once():
    found = mistakes(
        test_envs=[7], steps=0, checkpoint_freq=0, holdout_fraction=1, hparams={"lr": -1, "rho": 1, "batch_size": 0.5}
    )
    assert len(found) == 7
    for words in ("no environment 7", "steps should", "checkpoint_freq should", "holdout_fraction", "'lr' should"):
        assert any(words in line for line in found), words
    assert any(line.startswith("'rho' is not a hyperparameter here. Known: batch_size") for line in found)
    assert any(line.startswith("'batch_size' should be a whole number ≥ 1. Found 0.5") for line in found)


def test_unknown_field_of_a_description():
    values = small_config().model_dump(mode="json")
    with pytest.raises(ValueError, match="colour"):
        read_config(values | {"colour": 1})
    with pytest.raises(UserError, match="'rho' is not a hyperparameter here"):
        read_config(values | {"hparams": values["hparams"] | {"rho": 1.0}})


def test_fewer_loader_processes_than_none():
    with pytest.raises(UserError, match=r"num_workers should be a number of loader processes, 0 or more\. Found -1\."):
        Machine(Path("x"), num_workers=-1)


def test_machine_defaults():
    machine = Machine(Path("x"))
    assert machine.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (machine.num_workers, machine.save_every_s) == (0, 300.0)
