"""Folders of images as datasets, without code: what is found, refused, and noticed later."""

import pickle
from pathlib import Path

import generated_trees as trees
import pytest

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import own
from domainbed_sage.data.specs import datasets

pytestmark = pytest.mark.usefixtures("forget_plugins")
COUNTS = {"hall": {"cat": 5, "dog": 6}, "street": {"cat": 7, "dog": 5}}


@pytest.fixture
def cams(tmp_path):
    return trees.plant(tmp_path / "Cams", COUNTS, same=False)


def test_what_a_folder_holds(cams):
    spec = own.register(cams)
    assert datasets["Cams"] is spec
    assert (spec.environments, spec.num_classes, spec.counts) == (("hall", "street"), 2, (11, 12))
    dataset = spec.load(None)
    assert [len(env) for env in dataset.environments] == [11, 12]
    assert dataset.variant.startswith("23 images, ")


def test_where_it_is_does_not_enter_the_run(cams, tmp_path, monkeypatch):
    there = make_config(dataset=f"folder:{cams}", algorithm="ERM", test_envs=["street"])
    assert (there.dataset, there.test_envs, there.model) == ("Cams", (1,), "small_cnn")
    own._specs.clear(), datasets._things.pop("Cams")
    (tmp_path / "else").mkdir()
    cams.rename(tmp_path / "else" / "Cams")
    monkeypatch.chdir(tmp_path / "else")
    assert make_config(dataset="folder:Cams", algorithm="ERM", test_envs=[1]).run_id == there.run_id


def test_a_link_keeps_its_name(cams, tmp_path):
    (tmp_path / "Mine").symlink_to(cams)
    assert own.register(tmp_path / "Mine").name == "Mine"


def test_the_same_folder_again(cams, monkeypatch):
    first = own.register(cams)
    monkeypatch.chdir(cams.parent)
    assert own.register(Path("Cams")) is first
    assert own.register(Path("Cams"), "Other").name == "Other"
    assert [spec.name for spec in own.loaded()] == ["Cams", "Other"]


def test_a_name_that_is_taken(cams, tmp_path):
    own.register(cams)
    other = trees.plant(tmp_path / "b" / "Cams", COUNTS)
    with pytest.raises(UserError, match=rf"there is one of this name from {cams}\. Rename the folder"):
        own.register(other)
    with pytest.raises(UserError, match=r"there is one of this name already.*--dataset PACS --data_dir"):
        own.register(trees.plant(tmp_path / "PACS", COUNTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "street" / "cow").mkdir(), "street/cow is in 1 of 2 environments only|cow is missing"),
        (lambda root: [path.unlink() for path in (root / "hall" / "dog").iterdir()], "hall/dog holds no image"),
        (lambda root: root.rename(root.with_name("gone")), "There is no folder .*/Cams"),
        (lambda root: (root / "empty").mkdir(), "environment folder .*/empty holds no class folder"),
        (lambda root: (root / "hall" / "cat" / "link.jpg").symlink_to("nowhere"), "a link that leads to no file"),
    ],
)
def test_a_folder_with_mistakes_is_not_registered(cams, change, message):
    change(cams)
    with pytest.raises(UserError, match=message):
        own.register(cams)
    assert "Cams" not in datasets


def test_names_and_numbers_make_the_population():
    def changed(**changes):
        return own.population({**COUNTS, **changes})

    same = own.population({e: dict(reversed(classes.items())) for e, classes in COUNTS.items()})
    assert own.population(COUNTS) == same
    others = [changed(hall={"cat": 6, "dog": 5}), changed(hall={"cat": 5, "cow": 6}), own.population({"a": {"b": 23}})]
    assert len({same, *others}) == 4
    assert {text.partition(",")[0] for text in others} == {"23 images"}


def test_images_that_come_and_go_meanwhile(cams):
    spec = own.register(cams)
    image = next((cams / "hall" / "cat").iterdir())
    image.with_name("new.jpg").write_bytes(image.read_bytes())
    with pytest.raises(UserError, match=r"hall/cat had 5 images when this command began, and has 6 now"):
        spec.load(None)


def test_another_process_knows_what_was_found_here(cams):
    specs = pickle.loads(pickle.dumps((own.register(cams),)))
    own._specs.clear(), datasets._things.pop("Cams")
    own.adopt(specs)
    own.adopt(specs)
    assert datasets["Cams"].load(None).variant == own.population(COUNTS)
    assert own.loaded() == specs
