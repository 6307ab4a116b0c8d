"""EmojiStyles: the shipped set, its disjoint version, and the renderer on a small set of made-up drawings."""

import hashlib
import io
import json
import re
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import emoji, npm
from domainbed_sage.data.environment import ArrayEnvironment, MultiDomainDataset

SMALL = emoji.load_small()


def write(dataset: MultiDomainDataset, folder: Path) -> None:
    """Save every image as ``<environment>/<class>/<codepoint>.png``."""
    for environment in dataset.environments:
        for index, key in enumerate(environment.keys):
            path = folder / environment.name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(environment.image(index).permute(1, 2, 0).numpy()).save(path)


def toy(keys: list[list[str]], classes: tuple[str, ...] = ("a", "b")) -> MultiDomainDataset:
    """A dataset with these keys in its environments and one black pixel as every image."""
    environments = tuple(
        ArrayEnvironment(
            f"e{number}",
            np.zeros((len(names), 1, 1, 3), np.uint8),
            np.array([classes.index(key.split("/")[0]) for key in names]),
            names,
        )
        for number, names in enumerate(keys)
    )
    return MultiDomainDataset("Toy", classes, environments)


# The shipped set


def test_small_has_the_published_counts():
    assert SMALL.name == "EmojiStyles"
    assert [e.name for e in SMALL.environments] == ["fluent_hc", "noto", "openmoji", "twemoji"]
    assert SMALL.classes == tuple(sorted(SMALL.classes))
    assert len(SMALL.classes) == 10
    assert [len(e) for e in SMALL.environments] == [297] * 4
    for environment in SMALL.environments:
        assert set(np.bincount(environment.labels)) <= {28, 29, 30}
        assert [SMALL.classes[label] for label in environment.labels] == [key.split("/")[0] for key in environment.keys]


def test_small_images_are_bytes_and_rgb():
    for environment in SMALL.environments:
        images = torch.stack([environment.image(index) for index in range(len(environment))])
        assert images.dtype == torch.uint8
        assert images.shape == (297, 3, 32, 32)
        assert images.flatten(1).amax(1).min() > images.flatten(1).amin(1).max()  # nothing is blank


def test_small_holds_the_first_codepoints_of_the_frozen_classes():
    recipe = emoji.EMOJI_STYLES
    expected = {f"{name}/{code}.png" for name in recipe.small_classes for code in recipe.classes[name][:30]}
    for environment in SMALL.environments:
        assert set(environment.keys) == expected


def test_frozen_classes_share_no_codepoint():
    counts = Counter(code for codes in emoji.EMOJI_STYLES.classes.values() for code in codes)
    assert len(emoji.EMOJI_STYLES.classes) == 23
    assert (len(counts), max(counts.values())) == (937, 1)


def test_small_has_the_order_and_the_pixels_of_an_image_folder(tmp_path):
    write(SMALL, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [e.name for e in SMALL.environments]
    for environment in SMALL.environments:
        folder = ImageFolder(tmp_path / environment.name)
        assert folder.classes == list(SMALL.classes)
        assert [str(Path(path).relative_to(folder.root)) for path, _ in folder.samples] == list(environment.keys)
        assert folder.targets == environment.labels.tolist()
        for index in range(len(environment)):
            assert np.array_equal(np.asarray(folder[index][0]), environment.image(index).permute(1, 2, 0).numpy())


def test_each_codepoint_is_drawn_in_four_styles():
    for index in range(297):
        drawings = {environment.image(index).numpy().tobytes() for environment in SMALL.environments}
        assert len(drawings) == 4, SMALL.environments[0].keys[index]


# The disjoint version


def test_disjoint_gives_every_key_to_one_environment():
    parts = emoji.disjoint(SMALL)
    assert (parts.name, parts.classes) == ("EmojiStylesDisjoint", SMALL.classes)
    assert [e.name for e in parts.environments] == [e.name for e in SMALL.environments]
    assert sorted(key for e in parts.environments for key in e.keys) == sorted(SMALL.environments[0].keys)


def test_disjoint_is_balanced():
    parts = emoji.disjoint(SMALL)
    sizes = [len(e) for e in parts.environments]
    assert max(sizes) - min(sizes) <= 1
    classes = np.array([np.bincount(e.labels, minlength=10) for e in parts.environments])
    assert np.all(np.ptp(classes, axis=0) <= 1)


def test_disjoint_keeps_order_labels_and_images():
    for part, whole in zip(emoji.disjoint(SMALL).environments, SMALL.environments, strict=True):
        origin = [whole.keys.index(key) for key in part.keys]
        assert origin == sorted(origin)
        assert np.array_equal(part.labels, whole.labels[origin])
        assert all(torch.equal(part.image(i), whole.image(j)) for i, j in enumerate(origin))


def test_disjoint_depends_on_names_only():
    keys = [f"{name}/{number}.png" for name in "ab" for number in range(9)]
    forward, backward = emoji.disjoint(toy([keys] * 3)), emoji.disjoint(toy([keys[::-1]] * 3))
    assert [set(e.keys) for e in forward.environments] == [set(e.keys) for e in backward.environments]
    by_md5 = sorted(keys[:9], key=lambda key: hashlib.md5(key.encode()).hexdigest())
    assert set(by_md5[::3]) == {key for key in forward.environments[0].keys if key.startswith("a/")}


@pytest.mark.parametrize("other", [["a/1.png"], ["a/1.png", "b/2.png", "b/3.png"], ["a/1.png", "a/2.png"]])
def test_disjoint_refuses_environments_with_other_keys(other):
    with pytest.raises(
        UserError, match=r"Toy has no disjoint version.*Found '[ab]/[23].png' in only one of 'e0' and 'e1'"
    ):
        emoji.disjoint(toy([["a/1.png", "b/2.png"], other]))


def test_disjoint_refuses_another_class_for_the_same_key():
    first, second = toy([["a/1.png"], ["a/1.png"]]).environments
    second.labels = np.array([1])
    with pytest.raises(UserError, match="with another class"):
        emoji.disjoint(MultiDomainDataset("Toy", ("a", "b"), (first, second)))


# The renderer, on made-up drawings of 8 by 8 units

LEFT_HALF_RED = '<path fill="#f00" d="M0 0h4v8h-4z"/>'
UPPER_HALF_CURRENT = '<path fill="currentColor" d="M0 0h8v4h-8z"/>'
CHARACTERS = {"1f400": "rat", "26f5-fe0f": "sailboat", "1f401": "mouse"}


def pack(folder: Path, icons: str, content: dict) -> npm.Package:
    """Write an archive as ``npm pack`` would and return its pin."""
    package = npm.Package(f"@iconify-json/{icons}", "")
    with tarfile.open(folder / package.archive, "w:gz") as archive:
        for part in ("icons", "chars"):
            text = json.dumps(content[part]).encode()
            member = tarfile.TarInfo(f"package/{part}.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return replace(package, sha256=hashlib.sha256((folder / package.archive).read_bytes()).hexdigest())


@pytest.fixture
def source(tmp_path):
    """Folder with two packages."""
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


@pytest.fixture
def recipe(source, tmp_path):
    """Two styles of three drawings; `flat` has an alias of an alias and a drawing half as high as wide."""
    flat = {
        "icons": {
            "rat": {"body": LEFT_HALF_RED},
            "boat": {"body": '<path fill="#00f" d="M0 0h8v4h-8z"/>', "height": 4},
        },
        "aliases": {"sailboat": {"parent": "boat"}, "mouse": {"parent": "rodent"}, "rodent": {"parent": "rat"}},
        "width": 8,
        "height": 8,
    }
    mono = {
        "icons": {name: {"body": UPPER_HALF_CURRENT} for name in ("rat", "sailboat", "mouse")}
        | {"unused": {"body": ""}},
        "left": 0,
        "top": 2,
        "width": 8,
        "height": 8,
    }
    packages = {
        "mono": pack(source, "mono@2.0.0", {"icons": mono, "chars": CHARACTERS}),
        "flat": pack(source, "flat@1.0.0", {"icons": flat, "chars": CHARACTERS}),
    }
    classes = {"vehicle": ["26f5"], "mammal": ["1f401", "1f400"]}
    recipe = emoji.Recipe(packages, classes, ("mammal",), tmp_path / "small.npz")
    np.savez_compressed(recipe.small, **emoji.rebuild_small(source, recipe))
    return recipe


def quiet(jobs: list[emoji.Job]) -> list[emoji.Job]:
    return jobs


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_prepare_renders_the_drawings(recipe, source, tmp_path):
    emoji.prepare(tmp_path / "data", 16, packages=source, recipe=recipe, progress=quiet)
    large = tmp_path / "data" / "EmojiStylesLarge"
    assert sorted(str(path.relative_to(large)) for path in large.rglob("*.png")) == [
        *("flat/mammal/1f400.png", "flat/mammal/1f401.png", "flat/vehicle/26f5.png"),
        *("mono/mammal/1f400.png", "mono/mammal/1f401.png", "mono/vehicle/26f5.png"),
    ]
    red, blue, black, white = (np.array(c, np.uint8) for c in ((255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)))
    for code in ("1f400", "1f401"):  # the second is an alias of the first
        rat = pixels(large / "flat" / "mammal" / f"{code}.png")
        assert rat.shape == (16, 16, 3)
        assert np.all(rat[:, :8] == red)
        assert np.all(rat[:, 8:] == white)
    boat = pixels(large / "flat" / "vehicle" / "26f5.png")  # 8 by 4 units: centred, not stretched
    assert np.all(boat[4:12] == blue)
    assert np.all(boat[:4] == white)
    assert np.all(boat[12:] == white)
    mono = pixels(large / "mono" / "mammal" / "1f400.png")  # the box begins 2 units below the drawing's top
    assert np.all(mono[:4] == black)
    assert np.all(mono[4:] == white)


def test_prepare_leaves_the_notice_and_nothing_else(recipe, source, tmp_path):
    summary = emoji.prepare(tmp_path / "data", 16, packages=source, recipe=recipe, progress=quiet)
    large = tmp_path / "data" / "EmojiStylesLarge"
    assert list((tmp_path / "data").iterdir()) == [large]
    assert {path.name for path in large.iterdir()} == {"flat", "mono", "NOTICE.md"}
    notice = (large / "NOTICE.md").read_text()
    for licence in ("Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "Copyright (c) Microsoft Corporation."):
        assert licence in notice
    assert re.fullmatch(
        r"EmojiStyles \(small\): rebuilt, 4 of 4 images identical to the shipped ones; "
        rf"EmojiStylesLarge: 6 images of 16 px in {re.escape(str(large))}, 0 MB, \d+ s",
        summary,
    )


def test_prepare_shows_progress_and_keeps_the_cap(recipe, source, tmp_path):
    seen = []
    emoji.prepare(tmp_path, 8, cap=1, packages=source, recipe=recipe, progress=lambda jobs: seen.extend(jobs) or jobs)
    assert seen == [
        (e, name, code) for e in ("flat", "mono") for name, code in (("mammal", "1f401"), ("vehicle", "26f5"))
    ]


def test_small_arrays_of_made_up_drawings(recipe):
    dataset = emoji.load_small(recipe)
    assert dataset.classes == ("mammal",)
    flat, mono = dataset.environments
    assert (flat.name, mono.name) == ("flat", "mono")
    assert flat.keys == ["mammal/1f400.png", "mammal/1f401.png"]
    assert flat.image(0)[:, 0, 0].tolist() == [255, 0, 0]
    assert mono.image(1)[:, [0, 31], 0].T.tolist() == [[0, 0, 0], [255, 255, 255]]


def test_other_pixels_are_counted_and_reported(recipe, source, tmp_path):
    arrays = emoji.rebuild_small(source, recipe)
    arrays["images"][1, 0, :2, 5] ^= 1
    assert emoji.compare_small(arrays, recipe) == (4, 1, 2)
    np.savez_compressed(recipe.small, **arrays)
    summary = emoji.prepare(tmp_path / "data", 8, packages=source, recipe=recipe, progress=quiet)
    assert "3 of 4 images identical to the shipped ones (2 pixels differ" in summary


# What can go wrong


def test_missing_npm_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"npm was not found\. Install Node\.js") as caught:
        emoji.prepare(tmp_path / "data", 32)
    message = str(caught.value)
    assert "npm pack @iconify-json/fluent-emoji-high-contrast@1.2.6 @iconify-json/noto@1.2.9" in message
    assert "The small EmojiStyles ships inside domainbed_sage and needs none of this." in message
    assert not (tmp_path / "data").exists()


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an `npm` that runs this shell script first on PATH."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_last_words_of_npm_are_shown(monkeypatch, tmp_path):
    script = 'for i in $(seq 21); do echo "npm error line $i" >&2; done; exit 7'
    fake_npm(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(UserError, match=r"(?s)exit status 7.*line 2\n.*line 21\nCheck the network") as caught:
        emoji.prepare(tmp_path / "data", 32)
    assert "line 1\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_npm_fetches_what_the_recipe_pins(recipe, source, monkeypatch, tmp_path):
    asked = tmp_path / "asked"
    fake_npm(tmp_path / "bin", f'echo "$@" > {asked}; cp {source}/*.tgz .', monkeypatch)
    emoji.prepare(tmp_path / "data", 8, recipe=recipe, progress=quiet)
    assert asked.read_text() == "pack --fetch-retries=1 @iconify-json/mono@2.0.0 @iconify-json/flat@1.0.0\n"
    assert len(list((tmp_path / "data" / "EmojiStylesLarge").rglob("*.png"))) == 6


def test_every_wrong_or_missing_package_is_named(recipe, source, tmp_path):
    (source / "iconify-json-flat-1.0.0.tgz").write_bytes(b"not a package")
    (source / "iconify-json-mono-2.0.0.tgz").unlink()
    with pytest.raises(UserError, match="2 mistakes in the drawings in") as caught:
        emoji.prepare(tmp_path / "data", 32, packages=source, recipe=recipe)
    message, found = str(caught.value), hashlib.sha256(b"not a package").hexdigest()
    expected = recipe.packages["flat"].sha256
    assert f"iconify-json-flat-1.0.0.tgz: its sha256 should be {expected}. Found {found}." in message
    assert re.search(
        r"iconify-json-mono-2.0.0.tgz: .* Found no such file. Get it with `npm pack @iconify-json/mono@2.0.0`", message
    )
    assert not (tmp_path / "data").exists()


def test_pinned_packages_are_asked_for_by_file_name(tmp_path):
    with pytest.raises(UserError, match="4 mistakes") as caught:
        emoji.prepare(tmp_path / "data", 32, packages=tmp_path)
    for name in ("noto-1.2.9", "twemoji-1.2.5", "openmoji-1.2.29", "fluent-emoji-high-contrast-1.2.6"):
        assert f"iconify-json-{name}.tgz" in str(caught.value)


def test_existing_folder_is_kept(tmp_path):
    (tmp_path / "EmojiStylesLarge").mkdir()
    with pytest.raises(UserError, match=r"EmojiStylesLarge exists already. Use it as it is, or remove it"):
        emoji.prepare(tmp_path, 32)
    assert list((tmp_path / "EmojiStylesLarge").iterdir()) == []


def test_a_failure_half_way_leaves_nothing_behind(recipe, source, tmp_path):
    def stop(jobs):
        yield jobs[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emoji.prepare(tmp_path / "data", 8, packages=source, recipe=recipe, progress=stop)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(("size", "cap"), [(0, None), (-3, 2), (32, 0)])
def test_numbers_are_positive(size, cap, tmp_path):
    with pytest.raises(UserError, match=f"should be positive. Found size = {size}, cap = {cap}"):
        emoji.prepare(tmp_path / "data", size, cap=cap)


def test_missing_resvg_is_explained_before_the_download(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setattr(emoji, "_npm_pack", lambda *_: pytest.fail("downloaded in vain"))
    with pytest.raises(UserError, match=re.escape("pip install 'domainbed-sage[prepare]'")):
        emoji.prepare(tmp_path / "data", 32)
