"""The README's example works as printed: its files are taken from the text, its commands run."""

import json
import re
from pathlib import Path

import pytest
from generated_trees import plant

from domainbed_sage.cli import main
from domainbed_sage.config import make_config

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str, after: str) -> str:
    """The first code block of a language after some words of the README."""
    found = re.search(rf"```{language}\n(.*?)```", README[README.index(after) :], re.DOTALL)
    assert found, f"no {language} block after {after!r}"
    return found.group(1)


def test_the_comparison_has_the_numbers_of_its_records(tmp_path, capsys):
    (command,) = block("console", "## A comparison of all methods").splitlines()
    words = command.replace("results/", f"{Path(__file__).parent.parent}/results/", 1).replace(
        "/tmp/tables", str(tmp_path)
    )
    assert main(words.split()[1:]) == 0
    printed = block("text", "## A comparison of all methods")
    assert len(printed.splitlines()) == 8
    assert printed in capsys.readouterr().out


@pytest.fixture
def example(tmp_path, monkeypatch, forget_plugins):
    monkeypatch.chdir(tmp_path)
    Path("term.py").write_text(block("python", "## Your own algorithm"))
    sweep = block("yaml", "## Your own algorithm")
    Path("term.yaml").write_text(re.sub(r"steps: \d+", "steps: 3", sweep))
    return [line.split()[1:] for line in block("console", "`term.yaml`, in the same folder").splitlines()]


def test_own_algorithm(example, capsys):
    for words in example:
        assert main(words) == 0, words
    printed = capsys.readouterr().out
    rows = [line.split()[0] for line in printed.partition("\nAlgorithm ")[2].splitlines()[1:4]]
    assert rows == ["ERM", "SAGE", "TERM"]
    assert {path.suffix for path in Path("results/term").glob("table.*")} == {".md", ".tex", ".csv"}


@pytest.mark.usefixtures("forget_plugins", "restore_signals")
@pytest.mark.parametrize("after", ["## Your own dataset", "`cams.py`"])
def test_own_dataset(tmp_path, monkeypatch, capsys, after):
    """Without code, and in one line of a plugin."""
    monkeypatch.chdir(tmp_path)
    Path("cams.py").write_text(block("python", "## Your own dataset"))
    plant(Path("data/Cams"), {e: {"0": 5, "1": 5} for e in ("hall", "street", "yard")}, same=False)
    Path("data/Cams/CLASSES.json").write_text(block("json", "## Your own dataset"))
    for line in block("console", after).splitlines():
        assert main(line.split()[1:]) == 0, line
    assert "data/Cams: 30 images in 2 classes; hall 10, street 10, yard 10" in " ".join(capsys.readouterr().out.split())
    record = json.loads(Path("train_output/results.jsonl").read_text().splitlines()[-1])
    assert record["args"]["test_envs"] == [1]
    assert "0 = delivery van, 1 = bicycle" in str(record["data"])
    assert make_config(dataset="Cams", algorithm="ERM", test_envs=["1"]).test_envs == (1,)


@pytest.mark.usefixtures("forget_plugins", "restore_signals")
def test_own_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mynet.py").write_text(block("python", "## Your own model"))
    (words,) = block("console", "## Your own model").splitlines()
    assert main([*words.split()[1:], "--output_dir", "run"]) == 0
    assert Path("run/done").exists()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(
        r"`((?:sweeps|scripts|tests|results)/[\w./]+)`", README
    )
    assert targets
    for target in targets:
        assert (Path(__file__).parent.parent / target).exists() or target.startswith("results/"), target
