"""What a record says of the code that made it."""

import subprocess

import pytest

from domainbed_sage.training import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the package in it, and the means to change it."""
    package = tmp_path / "package"
    (package / "training").mkdir(parents=True)
    for name in ("__init__.py", "training/provenance.py"):
        (package / name).write_text("")
    (tmp_path / "README.md").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "training" / "provenance.py"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def git(folder, *words):
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout.strip()


def found():
    provenance.commit.cache_clear()
    return provenance.commit()


def test_the_commit(checkout):
    assert found() == git(checkout, "rev-parse", "HEAD")
    assert len(found()) == 40


@pytest.mark.parametrize("name", ["package/__init__.py", "package/training/new.py"])
def test_changed_or_new_code_is_marked(checkout, name):
    (checkout / name).write_text("x = 1")
    assert found() == git(checkout, "rev-parse", "HEAD") + "+"


def test_a_removed_file_is_marked(checkout):
    (checkout / "package/training/provenance.py").unlink()
    assert found() == git(checkout, "rev-parse", "HEAD") + "+"


def test_what_is_not_of_the_package_is_no_mark(checkout):
    (checkout / "README.md").write_text("other words")
    (checkout / "results").mkdir()
    (checkout / "results" / "table.md").write_text("")
    assert found() == git(checkout, "rev-parse", "HEAD")


def test_a_package_that_only_lies_in_a_repository(checkout):
    """An environment inside of somebody's repository: its commit says nothing of this package."""
    git(checkout, "rm", "--cached", "-r", "package")
    git(checkout, "commit", "-m", "without")
    assert found() is None


def test_no_repository_and_no_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))
    assert found() is None
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "__file__", "/nowhere/at/all/provenance.py")
    assert found() is None
