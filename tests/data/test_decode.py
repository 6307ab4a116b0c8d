"""Reduced decoding, stored images, and images that cannot be decoded."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from generated_trees import few, plant
from helpers import on_cpu
from PIL import Image

from domainbed_sage.cli import main
from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import resized
from domainbed_sage.data.decode import Decoder, decoder
from domainbed_sage.data.specs import datasets
from domainbed_sage.data.transforms import DataOptions
from domainbed_sage.training import experiment, train


@pytest.fixture
def photo(tmp_path):
    """A smooth JPEG, 640 x 480."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    path = tmp_path / "photo.jpg"
    coarse.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


@pytest.mark.parametrize(
    ("side", "size"),
    [(1, (80, 60)), (60, (80, 60)), (61, (160, 120)), (240, (320, 240)), (241, (640, 480)), (999, (640, 480))],
)
def test_draft_keeps_both_sides_at_least_as_long(photo, side, size):
    image = Decoder("draft", side)(photo)
    assert tuple(image.shape) == (3, size[1], size[0])


def test_draft_is_the_picture(photo):
    """Against box averages of the fully decoded picture: libjpeg's reduced transform is nearly that."""
    full, draft = Decoder()(photo).double(), Decoder("draft", 100)(photo).double()
    averages = torch.nn.functional.avg_pool2d(full, 4)
    assert (draft - averages).abs().mean() < 1
    assert (draft - averages.flip(-1)).abs().mean() > 10


def test_draft_leaves_other_formats_alone(photo):
    png = photo.with_suffix(".png")
    Image.open(photo).save(png)
    assert torch.equal(Decoder("draft", 10)(png), Decoder()(png))


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((640, 480), 96, (128, 96)), ((480, 640), 96, (96, 128)), ((90, 50), 96, (90, 50)), ((999, 100), 99, (989, 99))],
)
def test_resized_brings_the_short_side_down_and_never_up(tmp_path, size, side, expected):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "a.png")
    image = Decoder("resized", side)(tmp_path / "a.png")
    assert tuple(image.shape) == (3, expected[1], expected[0])
    assert image.unique(dim=1).flatten().unique().tolist() == [10, 20, 30]


def test_resized_is_the_picture(photo):
    full, small = Decoder()(photo).double(), Decoder("resized", 120)(photo).double()
    assert (small - torch.nn.functional.avg_pool2d(full, 4)).abs().mean() < 1


def test_no_crop_is_ever_enlarged():
    """The smallest crop of the training transform: 70 % of the area at 3:4, of a square image."""
    for size in (112, 224, 336):
        assert decoder("resized", size).side * (0.7 * 0.75) ** 0.5 >= size


# Stored images


@pytest.fixture
def data(tmp_path):
    plant(tmp_path / "PACS", few(datasets["PACS"]), subset="two per class", same=False)
    return tmp_path


def environments(data, mode):
    loaded = datasets["PACS"].load(data).environments
    return [env.decoded_by(Decoder(mode, 4)) for env in loaded]


def stored(data):
    resized.store(data / "PACS", datasets["PACS"].load(data), 4)
    return data / "PACS.resized-4"


def test_stored_images_are_the_decoded_ones(data):
    decoded = [[env.image(i) for i in range(len(env))] for env in environments(data, "resized")]
    stored(data)
    for file in (data / "PACS").rglob("*.jpg"):
        file.write_bytes(b"")  # whoever reads the original files now fails
    for env, images in zip(environments(data, "resized"), decoded, strict=True):
        assert all(torch.equal(env.image(i), image) for i, image in enumerate(images))
        assert images[0].shape == (3, 4, 4)
    with pytest.raises(UserError, match="cannot be decoded"):
        environments(data, "full")[0].image(0)


def test_a_flipped_bit_is_noticed(data):
    path = stored(data) / "sketch.bin"
    content = bytearray(path.read_bytes())
    content[3 * 4 * 4 * 5 + 7] ^= 1
    path.write_bytes(content)
    env = environments(data, "resized")[3]
    env.image(4)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is damaged at image 5\. Build it again with"):
        env.image(5)


def test_images_of_another_dataset_are_noticed(data):
    stored(data)
    (data / "PACS" / "photo" / "dog" / "pic_00001.jpg").unlink()
    with pytest.raises(UserError, match=r"photo.bin holds 14 images that are not the 13 of the dataset now"):
        environments(data, "resized")


@pytest.mark.parametrize("name", ["photo.bin", "photo.npz"])
def test_a_torn_file_is_noticed(data, name):
    path = stored(data) / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"photo.bin (has 662 bytes, and 672 belong to it|cannot be read)"):
        environments(data, "resized")


def test_storing_fails_as_a_whole(data):
    before = {path.name: path.read_bytes() for path in stored(data).iterdir()}
    (data / "PACS" / "photo" / "dog" / "pic_00001.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"pic_00001\.jpg cannot be decoded"):
        stored(data)
    assert {path.name: path.read_bytes() for path in (data / "PACS.resized-4").iterdir()} == before


def test_cache_command(data, capsys):
    assert main(["data", "cache", "PACS", "--data_dir", str(data), "--image_size", "4"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{data}/PACS.resized-6: 6.0 kB, short sides at most 6 pixels" in printed
    assert main(["data", "check", "PACS", "--data_dir", str(data)]) == 0


def run(data, folder, **hparams):
    config = make_config(
        dataset="PACS",
        algorithm="ERM",
        model="small_cnn",
        test_envs=[0],
        steps=3,
        checkpoint_freq=2,
        hparams={"width": 8, "batch_size": 2} | hparams,
    )
    train.run(config, on_cpu(folder, data_dir=data))
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


# Corrupt images


CORRUPT = ("cartoon/dog/pic_00001.jpg", "sketch/house/pic_00000.jpg")


@pytest.fixture
def torn(data):
    for name in CORRUPT:
        path = data / "PACS" / name
        path.write_bytes(path.read_bytes()[:-200])
    return data


def check(data, *options):
    return main(["data", "check", "PACS", "--data_dir", str(data), *options])


def test_check_finds_them(torn, capsys):
    assert check(torn) == 0  # names and counts are right
    assert check(torn, "--images") == 2
    message = capsys.readouterr().err
    assert all(str(torn / "PACS" / name) in message for name in CORRUPT)
    assert "2 of 56 images cannot be decoded" in message
    assert "--leave_out" in message
    assert not (torn / "PACS" / "CORRUPT.txt").exists()


def test_listed_ones_stop_a_run_before_it_starts(torn, tmp_path):
    assert check(torn, "--leave_out") == 0
    with pytest.raises(UserError, match=r"2 images of PACS are listed as corrupt .*corrupt: leave_out"):
        run(torn, tmp_path / "run")
    assert not (tmp_path / "run" / "results.jsonl").exists()


def test_left_out_they_are_counted_and_named(torn, tmp_path):
    check(torn, "--leave_out")
    for record in run(torn, tmp_path / "run", corrupt="leave_out"):
        assert record["data"]["notes"] == [f"2 corrupt images left out: {', '.join(CORRUPT)}"]


def test_all_others_keep_their_split(torn):
    check(torn, "--leave_out")
    settings = {"dataset": "PACS", "algorithm": "ERM", "model": "small_cnn", "test_envs": [0]}
    config = make_config(**settings, hparams={"corrupt": "leave_out"})
    machine, options = on_cpu(torn, data_dir=torn), DataOptions(corrupt="leave_out")
    dataset, splits = experiment.read_data(config, machine, options)
    (torn / "PACS" / "CORRUPT.txt").unlink()
    _, whole = experiment.read_data(config, machine, options)
    for env, ours, theirs in zip(dataset.environments, splits, whole, strict=True):
        gone = [i for i, key in enumerate(env.keys) if f"{env.name}/{key}" in CORRUPT]
        for half in ("in", "out"):
            assert ours.indices(half).tolist() == [i for i in theirs.indices(half).tolist() if i not in gone]
    assert sum(len(s.in_) + len(s.out) for s in splits) == 56 - 2


def test_a_mended_dataset_needs_no_list(torn, capsys):
    check(torn, "--leave_out")
    for name in CORRUPT:
        shutil.copy(torn / "PACS" / "photo" / "dog" / "pic_00000.jpg", torn / "PACS" / name)
    assert check(torn, "--images") == 0
    assert "56 images decoded: all can be decoded" in capsys.readouterr().out
    assert not (torn / "PACS" / "CORRUPT.txt").exists()


def test_a_list_of_other_images_is_a_mistake(data, tmp_path):
    (data / "PACS" / "CORRUPT.txt").write_text("photo/dog/nowhere.jpg\n")
    with pytest.raises(UserError, match=r"lists what the dataset does not hold: photo/dog/nowhere.jpg"):
        run(data, tmp_path / "run", corrupt="leave_out")


def test_runs_are_equal_with_and_without_the_store(data, tmp_path):
    """The network takes 32-pixel images, so the stored ones have 48."""
    for file in (data / "PACS").rglob("*.jpg"):
        Image.open(file).resize((90, 70), Image.Resampling.BICUBIC).save(file)
    full = run(data, tmp_path / "full")
    before = run(data, tmp_path / "before", decode="resized")
    resized.store(data / "PACS", datasets["PACS"].load(data), 48)
    for file in (data / "PACS").rglob("*.jpg"):
        file.write_bytes(b"")
    after = run(data, tmp_path / "after", decode="resized")
    assert [r["loss"] for r in before] == [r["loss"] for r in after] != [r["loss"] for r in full]
    assert Path(tmp_path / "after" / "done").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_an_image_is_not_damaged_because_the_machine_refuses(photo, monkeypatch, number):
    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        Decoder()(photo)
    assert caught.value.errno == number
