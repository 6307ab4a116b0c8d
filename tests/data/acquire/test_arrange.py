"""Which folder of a download is the dataset, and what of it is copied."""

import io
import os
import zipfile
from pathlib import Path

import generated_trees as trees
import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import classnames
from domainbed_sage.data.acquire import arrange
from domainbed_sage.data.acquire.obtain import obtain
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.sources import Own
from domainbed_sage.data.specs import datasets

PACS = datasets["PACS"]
PICTURES, COEFFICIENTS = "kaggle/pacs_data/pacs_data", "kaggle/dct2_images/dct2_images"


def plant(root: Path) -> Path:
    return trees.plant(root, trees.few(PACS, 1), same=False)


def get(tmp_path: Path, own: Path) -> MultiDomainDataset:
    return obtain(PACS, tmp_path / "data", (Own((own,)),), subset="one of each", say=lambda _: None)


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """The images, and their coefficients under the same names, which come first in the alphabet."""
    for place in (PICTURES, COEFFICIENTS):
        plant(tmp_path / place)
    return tmp_path / "kaggle"


def test_two_sets_of_folders_are_refused_and_listed(kaggle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        get(tmp_path, kaggle)
    message = str(caught.value)
    for place in (PICTURES, COEFFICIENTS):
        assert f"  - {tmp_path / place}: art_painting, cartoon, photo, sketch\n" in message
    assert "Give the folder that you want with --from." in message
    assert not (tmp_path / "data" / "PACS").exists()
    dataset = get(tmp_path, tmp_path / PICTURES)
    assert [len(env) for env in dataset.environments] == [7] * 4
    pictures, taken = (trees.files(place) for place in (tmp_path / PICTURES, tmp_path / "data" / "PACS"))
    assert {name: data for name, data in taken.items() if name.endswith(".jpg")} == pictures


def test_also_in_one_archive_and_at_different_depths(kaggle: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for prefix in ("a/", "b/c/d/"):
            for name, data in trees.files(tmp_path / PICTURES).items():
                archive.writestr(prefix + name, data)
    (tmp_path / "two.zip").write_bytes(file.getvalue())
    with pytest.raises(UserError) as caught:
        get(tmp_path, tmp_path / "two.zip")
    message = str(caught.value)
    assert "  - a: art_painting, cartoon, photo, sketch\n" in message
    assert "  - b/c/d: art_painting, cartoon, photo, sketch\n" in message
    assert "Unpack it, and give the folder that you want with --from." in message


def test_halves_of_a_dataset_are_two_sets_too(tmp_path: Path) -> None:
    for half in ("train", "test"):
        plant(tmp_path / "mine" / half)
    (tmp_path / "mine" / "test" / "sketch").rename(tmp_path / "sketch")
    with pytest.raises(UserError, match=r"mine/test: art_painting, cartoon, photo\n"):
        get(tmp_path, tmp_path / "mine")


def test_a_link_to_the_same_folder_is_no_second_set(tmp_path: Path) -> None:
    plant(tmp_path / "mine" / "real")
    (tmp_path / "mine" / "latest").symlink_to("real")
    assert len(get(tmp_path, tmp_path / "mine").environments) == 4


def test_environments_are_not_searched(tmp_path: Path) -> None:
    """A class may be called like an environment."""
    root = plant(tmp_path / "mine")
    (root / "photo" / "dog").rename(root / "photo" / "sketch")
    with pytest.raises(UserError, match=r"PACS/photo/sketch is not a class of PACS"):
        get(tmp_path, root)


def test_loops_are_found_before_they_are_copied(tmp_path: Path) -> None:
    root = plant(tmp_path / "mine")
    (root / "photo" / "dog" / "loop").symlink_to(".")
    with pytest.raises(UserError, match=rf"{root}/photo/dog/loop leads back to {root}/photo/dog"):
        get(tmp_path, root)
    assert not list((tmp_path / "data").rglob("*.jpg"))


def test_only_contents_are_copied(tmp_path: Path) -> None:
    """No permissions, which could forbid to remove the copy; no pipes; what links lead to, in place of links."""
    root = plant(tmp_path / "mine")
    (tmp_path / "elsewhere.jpg").write_bytes(trees.jpeg(7))
    (root / "photo" / "dog" / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    os.mkfifo(root / "photo" / "dog" / "pipe")
    (root / classnames.FILE).write_text("{" + ", ".join(f'"{c}": "my {c}"' for c in PACS.expected.classes) + "}")
    for path in (root / "photo" / "dog", root / "photo"):
        path.chmod(0o555)
    dataset = get(tmp_path, root)
    copy = tmp_path / "data" / "PACS" / "photo"
    assert all(path.stat().st_mode & 0o200 for path in (copy, copy / "dog"))
    assert sorted(path.name for path in (copy / "dog").iterdir()) == ["link.jpg", "pic_00000.jpg"]
    assert (copy / "dog" / "link.jpg").read_bytes() == trees.jpeg(7)
    assert not (copy / "dog" / "link.jpg").is_symlink()
    assert dataset.class_names[0] == "my dog"


def test_a_source_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "mine")

    def copyfile(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(arrange.shutil, "copyfile", copyfile)
    with pytest.raises(UserError, match=r"mine/\S+\.jpg cannot be read \(Permission denied\)\. Change its permissions"):
        get(tmp_path, root)
