"""What the system refuses becomes one message: what, where, what to do."""

import errno
import os
import pwd
import resource
from pathlib import Path

import pytest
import torch

from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.core.files import (
    atomic,
    expanded,
    explained,
    explained_reading,
    regular,
    temporary_name,
    write_atomically,
)

FULL = ["ENOSPC", "EDQUOT", "EFBIG"]
SICK = ["EIO", "ESTALE", "ENOTCONN"]
ELSEWHERE = ["EACCES", "EROFS", "ENOTDIR", "EISDIR", "EPERM"]
MANY = ["EMFILE", "ENFILE"]
NAMED = {"ENOENT": "removed", "ENAMETOOLONG": "Choose a shorter name", "ELOOP": "Links lead to each other"}


def error(name, path=None):
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), path)


def advice(name):
    if name in FULL:
        return r"No space is left for .*out\. What was recorded before is safe.*\(Found: "
    otherwise = {
        **dict.fromkeys(SICK, "have it looked at, then start"),
        **dict.fromkeys(MANY, "ulimit -n"),
        **NAMED,
    }
    return rf"Cannot write .*out: .*{otherwise.get(name, 'Choose another folder')}"


@pytest.mark.parametrize("name", [*FULL, *SICK, *ELSEWHERE, *MANY, *NAMED])
def test_errors_of_writing(tmp_path, name):
    with pytest.raises(UserError, match=advice(name)) as caught, explained(tmp_path / "out"):
        raise error(name)
    assert os.strerror(getattr(errno, name)) in str(caught.value)
    assert isinstance(caught.value, NoSpace) == (name in FULL)


@pytest.mark.parametrize("name", [*SICK, *ELSEWHERE, *MANY, *NAMED])
def test_errors_of_reading(tmp_path, name):
    with pytest.raises(UserError, match=r"^Cannot read .*in: ") as caught, explained_reading(tmp_path / "in"):
        raise error(name)
    assert os.strerror(getattr(errno, name)) in str(caught.value)
    assert "Choose another" not in str(caught.value)


@pytest.mark.parametrize("around", [explained, explained_reading])
@pytest.mark.parametrize(
    "other", [ConnectionResetError(104, "reset"), ValueError("x"), OSError("no number"), OSError(9999, "?")]
)
def test_what_is_not_about_files_passes(tmp_path, around, other):
    with pytest.raises(type(other)) as caught, around(tmp_path):
        raise other
    assert caught.value is other


def test_the_place_that_the_system_names(tmp_path):
    with pytest.raises(UserError, match="Cannot write /elsewhere/x: Read-only"), explained(tmp_path / "out"):
        raise error("EROFS", "/elsewhere/x")
    with pytest.raises(UserError, match=rf"Cannot write {tmp_path}/out: Read-only"), explained(tmp_path / "out"):
        raise error("EROFS", str(temporary_name(tmp_path / "out")))


def test_an_error_that_torch_hides(tmp_path):
    class Full:
        def write(self, content):
            raise error("EDQUOT")

        def flush(self):
            pass

    with pytest.raises(NoSpace, match="Disk quota exceeded"), explained(tmp_path / "out"):
        torch.save(torch.zeros(1000), Full())


def test_too_many_open_files(tmp_path):
    """The limit itself, not a simulated one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write .*out: Too many open files\. Raise the limit"):
            write_atomically(tmp_path / "out", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert not (tmp_path / "out").exists()


def test_the_first_trouble_is_told(tmp_path, monkeypatch):
    """On a disk that became read-only, the half-written file cannot be removed either."""

    def refuse(*_, **__):
        raise error("EROFS")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(NoSpace), atomic(tmp_path / "out"):
        raise error("ENOSPC")


# Something else in the place of a file


def test_a_file_or_nothing(tmp_path):
    assert not regular(tmp_path / "done")
    (tmp_path / "done").touch()
    (tmp_path / "link").symlink_to("done")
    assert regular(tmp_path / "done")
    assert regular(tmp_path / "link")
    assert not regular(tmp_path / "done" / "below")


@pytest.mark.parametrize("found", ["a folder", "a pipe", "a link to nothing", "a device"])
def test_something_else(tmp_path, found):
    path = tmp_path / "done"
    make = {
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a link to nothing": lambda: path.symlink_to("nowhere"),
        "a device": lambda: path.symlink_to("/dev/null"),
    }
    make[found]()
    with pytest.raises(UserError, match=rf"done should be a file\. Found {found}\. Move it away"):
        regular(path)


def test_a_link_to_itself(tmp_path):
    (tmp_path / "done").symlink_to("done")
    with pytest.raises(UserError, match=r"Cannot look at .*done: Too many levels of symbolic links"):
        regular(tmp_path / "done")


# No home


@pytest.fixture
def no_home(monkeypatch):
    """A container with an arbitrary user: no HOME, and no entry for the user."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))


@pytest.mark.usefixtures("no_home")
def test_no_home():
    assert expanded(Path("/data"), "set DATA") == Path("/data")
    message = (
        rf"~/weights cannot be found: HOME is not set, .* user {os.getuid()}\. Set HOME to a folder, or set DATA\."
    )
    with pytest.raises(UserError, match=message):
        expanded(Path("~/weights"), "set DATA")


def test_nobody_of_that_name():
    with pytest.raises(UserError, match=r"there is no user 'no_such_user'\. Give the path without ~"):
        expanded(Path("~no_such_user/weights"), "")


def test_home_with_a_percent_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/100%s")
    assert expanded(Path("~/weights"), "") == Path("/home/100%s/weights")
