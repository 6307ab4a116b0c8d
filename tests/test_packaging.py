"""What outsiders go by: lower bounds that CI installs, workflow and citation that say what the package says."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from bibtex import parse
from ruamel.yaml import YAML

import domainbed_sage
from domainbed_sage.results import references

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST = ".github/constraints-oldest.txt"


def bounds():
    """Lower bounds of the dependencies, and of the extras that `dev`, and so CI, installs."""
    extras = PROJECT["optional-dependencies"]
    installed = re.search(r"\[(.*)\]", extras["dev"][0])[1].split(",")
    rows = [r for r in sum((extras[name] for name in installed), PROJECT["dependencies"]) if "==" not in r]
    return dict(requirement.split(">=") for requirement in rows)


def constraints():
    lines = [line.partition("#")[0].strip() for line in (ROOT / OLDEST).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


def test_every_dependency_has_a_lower_bound_and_ci_installs_it():
    assert {name: constraints().get(name) for name in bounds()} == bounds()


def workflow():
    return YAML(typ="safe").load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]


def test_the_workflow_tests_supported_pythons():
    rows = workflow()["strategy"]["matrix"]["include"]
    classifiers = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert classifiers <= {row["python"] for row in rows if row["versions"] == "newest"}
    assert {row["python"] for row in rows if row["versions"] == "oldest"} == {PROJECT["requires-python"].lstrip(">=")}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("row", workflow()["strategy"]["matrix"]["include"], ids=lambda row: row["command"])
def test_the_workflow_calls_targets_that_exist(row):
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = [*row["command"].split(), "--dry-run", "--always-make"]
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    commands = done.stdout.splitlines()
    installs = [c for c in commands if "pip install" in c]
    assert len(installs) == 2
    assert re.search(r"-m pytest --numprocesses \d+ --dist loadfile --no-loadscope-reorder$", commands[-1])
    assert ("mypy" in done.stdout) == (row["versions"] == "newest")
    assert all((f"--constraint {OLDEST}" in c) == (row["versions"] == "oldest") for c in installs)
    assert ("torch==" in installs[0]) == (row["versions"] == "newest")


def test_citation():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == domainbed_sage.__version__
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == PROJECT["authors"]
    suite, sage, protocol = (references.entries()[key] for key in references.mapping()["always"])
    assert f"version = {{{citation['version']}}}" in suite
    assert citation["title"] in suite.replace("\\", "")
    for entry, reference in ((sage, citation["references"][0]), (protocol, citation["references"][1])):
        (fields,) = parse(entry).values()
        assert (fields["title"], fields["year"]) == (reference["title"], str(reference["year"]))
        names = [f"{author['family-names']}, {author['given-names']}" for author in reference["authors"]]
        assert fields["author"] == " and ".join(names)
    paper = citation["references"][0]
    assert f"arXiv:{parse(sage).popitem()[1]['eprint']}" == paper["identifiers"][0]["value"]
    printed = (ROOT / "results/paper/README.md").read_text()
    assert paper["title"] in " ".join(printed.split())
    assert paper["identifiers"][0]["value"] in printed
