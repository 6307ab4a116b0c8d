"""Readable names of classes: complete or refused, in prompts and in every record, and asked for where they lack."""

import json
import logging

import pytest
import torch
from generated_trees import few, plant
from helpers import on_cpu

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import classnames
from domainbed_sage.data.acquire.obtain import obtain
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.sources import Own
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import models
from domainbed_sage.models.clip import text_features
from domainbed_sage.training import experiment

NAMES = {"n02": "tabby cat", "0": "dog", "n01": "tench"}


@pytest.fixture
def root(tmp_path):
    return plant(tmp_path / "own", {e: dict.fromkeys(NAMES, 3) for e in ("a", "b")}, same=False)


def write(root, content):
    path = root / classnames.FILE
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode())


def test_without_the_file_classes_are_called_as_their_folders(root):
    dataset = read_folders(root, "Own")
    assert dataset.classes == dataset.class_names == ("0", "n01", "n02")
    assert (dataset.readable, dataset.notes) == ((), ())


def test_names_come_in_the_order_of_the_folders(root):
    write(root, NAMES)
    dataset = read_folders(root, "Own")
    assert dataset.classes == ("0", "n01", "n02")
    assert dataset.class_names == ("dog", "tench", "tabby cat")
    (note,) = dataset.notes
    assert note.startswith("class names from CLASSES.json (sha256 ")
    assert note.endswith("): 0 = dog, n01 = tench, n02 = tabby cat")


def test_another_file_is_another_note(root):
    write(root, NAMES)
    first = read_folders(root, "Own").notes
    write(root, NAMES | {"0": "hound"})
    assert read_folders(root, "Own").notes != first


def test_windows_may_have_saved_it(root):
    write(root, b"\xef\xbb\xbf" + json.dumps(NAMES).replace("tench", " Käse ").encode())
    assert read_folders(root, "Own").class_names == ("dog", "Käse", "tabby cat")


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ({"0": "dog", "n01": "tench"}, "class 'n02' has no name"),
        (NAMES | {"n03": "car"}, "'n03' is no class folder; there are 0, n01, n02"),
        (NAMES | {"0": 7}, "'0' should have a text of one line. Found 7"),
        (NAMES | {"0": " "}, "'0' should have a text of one line. Found ' '"),
        (NAMES | {"0": "a\nb"}, r"'0' should have a text of one line. Found 'a\nb'"),
        (NAMES | {"0": "Tabby_cat"}, "'tabby cat' is the name of 2 classes: no text could distinguish them"),
        (b'{"0": "dog", "0": "cat", "n01": "tench", "n02": "tabby"}', "'0' is there 2 times"),
    ],
)
def test_mistakes(root, content, mistake):
    write(root, content)
    with pytest.raises(UserError) as caught:
        read_folders(root, "Own")
    assert str(caught.value) == f"1 mistake in {root / 'CLASSES.json'}:\n  - {mistake}"


@pytest.mark.parametrize("content", [b"", b"{", b"7", b'["a"]', b'"text"', b'{"0": "\xfc"}', b"[" * 100_000])
def test_what_is_no_object(root, content):
    write(root, content)
    with pytest.raises(UserError, match=r"CLASSES.json should be a JSON object"):
        read_folders(root, "Own")


def test_models_are_told_the_names_and_records_tell_them(tmp_path, monkeypatch):
    """Also of a copy, and under the names that models get, whatever the model."""
    pacs = datasets["PACS"]
    folder = plant(tmp_path / "mine", few(pacs, 5), "a few", same=False)
    write(folder, {c: f"the {c}" for c in pacs.expected.classes})
    obtain(pacs, tmp_path, (Own((folder,)),), subset="a few", say=lambda _: None)
    told = []
    build = models["small_cnn"].build
    monkeypatch.setitem(models._things, "small_cnn", type(models["small_cnn"])(_spy(build, told)))
    config = make_config(dataset="PACS", algorithm="ERM", test_envs=["A"], model="small_cnn", hparams={"width": 8})
    made = experiment.build(config, on_cpu(tmp_path / "run", data_dir=tmp_path))
    assert told == [tuple(f"the {c}" for c in pacs.expected.classes)]
    notes = made.metadata["data"]["notes"]
    assert [note for note in notes if note.startswith("class names from CLASSES.json") and "dog = the dog" in note]


def _spy(build, told):
    def spy(classes, *, width: int = 16, dropout: float = 0.0):
        told.append(classes)
        return build(classes, width=width, dropout=dropout)

    return spy


class _Text:
    """Of both towers of CLIP, what encodes prompts: here a prompt's length."""

    def encode_text(self, tokens, normalize):
        return torch.ones(len(tokens), 2)


@pytest.mark.parametrize(
    ("classes", "warned"),
    [
        (("dog", "cat"), 0),
        (("t-shirt", "The_Eiffel_Tower", "9 to 5", "F16"), 0),
        (("0", "cat", "01"), 2),
        (("n01440764", "n02102040"), 2),
        (("class_000", "Class 1", "label-3", "id7", "c0", "dog"), 5),
    ],
)
def test_prompts_of_codes_are_warned_of(classes, warned, caplog):
    with caplog.at_level(logging.WARNING):
        text_features(_Text(), classes, "a photo of a {}.")
    assert len(caplog.messages) == (warned > 0)
    if warned:
        (message,) = caplog.messages
        assert message.startswith(f"{warned} of {len(classes)} class names look like codes, and the classifier starts")
        assert f"a file {classnames.FILE} in the dataset's folder" in message
