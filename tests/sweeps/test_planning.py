"""A sweep is planned once, and again when anything changes that decides its runs."""

import pytest

from domainbed_sage.core import plugins
from domainbed_sage.sweeps import planning
from domainbed_sage.sweeps.sweep import read_sweep

SWEEP = """
name: s
plugins: [own.py]
datasets: [EmojiStyles]
algorithms: [ERM, SAM]
test_envs: [[0], [1]]
trials: 2
steps: 7
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "own.py").write_text("")
    path = tmp_path / "s.yaml"
    path.write_text(SWEEP)
    return path


def fingerprint(file, *more):
    return planning.glance(file, more).fingerprint


def test_the_runs_are_kept(file, tmp_path):
    runs = read_sweep(file).runs()
    kept = planning.keep(planning.glance(file), read_sweep(file).planned(), tmp_path / "out")
    assert planning.kept(planning.glance(file), tmp_path / "out") == kept
    assert [run.folder_name for run in kept] == [run.folder_name for run in runs]
    assert {(run.steps, run.label, run.algorithm) for run in kept} == {(7, "ERM", "ERM"), (7, "SAM", "SAM")}
    assert [(run.test_envs, run.trial_seed) for run in kept[:3]] == [((0,), 0), ((1,), 0), ((0,), 0)]


def test_nothing_is_kept_elsewhere(file, tmp_path):
    assert planning.kept(planning.glance(file), tmp_path / "nowhere") is None


def test_the_fingerprint_is_that_of_the_content(file, tmp_path):
    before = fingerprint(file)
    copy = tmp_path / "elsewhere" / "t.yaml"
    copy.parent.mkdir()
    copy.write_text(SWEEP)
    (copy.parent / "own.py").write_text("")
    assert fingerprint(copy) == fingerprint(file) == before


def test_a_change_of_the_file_is_seen(file, tmp_path):
    glanced = planning.glance(file)
    planning.keep(glanced, read_sweep(file).planned(), tmp_path)
    file.write_text(SWEEP.replace("steps: 7", "steps: 8"))
    assert planning.kept(planning.glance(file), tmp_path) is None


def test_a_change_of_a_plugin_is_seen(file, tmp_path):
    before = fingerprint(file)
    (tmp_path / "own.py").write_text("# changed")
    assert fingerprint(file) != before


def test_plugins_of_the_command_line_count(file, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("")
    with_other = fingerprint(file, other)
    assert with_other != fingerprint(file)
    other.write_text("# changed")
    assert fingerprint(file, other) != with_other


def test_installed_plugins_count(file, tmp_path, monkeypatch):
    before = fingerprint(file)
    described = tmp_path / "package-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{plugins.ENTRY_POINTS}]\nplugin = of_a_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    installed = fingerprint(file)
    assert installed != before
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.1\n")
    assert fingerprint(file) != installed


def test_the_package_counts(file, tmp_path, monkeypatch):
    before = fingerprint(file)
    package = tmp_path / "package"
    (package / "wing").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "wing" / "code.py").write_text("x = 1")
    monkeypatch.setattr(planning.domainbed_sage, "__file__", str(package / "__init__.py"))
    other_code = fingerprint(file)
    assert other_code != before
    (package / "wing" / "code.py").write_text("x = 2")
    changed = fingerprint(file)
    assert changed != other_code
    monkeypatch.setattr(planning.domainbed_sage, "__version__", "9.9")
    assert fingerprint(file) != changed


@pytest.mark.parametrize(
    "text", ["", "[]", "name:", "name: 3", "steps: 3", "{", "name: s\nplugins: 3\n", "name: s\nplugins: [nowhere.py]\n"]
)
def test_what_is_no_sweep_is_left_to_the_reader(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    assert planning.glance(tmp_path / "s.yaml") is None
    assert planning.glance(tmp_path / "nowhere.yaml") is None
    assert planning.glance(tmp_path) is None
