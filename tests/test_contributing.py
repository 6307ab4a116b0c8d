"""What CONTRIBUTING says is so: its examples are carried out on a copy of the package, its paths exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import generated_trees as trees
import pytest
from test_wings import WINGS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ALGORITHM, DATASET, BACKBONE = (f"## Adding {thing}" for thing in ("an algorithm", "a dataset", "a backbone"))


def blocks(heading, language="python"):
    """The code blocks of one language in a section, up to the next heading."""
    section = TEXT.split(f"{heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def add_import(package, line):
    """Below the other import lines, and in `__all__`."""
    path = package / "__init__.py"
    last = path.read_text().rpartition("  # isort: skip\n")[0].rpartition("\n")[2] + "  # isort: skip\n"
    change(path, last, last + line)
    change(path, "\n__all__ = [", f'\n__all__ = ["{line.split()[3]}", ')


def add_reference(path, section, line):
    """At the end of a section of the list of references."""
    head, body = path.read_text().split(f"[{section}]\n")
    own, *rest = body.split("\n\n")
    path.write_text("\n\n".join([f"{head}[{section}]\n{own.rstrip()}\n{line.rstrip()}", *rest]).rstrip() + "\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository, changed as CONTRIBUTING tells to."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("domainbed_sage", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    package, tests = root / "domainbed_sage", root / "tests"

    file, import_line, setting, reference = blocks(ALGORITHM)
    (package / "algorithms" / "term.py").write_text(file)
    add_import(package / "algorithms", import_line)
    entry = re.search(r"its entry `(.*?)` in `LITERALS`", TEXT)[1]
    end_of_rows = "    ]\n    for varied in variants\n"
    change(tests / "algorithm_cases.py", end_of_rows, f"{setting.rstrip()},\n{end_of_rows}")
    change(tests / "reference" / "literals.py", "\nLITERALS = {", f"\n{reference}\n\nLITERALS = {{\n    {entry},")

    (dataset,) = blocks(DATASET)
    with (package / "data" / "specs.py").open("a") as specs:
        specs.write(dataset)

    for heading, section in ((ALGORITHM, "algorithms"), (DATASET, "datasets")):
        (entry,), (key,) = blocks(heading, "bibtex"), blocks(heading, "toml")
        with (package / "results" / "references.bib").open("a") as references:
            references.write(f"\n{entry}")
        add_reference(package / "results" / "references.toml", section, key)

    file, import_line = blocks(BACKBONE)
    (package / "models" / "pooled_pixels.py").write_text(file)
    add_import(package / "models", import_line)
    return root


def execute(root, *words):
    """A Python module in a process of its own, which sees the copy instead of this package; its output."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_method_passes_the_tests_of_all_methods(copy):
    out = execute(copy, "pytest", "-q", "tests/algorithms/test_algorithms.py", "-k", "TERM or cover_every_algorithm")
    assert int(re.search(r"(\d+) passed", out)[1]) > 50


def test_method_and_dataset_are_cited(copy):
    execute(copy, "pytest", "-q", "tests/results/test_references.py")
    out = execute(copy, "domainbed_sage", "cite", "--algorithm", "TERM", "--dataset", "MyDomains")
    assert all(block.strip() in out for heading in (ALGORITHM, DATASET) for block in blocks(heading, "bibtex"))


def test_examples_follow_the_rules(copy):
    files = ["domainbed_sage/algorithms/term.py", "domainbed_sage/models/pooled_pixels.py"]
    execute(copy, "ruff", "check", *files, "domainbed_sage/data/specs.py", "tests/reference/literals.py")
    execute(copy, "ruff", "format", "--check", *files)


def test_method_dataset_and_backbone_together(copy):
    counts = {"art": {"cat": 12, "dog": 12}, "book": {"cat": 8, "dog": 8}, "camera": {"cat": 10, "dog": 10}}
    trees.plant(copy / "DATA" / "my_domains", counts)
    (command,) = blocks(BACKBONE, "console")
    words = [*command.split()[1:], "--steps", "2", "--output_dir", "out", "--device", "cpu"]
    execute(copy, "domainbed_sage", *words)
    assert '"algorithm": "TERM"' in (copy / "out" / "results.jsonl").read_text().splitlines()[-1]


def test_layers_are_the_wings():
    section = TEXT.split("## Layout\n", 1)[1].split("\n## ", 1)[0]
    assert tuple(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)) == WINGS


TEXTS = sorted(ROOT.glob("*.md")) + sorted(
    path
    for folder in ("domainbed_sage", "scripts", "sweeps", "results")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".md", ".py", ".sh", ".yaml")
)
MENTIONED = (
    r"(?<![\w/])(?:(?:tests|scripts|sweeps|domainbed_sage|\.github)/|results/(?:bench|paper|example)/)[\w./-]*\w"
)
MADE_BY_THE_READER = "domainbed_sage/algorithms/term.py"


def targets(path, text):
    """Files and folders that a text names from the top of the repository, and that it links to from where it lies."""
    yield from (ROOT / name for name in re.findall(MENTIONED, text) if name != MADE_BY_THE_READER)
    if path.suffix == ".md":
        yield from (path.parent / name for name in re.findall(r"\]\(([^)#:]+)\)", text))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(path):
    assert [str(target) for target in targets(path, path.read_text()) if not target.exists()] == []


def test_a_name_without_a_file_is_seen():
    text = "See `tests/nowhere.py`, [this](nowhere.md), ~/.cache/domainbed_sage/weights and results/mine."
    missing = [ROOT / "tests/nowhere.py", ROOT / "sweeps/nowhere.md"]
    assert list(targets(ROOT / "sweeps/README.md", text)) == missing
