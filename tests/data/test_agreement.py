"""A dataset is what its specification says, or is not read: environments, their order and number, classes, labels."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from generated_trees import few, plant
from PIL import Image

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.environment import ArrayEnvironment, MultiDomainDataset
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.layout import Expected
from domainbed_sage.data.specs import DatasetSpec, datasets, folder_dataset

FOUND = ("art", "photo", "sketch")


@pytest.fixture(autouse=True)
def _forget_datasets():
    things = dict(datasets._things)
    yield
    datasets._things.clear()
    datasets._things.update(things)


def made(names=FOUND, classes=("cat", "dog"), labels=(0, 1)):
    envs = tuple(
        ArrayEnvironment(n, np.zeros((len(labels), 4, 4, 3), np.uint8), np.array(labels), [f"{i}" for i in labels])
        for n in names
    )
    return MultiDomainDataset("Own", tuple(classes), envs)


def spec(environments=FOUND, num_classes=2, dataset=None, **facts):
    return DatasetSpec("Own", tuple(environments), num_classes, lambda _: dataset or made(), **facts)


def message(which):
    with pytest.raises(UserError) as caught:
        which.load(None)
    text = str(caught.value)
    assert text.startswith("1 mistake in what the specification of Own says of its data:\n  - ")
    return text.partition("  - ")[2]


def test_what_agrees_is_returned_as_it_is():
    dataset = made()
    assert spec(dataset=dataset).load(None) is dataset


def test_another_order_is_refused_with_both_orders():
    assert message(spec(("photo", "sketch", "art"))).startswith(
        "the order of the environments: it names photo, sketch, art, and the data has art, photo, sketch, so that anot"
    )


@pytest.mark.parametrize("names", [("art", "photo"), ("art", "photo", "sketch", "clipart")])
def test_another_number_is_refused(names):
    assert message(spec(names)).startswith(
        f"the number of environments: it names {', '.join(names)}, and the data has art, photo, sketch; name all that"
    )


@pytest.mark.parametrize("names", [("art", "photo", "sketches"), ("sketch", "photo", "arts"), ("x", "p", "s")])
def test_other_names_are_refused(names):
    assert "a name should be that of the folder or its start" in message(spec(names))


@pytest.mark.parametrize(
    ("labels", "names", "fit"),
    [
        (("A", "P", "S"), FOUND, True),
        (("P", "A", "S"), FOUND, False),
        (("art", "art_painting"), ("art", "art_painting"), True),
        (("art", "photo"), ("art_painting", "art"), False),
        (("p", "p"), ("photo", "print"), None),
        (("ph", "p"), ("photo", "print"), False),  # p begins both
        (("1", "2"), ("10", "2"), False),  # 1 is not short for 10
        (("1", "10"), ("1", "10"), True),
    ],
)
def test_beginnings_of_names(labels, names, fit):
    if fit is None:
        with pytest.raises(UserError, match="Own should name each environment once"):
            spec(labels)
    elif fit:
        spec(labels, dataset=made(names)).load(None)
    else:
        message(spec(labels, dataset=made(names)))


def test_labels_of_another_kind_need_the_folders_as_well():
    mapped = Expected(FOUND)
    assert spec(("x", "y", "z"), expected=mapped).load(None).environments[1].name == "photo"
    assert "the order of the environments" in message(spec(("x", "y", "z"), expected=Expected(FOUND[::-1])))
    with pytest.raises(UserError, match=r"Found x, y with the folders art, photo, sketch\."):
        spec(("x", "y"), expected=mapped)


def test_the_number_and_the_names_of_classes():
    assert message(spec(num_classes=10)) == "it has 10 classes, and the data 2: cat, dog"
    wanted = Expected(FOUND, 2, ("dog", "cat"))
    assert message(spec(expected=wanted)) == "its classes are dog, cat, and those of the data cat, dog"


@pytest.mark.parametrize("labels", [(0, 2), (-1, 0)])
def test_labels_without_a_class(labels):
    text = message(spec(("art",), dataset=made(("art",), labels=labels)))
    assert text == f"labels should be from 0 to 1; those of environment art go from {labels[0]} to {labels[1]}"


def test_an_environment_without_images():
    assert message(spec(("art",), dataset=made(("art",), labels=()))) == "environment art has no image"


def test_all_mistakes_at_once():
    with pytest.raises(UserError, match=r"^2 mistakes in what the specification of Own says"):
        spec(("photo", "sketch", "art"), 3).load(None)


def test_a_copy_with_other_fields_is_compared_with_those():
    other = replace(spec(), environments=("photo", "sketch", "art"))
    assert "it names photo, sketch, art" in message(other)
    assert replace(other, environments=FOUND).load(None).classes == ("cat", "dog")


def test_every_dataset_passes_through(tmp_path, monkeypatch):
    """Embedded, in folders, of a plugin: with another number of classes each of them fails."""
    plant(tmp_path / "PACS", few(datasets["PACS"]), "a few")
    for name in ("EmojiStyles", "EmojiStylesDisjoint", "PACS"):
        datasets[name].load(tmp_path)
        with pytest.raises(UserError, match=f"what the specification of {name} says of its data"):
            replace(datasets[name], num_classes=3).load(tmp_path)


def tree(root, environments=FOUND, classes=("cat", "dog"), n=6):
    rng = np.random.default_rng(0)
    for path in (root / e / c / f"{i}.png" for e in environments for c in classes for i in range(n)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return root


def train(folder, name, test_env):
    command = (
        f"train --dataset {name} --model small_cnn --steps 1 --device cpu --skip_model_save --test_envs {test_env}"
    )
    places = ["--data_dir", str(folder), "--output_dir", str(folder / name)]
    status = cli.main([*command.split(), "--hparams", '{"width": 8, "batch_size": 2}', *places])
    return status, folder / name / "results.jsonl"


@pytest.mark.usefixtures("restore_signals")
def test_what_is_held_out_is_what_was_named(tmp_path, capsys):
    """The command holds out photo, or nothing; it never holds out art under that name."""
    tree(tmp_path / "own")
    order = ("photo", "sketch", "art")
    for name, given in (("Shuffled", None), ("Ordered", order)):
        load = partial(lambda name, given, data_dir: read_folders(data_dir / "own", name, given), name, given)
        datasets.register(name)(DatasetSpec(name, order, 2, load, model="small_cnn", folder="own"))
    status, results = train(tmp_path, "Shuffled", "photo")
    assert status == 2
    assert "it names photo, sketch, art, and the data has art, photo, sketch" in capsys.readouterr().err
    assert not results.exists()
    status, results = train(tmp_path, "Ordered", "photo")
    record = json.loads(results.read_text().splitlines()[-1])
    assert status == 0
    assert [record["environments"][i] for i in record["args"]["test_envs"]] == ["photo"]


@pytest.mark.usefixtures("restore_signals")
def test_a_small_environment_is_found_before_training(tmp_path, capsys):
    """Of two images none is left to select by: the best step would be NaN."""
    tree(tmp_path / "own", n=6)
    for path in (tmp_path / "own" / "sketch").rglob("[1-5].png"):
        path.unlink()
    folder_dataset("Small", tmp_path / "own")
    status, results = train(tmp_path, "Small", "photo")
    assert status == 2
    assert "sketch has 2 images, of which holdout_fraction 0.2 puts none into the out split" in capsys.readouterr().err
    assert not results.exists()


# Of one's own, in one line


def test_a_folder_says_what_it_holds(tmp_path):
    root = tree(tmp_path / "cams")
    own = folder_dataset("Cams", root, model="small_cnn", steps=3)
    assert (own.environments, own.num_classes, own.model, own.steps) == (FOUND, 2, "small_cnn", 3)
    assert datasets["Cams"] is own
    assert own.load(None).classes == own.load(tmp_path / "elsewhere").classes == ("cat", "dog")
    (root / "art" / "cow").mkdir()
    with pytest.raises(UserError, match=r"cams/art/cow is not a class of Cams; move it away"):
        own.load(None)


def test_a_folder_in_the_folder_of_datasets(tmp_path, monkeypatch):
    tree(tmp_path / "cams")
    named = folder_dataset("Named", "cams", ("sketch", "art", "photo"), 2)
    assert [env.name for env in named.load(tmp_path).environments] == ["sketch", "art", "photo"]
    with pytest.raises(UserError, match=r"Named is read from disk: give the folder that holds cams/ with --data_dir"):
        named.load(None)
    with pytest.raises(UserError, match=r"Cams should be in data_cache/cams, which does not exist\. Give an absolute"):
        folder_dataset("Cams", "cams")
    monkeypatch.setenv("DOMAINBED_DATA_DIR", str(tmp_path))
    assert folder_dataset("Cams", "cams").environments == FOUND
    (tmp_path / "cams" / "art" / "dog").rename(tmp_path / "dog")
    with pytest.raises(UserError, match=r"1 mistake in the folders of More:\n.*class folder \S+/art/dog is missing"):
        folder_dataset("More", "cams")


def test_data_dir_is_asked_for_by_plugins_too():
    own = DatasetSpec("Own", FOUND, 2, lambda data_dir: read_folders(data_dir / "own", "Own"), folder="own")
    with pytest.raises(UserError, match=r"Own is read from disk: give the folder that holds own/ with --data_dir"):
        own.load(None)
