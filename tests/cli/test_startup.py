"""A command that answers at once: what it may not import, whatever it is asked."""

import json
import os
import subprocess
import sys

import pytest

SLOW = ("torch", "torchvision", "timm", "open_clip", "pandas", "numpy", "matplotlib", "scipy", "jinja2")
SWEEP_FILE = """
name: s
datasets: [EmojiStyles]
model: small_cnn
algorithms: [ERM]
test_envs: [[0], [1]]
trials: 1
steps: 2
checkpoint_freq: 1
hparams: {width: 8, batch_size: 2}
"""
ASK = """
import sys
from domainbed_sage.cli import main
try:
    status = main({words})
except SystemExit as stop:
    status = stop.code
print("imported:", *(name for name in {slow} if name in sys.modules), file=sys.stderr)
sys.exit(status)
"""


def ask(*words, cwd=None):
    """Exit status, what is printed, and the slow modules that were imported for it."""
    code = ASK.format(words=[str(word) for word in words], slow=SLOW)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    *errors, imported = done.stderr.splitlines()
    return done.returncode, done.stdout + "\n".join(errors), imported.removeprefix("imported:").split()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with a planned sweep, one of its runs done, and a table that was read before."""
    folder = tmp_path_factory.mktemp("planned")
    file = folder / "s.yaml"
    file.write_text(SWEEP_FILE)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "domainbed_sage",
            "sweep",
            "run",
            file,
            "--output_dir",
            folder / "out",
            "--device",
            "cpu",
        ],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return folder


COMMANDS = (
    *("demo", "train", "evaluate", "sweep", "table", "compare", "report", "cite", "pack"),
    *("data", "weights", "list", "verify", "completion", "paper"),
)
SWEEP_ACTIONS = ("list", "plan", "run", "launch", "status", "cancel", "retry", "logs")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in COMMANDS),
        *(["sweep", action, "--help"] for action in SWEEP_ACTIONS),
        *(["data", action, "--help"] for action in ("list", "download", "check", "manifest", "prepare", "cache")),
        *(["weights", action, "--help"] for action in ("list", "download", "check")),
        *(["paper", part, "--help"] for part in ("audit", "theory")),
        ["data", "list"],
        ["data", "list", "--json"],
        ["cite"],
        ["cite", "--algorithm", "SAGE", "--dataset", "VLCS"],
        ["completion", "bash"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_slow(words):
    status, said, imported = ask(*words)
    assert (status, imported) == (0, [])
    assert said


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["swep"],
        ["sweep"],
        ["sweep", "lst"],
        ["train", "--stepz", "3"],
        ["train", "--steps", "many"],
        ["table"],
        ["table", "folder", "--selection", "best"],
        ["compare", "folder"],
        ["compare", "folder", "--compare", "SAGE", "--json", "--csv"],
        ["sweep", "launch", "file.yaml", "--gpus", "one"],
        ["paper", "theory", "--seed", "-1"],
    ],
    ids=" ".join,
)
def test_errors_of_usage_import_nothing_slow(words):
    status, said, imported = ask(*words)
    assert (status, imported) == (2, [])
    assert "usage:" in said


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        (["list"], "2 runs: 1 done, 1 failed"),  # begun, ended, and not done
        (["list", "--json"], '"state": "done"'),
        (["status"], "2 runs in"),
        (["status", "--json"], '"done": 1'),
        (["logs", "env0"], "==> "),
        (["cancel"], "Cancelled 0 jobs"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_looking_at_a_planned_sweep_imports_nothing_slow(results, action, shown):
    done = results / "out" / sorted(path.name for path in (results / "out").glob("*env1*"))[0] / "done"
    done.unlink(missing_ok=True)
    word, *rest = action
    status, said, imported = ask("sweep", word, results / "s.yaml", "--output_dir", results / "out", *rest)
    assert (status, imported) == (0, [])
    assert shown in said


def test_another_sweep_file_is_planned_anew(results, tmp_path):
    """The plan is kept with a hash of the file: what it says of another one does not count."""
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP_FILE + "precision: tf32\n")
    status, said, imported = ask("sweep", "list", file, "--output_dir", results / "out")
    assert status == 0
    assert "torch" in imported
    assert "2 runs: 2 missing" in said
    assert ask("sweep", "list", file, "--output_dir", results / "out")[2] == []


def test_a_terminal_that_cannot_show_a_sign_shows_another(results):
    words = ["sweep", "status", results / "s.yaml", "--output_dir", results / "out"]
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "domainbed_sage", *words], capture_output=True, env=environ, check=True
    )
    assert b"EmojiStyles ERM       ???" in done.stdout


def test_completion_knows_every_option():
    said = ask("completion", "bash")[1]
    assert all(
        word in said for word in ("--holdout_fraction", "--timeout-min", "--pass_time", "--weights_dir", "--sentence")
    )


def test_table_does_without_torch(results):
    status, said, imported = ask("table", results / "out", "--paper", "--selection", "all", "--include-unfinished")
    assert status == 0, said
    assert "torch" not in imported
    assert "pandas" in imported


def test_compare_does_without_torch(results):
    status, said, imported = ask("compare", results / "out", "--compare", "SAGE")
    assert (status, "no result of SAGE to compare. Known: ERM." in said) == (2, True)
    assert "torch" not in imported
    assert "pandas" in imported


def test_cite_does_without_torch(results):
    status, said, imported = ask("cite", results / "out")
    assert status == 0, said
    assert not {"torch", "matplotlib", "jinja2"} & set(imported)


@pytest.mark.parametrize("part", ["audit", "theory"])
def test_the_paper_is_checked_without_torch(part, tmp_path):
    status, said, imported = ask("paper", part, "--quick", "--output_dir", tmp_path)
    assert (status, "Wrote" in said) == (0, True)
    assert "torch" not in imported


def test_names_that_are_known_before_the_import_are_right():
    from domainbed_sage.cli import results_folders, table
    from domainbed_sage.results import picture, selection

    assert tuple(selection.METHODS) == results_folders.SELECTIONS
    assert selection.DOMAINBED == results_folders.DOMAINBED
    assert picture.FORMATS == table.FORMATS


def test_the_check_sees_what_is_imported():
    assert "numpy" in ask("table", "no such folder")[2]


def test_plan_is_json(results):
    plan = json.loads((results / "out" / "plan.json").read_text())
    assert set(plan["sweeps"]) == {"s"}
