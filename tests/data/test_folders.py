"""Datasets on disk: ImageFolder's order, PIL's pixels, and folders that cannot be right."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.decode import DecodedCache, Decoder
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.specs import datasets

ENVIRONMENTS = ("Real World", "location_100", "location_38")  # as strings: capitals, and 100 before 38
FILES = {  # file name: mode of the image
    "dog/b.png": "RGB",
    "dog/a.jpg": "RGB",
    "dog/IMG_2.JPG": "RGB",
    "dog/IMG_10.jpeg": "L",
    "dog/deeper/c.png": "P",
    "house/x.png": "RGBA",
    "house/cmyk.jpg": "CMYK",
    "house/grey.png": "L",
    "house/bits.png": "1",
    "Apple/w.webp": "RGB",
}


def picture(mode, seed, size=(9, 7)):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4 if mode in ("RGBA", "CMYK") else 3), np.uint8))
    if mode in ("RGBA", "CMYK"):
        return Image.frombytes(mode, size, image.tobytes())
    return image.quantize(16) if mode == "P" else image.convert(mode)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "set"
    for seed, (environment, (name, mode)) in enumerate((e, f) for e in ENVIRONMENTS for f in FILES.items()):
        path = root / environment / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(mode, seed).save(path)
        (path.parent / "Thumbs.db").write_text("not an image")
    return root


@pytest.fixture
def root(original, tmp_path):
    """A copy to break."""
    return shutil.copytree(original, tmp_path / "set")


def fails(root, *words, **options):
    """Reading fails with one message that has all these words."""
    with pytest.raises(UserError) as caught:
        read_folders(root, "Set", **options)
    message = str(caught.value)
    assert [word for word in map(str, words) if word not in message] == []
    return message


# What is read


def test_order_is_torchvisions(original):
    dataset = read_folders(original, "Set")
    assert dataset.classes == ("Apple", "dog", "house")
    for environment in dataset.environments:
        folder = ImageFolder(str(original / environment.name))
        assert [str(original / environment.name / key) for key in environment.keys] == [p for p, _ in folder.samples]
        assert environment.labels.tolist() == folder.targets
        assert len(environment) == len(FILES)


def test_order_as_written_down(original):
    """Class folders, then folders, then files, all as strings; capitals come first."""
    assert read_folders(original, "Set").environments[0].keys == [
        *("Apple/w.webp", "dog/IMG_10.jpeg", "dog/IMG_2.JPG", "dog/a.jpg", "dog/b.png", "dog/deeper/c.png"),
        *("house/bits.png", "house/cmyk.jpg", "house/grey.png", "house/x.png"),
    ]


def test_environments_are_sorted_as_strings(original):
    assert tuple(e.name for e in read_folders(original, "Set").environments) == ENVIRONMENTS
    given = ("location_38", "Real World", "location_100")
    assert tuple(e.name for e in read_folders(original, "Set", given).environments) == given


def test_pixels_are_pils(original):
    dataset = read_folders(original, "Set")
    for environment in dataset.environments:
        for index, key in enumerate(environment.keys):
            expected = np.asarray(Image.open(original / environment.name / key).convert("RGB"))
            image = environment.image(index)
            assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 7, 9))
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_known_pixels(tmp_path):
    Image.new("RGB", (2, 1), (10, 20, 30)).save(tmp_path / "a.png")
    assert Decoder()(tmp_path / "a.png").tolist() == [[[10, 10]], [[20, 20]], [[30, 30]]]
    Image.new("L", (1, 2), 7).save(tmp_path / "b.png")
    assert Decoder()(tmp_path / "b.png").tolist() == [[[7], [7]]] * 3
    Image.new("RGBA", (1, 1), (1, 2, 3, 0)).save(tmp_path / "c.png")
    assert Decoder()(tmp_path / "c.png").tolist() == [[[1]], [[2]], [[3]]]  # transparency is dropped, not blended


# Folders that cannot be right


def test_no_root(tmp_path):
    fails(tmp_path / "nowhere", "Set should be in", tmp_path / "nowhere", "does not exist", "--data_dir")


def test_empty_root(tmp_path):
    fails(tmp_path, tmp_path, "no environment")


def test_environment_missing(root):
    shutil.rmtree(root / "location_38")
    fails(root, f"environment folder {root / 'location_38'} is missing", environments=ENVIRONMENTS)


def test_stray_environment(root):
    shutil.copytree(root / "location_38", root / "__MACOSX")
    fails(root, f"{root / '__MACOSX'} is not an environment of Set", "move it away", environments=ENVIRONMENTS)


def test_class_missing_in_one_environment(root):
    shutil.rmtree(root / "location_100" / "dog")
    message = fails(root, f"class folder {root / 'location_100' / 'dog'} is missing", "other environments have it")
    assert message.startswith("1 mistake in the folders of Set")


@pytest.mark.parametrize("content", [(), ("notes.txt",), (".hidden.png",)])
def test_class_without_images(root, content):
    folder = root / "location_38" / "house"
    shutil.rmtree(folder)
    folder.mkdir()
    for name in content:
        (folder / name).write_text("")
    fails(root, f"class folder {folder} holds no image")


def test_wrong_number_of_classes(root):
    fails(root, "4 classes are expected, found 3: Apple, dog, house", num_classes=4)
    assert len(read_folders(root, "Set", num_classes=3).classes) == 3


def test_all_mistakes_at_once(root):
    shutil.rmtree(root / "location_38")
    (root / "stray").mkdir()
    shutil.rmtree(root / "location_100" / "dog")
    shutil.rmtree(root / "Real World" / "Apple")
    (root / "Real World" / "Apple").mkdir()
    words = (root / "location_38", root / "stray", root / "location_100" / "dog", root / "Real World" / "Apple")
    message = fails(root, *words, environments=ENVIRONMENTS)
    assert message.startswith("4 mistakes in the folders of Set:")


def test_data_dir_is_asked_for():
    with pytest.raises(UserError, match=r"PACS is read from disk: give the folder that holds PACS/ with --data_dir"):
        datasets["PACS"].load(None)
    with pytest.raises(UserError, match=r"OfficeHome should be in .*office_home, which does not exist"):
        datasets["OfficeHome"].load(Path("/nowhere"))


# Images that cannot be decoded


@pytest.mark.parametrize("name", ["house/x.png", "dog/a.jpg"])
def test_truncated_image(root, name):
    path = root / "location_38" / name
    path.write_bytes(path.read_bytes()[:-60])
    undecodable(root, name)


@pytest.mark.parametrize("content", [b"", b"this is a text\n", b"\x89PNG\r\n\x1a\n" + bytes(50), b"<html>404</html>"])
def test_file_that_is_no_image(root, content):
    (root / "location_38" / "dog" / "a.jpg").write_bytes(content)
    undecodable(root, "dog/a.jpg")


def test_damaged_image(root):
    path = root / "location_38" / "house" / "x.png"
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF  # the checksum of the pixels no longer fits
    path.write_bytes(content)
    undecodable(root, "house/x.png")


def undecodable(root, key):
    """The dataset can be read; asking for the image names its path, and no other image is given in its place."""
    environment = read_folders(root, "Set").environments[2]
    message = rf"{re.escape(str(root / 'location_38' / key))} cannot be decoded as an image .*restore it"
    with pytest.raises(UserError, match=message):
        environment.image(environment.keys.index(key))


# The cache


@pytest.fixture
def decoded(monkeypatch):
    """Paths in the order in which they were decoded."""
    paths = []
    original = Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda decoder, path: paths.append(path) or original(decoder, path))
    return paths


def test_cache_decodes_once(original, decoded):
    environment = read_folders(original, "Set").environments[0]
    first = [environment.image(i).clone() for i in range(len(environment))]
    second = [environment.image(i) for i in range(len(environment))]
    assert len(decoded) == len(set(decoded)) == len(FILES)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_cache_keeps_to_its_budget(original, decoded):
    """Room for two images of 3 x 7 x 9 bytes: two are decoded once, all others each time."""
    paths = [original / "Real World" / name for name in FILES]
    cache = DecodedCache(400 / 1e9)
    for _ in range(3):
        for path in paths:
            cache.read(path, Decoder())
            held = sum(image.nbytes for image in cache._images.values())
            assert held + cache.free_bytes == 400
            assert held <= 400
    assert [decoded.count(path) for path in paths] == [1, 1] + [3] * (len(paths) - 2)


def test_no_cache(original, decoded):
    environment = read_folders(original, "Set", cache_gb=0).environments[0]
    assert torch.equal(environment.image(0), environment.image(0))
    assert len(decoded) == 2


def test_environments_share_the_budget(original, decoded):
    dataset = read_folders(original, "Set", cache_gb=2000 / 1e9)
    for _ in range(2):
        for environment in dataset.environments:
            for index in range(len(environment)):
                environment.image(index)
    assert len(decoded) == 30 + 30 - 2000 // 189
