"""Links, and files that are passed over: what DomainBed reads twice or not at all is said."""

import logging
import os
from pathlib import Path

import pytest
from generated_trees import few, jpeg, plant

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import scan
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.layout import Expected
from domainbed_sage.data.specs import datasets

ENVIRONMENTS = ("art", "photo", "sketch")


@pytest.fixture
def root(tmp_path):
    counts = {e: {"cat": 3, "dog": 3} for e in ENVIRONMENTS}
    return plant(tmp_path / "own", counts, same=False)


def fails(root, *words, mistakes=1):
    with pytest.raises(UserError) as caught:
        read_folders(root, "Own")
    text = str(caught.value)
    assert text.startswith(f"{mistakes} mistake{'s' * (mistakes > 1)} in the folders of Own:\n"), text
    assert [word for word in map(str, words) if word not in text] == [], text


def sizes(root):
    return [len(env) for env in read_folders(root, "Own").environments]


# Folders and files that are reached twice


@pytest.mark.parametrize("to", [".", "..", "../..", "../../..", "/"])
def test_a_link_that_leads_back(root, to):
    """One such link made 41 copies of every image, in both halves of the split."""
    loop = root / "photo" / "dog" / "loop"
    loop.symlink_to(to, target_is_directory=True)
    fails(root, f"{loop} leads back to ", "so that images would be read more than once; remove this link")


def test_two_links_that_lead_to_each_other(root):
    (root / "photo" / "dog" / "a").symlink_to(root / "photo" / "cat")
    (root / "photo" / "cat" / "b").symlink_to(root / "photo" / "dog")
    words = (
        f"{root}/photo/{a} is the same folder as {root}/photo/{b}," for a, b in (("dog/a", "cat"), ("cat/b", "dog"))
    )
    fails(root, *words, "remove this link", mistakes=2)


def test_links_to_oneself_are_no_folders_and_no_images(root):
    (root / "photo" / "dog" / "self").symlink_to("self")
    (root / "photo" / "dog" / "self.jpg").symlink_to("self.jpg")
    fails(root, f"{root}/photo/dog/self.jpg is a link that leads to no file; restore it, or remove it")


@pytest.mark.parametrize("twin", ["photo/dog/again", "photo/cow", "sketch/dog/more"])
def test_the_same_folder_twice(root, twin):
    (root / twin).symlink_to(root / "art" / "dog")
    with pytest.raises(UserError, match=rf"own/{twin} is the same folder as \S+/art/dog, so that images"):
        read_folders(root, "Own")


def test_an_environment_under_two_names(root):
    (root / "zzz").symlink_to("art")
    fails(root, f"{root}/zzz is the same folder as {root}/art")


def test_an_image_that_is_a_link_to_another(root):
    (root / "photo" / "dog" / "again.jpg").symlink_to("../../art/cat/pic_00000.jpg")
    fails(root, f"{root}/photo/dog/again.jpg is a link to {root}/art/cat/pic_00000.jpg, so that this image")


def test_links_that_are_right(root, tmp_path):
    """Of folders and of images, to elsewhere and by another name, also twice: stores keep equal contents once."""
    elsewhere = plant(tmp_path / "elsewhere", {"store": {"dog": 2}}, same=False)
    (root / "photo" / "dog" / "part").symlink_to(elsewhere / "store" / "dog")
    for name in ("one.jpg", "two.jpg"):
        (root / "sketch" / "cat" / name).symlink_to(elsewhere / "beside.jpg")
    (elsewhere / "beside.jpg").write_bytes(jpeg(1))
    os.link(root / "art" / "cat" / "pic_00000.jpg", root / "art" / "cat" / "hard.jpg")
    beside = root / "art" / "pic.jpg"  # not in a class folder, and so no image of the dataset
    beside.write_bytes(jpeg(2))
    (root / "art" / "dog" / "linked.jpg").symlink_to(beside)
    assert sizes(root) == [8, 8, 8]
    paths = list(scan.images(root, ENVIRONMENTS))
    assert len(paths) == 24
    assert scan.same_files(root, paths) == [
        ("art/cat/pic_00000.jpg", "art/cat/hard.jpg"),
        ("sketch/cat/two.jpg", "sketch/cat/one.jpg"),
    ]


def test_a_class_whose_images_are_behind_a_link(root, tmp_path):
    (root / "photo" / "dog").rename(tmp_path / "dogs")
    (root / "photo" / "dog").mkdir()
    (root / "photo" / "dog" / "linked").symlink_to(tmp_path / "dogs")
    assert sizes(root) == [6, 6, 6]


def test_images_of_a_loop_are_listed_once(root):
    (root / "photo" / "dog" / "loop").symlink_to(".")
    assert len(list(scan.images(root, [*ENVIRONMENTS, "missing"]))) == 18


def test_check_counts_links(tmp_path, capsys):
    plant(tmp_path / "PACS", few(datasets["PACS"]), "a few", same=True)
    assert cli.main(["data", "check", "PACS", "--data_dir", str(tmp_path)]) == 0
    assert (
        "note: 28 images are links to the file of another: art_painting/dog/pic_00001.jpg = art_painting/dog/pic_0"
        in " ".join(capsys.readouterr().out.split())
    )


def test_folders_within_folders(root):
    deep = root / "photo" / "dog" / "/".join(["d"] * scan.MAX_DEPTH)
    deep.mkdir(parents=True)
    (deep / "a.jpg").write_bytes(jpeg(0))
    assert sizes(root) == [6, 7, 6]
    (deep / "e").mkdir()
    fails(root, f"{deep} holds more folders, 64 within each other; move them away")


# What is passed over


@pytest.mark.parametrize("name", ["a.jfif", "a.gif", "a.AVIF", "a.heic", "a", "a.jpg~", "a.orig"])
def test_images_that_would_be_passed_over(root, name):
    """Known by their names, or by their contents."""
    path = root / "photo" / "dog" / name
    path.write_bytes(b"of a kind that Pillow may not know" if name == "a.heic" else jpeg(0))
    fails(root, "1 images would be passed over, as in DomainBed, because their names do not end in .jpg, .jpeg,", path)


def test_they_are_as_in_domainbed_where_the_published_numbers_are_there(root, tmp_path):
    (root / "photo" / "dog" / "a.gif").write_bytes(jpeg(0))
    expected = Expected(ENVIRONMENTS, 2, (), {"all": (6, 6, 6)})
    assert read_folders(root, "Own", expected=expected).variant == "all"
    (root / "photo" / "dog" / "pic_00000.jpg").unlink()
    with pytest.raises(UserError, match=r"^1 mistake in the folders of Own:\n.*photo/dog/a\.gif"):
        read_folders(root, "Own", expected=expected)


def test_other_files_are_told_and_what_systems_leave_is_not(root, caplog):
    folder = root / "photo" / "dog"
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "Icon\r", ".nfs0001", ".hidden"):
        (folder / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert sizes(root) == [6, 6, 6]
    assert caplog.messages == []
    (folder / "labels.csv").write_text("a,b\n")
    os.mkfifo(folder / "pipe")
    with caplog.at_level(logging.WARNING):
        assert sizes(root) == [6, 6, 6]
    found = sorted([str(folder / "labels.csv"), str(folder / "pipe")], reverse=True)
    assert caplog.messages == [f"Files of Own that are no images are passed over: {', '.join(found)}"]


def test_what_is_called_an_image_and_is_none(root):
    folder = root / "photo" / "dog"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "broken.jpg").symlink_to("/nowhere")
    (folder / "folder.jpg").mkdir()
    words = (f"{folder}/pipe.jpg is neither a file nor", f"{folder}/broken.jpg is a link that leads to no file")
    fails(root, *words, mistakes=2)


def test_check_tells_all_of_it_and_waits_for_nobody(tmp_path, monkeypatch, capsys):
    """What cannot be read does not hide the rest, and nobody ever writes to the pipe."""
    root = plant(tmp_path / "PACS", few(datasets["PACS"], 1), "a few", same=False)
    command = ["data", "check", "PACS", "--data_dir", str(tmp_path), "--images", "--manifest"]
    assert cli.main(["data", "manifest", "PACS", "--data_dir", str(tmp_path)]) == 0
    folder = root / "photo" / "dog"
    (folder / "broken.jpg").symlink_to("/nowhere")
    os.mkfifo(folder / "pipe.jpg")
    (root / "sketch" / "dog" / "pic_00000.jpg").write_bytes(b"")
    assert cli.main([*command, str(root / "MANIFEST.csv")]) == 2
    told = capsys.readouterr().err
    assert f"{folder}/pipe.jpg is neither a file nor a folder" in told
    assert told.count(f"{folder}/broken.jpg cannot be read (No such file or directory)") == 2
    (folder / "broken.jpg").unlink()
    assert cli.main([*command, str(root / "MANIFEST.csv")]) == 2
    told = capsys.readouterr().err
    for words in ("pipe.jpg is neither", "1 file with another size", "1 of 28 images cannot be decoded"):
        assert words in told
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: real(path) if Path(path) != folder else real(_closed(path)))
    assert cli.main([*command, str(root / "MANIFEST.csv")]) == 2
    assert capsys.readouterr().err.count(f"{folder} cannot be read (Permission denied)") == 3


def _closed(path):
    raise PermissionError(13, "Permission denied", str(path))


def test_a_folder_named_like_an_image_makes_no_class(root):
    for path in (root / "photo" / "dog").iterdir():
        path.unlink()
    (root / "photo" / "dog" / "folder.jpg").mkdir()
    fails(root, f"class folder {root}/photo/dog holds no image")


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".thumbs"])
def test_small_copies_that_systems_keep(root, name):
    folder = root / "photo" / "dog" / name
    folder.mkdir()
    (folder / "pic_00000.jpg").write_bytes(jpeg(0))
    fails(root, f"{folder / 'pic_00000.jpg'} is {'hidden' if name[0] == '.' else 'what a system keeps in ' + name}")


def test_a_folder_that_cannot_be_read(root, monkeypatch):
    closed, real = root / "photo" / "dog", os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: real(path) if Path(path) != closed else real(_closed(path)))
    with pytest.raises(
        UserError, match=rf"{closed} cannot be read \(Permission denied\)\. Repair the disk or its perm"
    ):
        read_folders(root, "Own")


def test_a_check_of_images_writes_nothing_where_there_is_nothing_to_write(tmp_path, monkeypatch, capsys):
    """A disk that is mounted read-only refuses to remove even a file that is not there."""
    plant(tmp_path / "PACS", few(datasets["PACS"], 1), "a few")

    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system", str(self))

    for name in ("unlink", "mkdir", "write_bytes", "write_text", "touch", "rename", "replace"):
        monkeypatch.setattr(Path, name, refuse)
    assert cli.main(["data", "check", "PACS", "--data_dir", str(tmp_path), "--images"]) == 0
    assert "28 images decoded: all can be decoded" in capsys.readouterr().out
