"""`domainbed-sage cite`."""

import json

import pytest
from bibtex import parse
from reference import sweep_folder

from domainbed_sage.cli import main
from domainbed_sage.results import references

MAPPING = references.mapping()
PLUGIN = """
from domainbed_sage.algorithms import Algorithm, register


@register("{name}")
class Mine(Algorithm):
    paper = "{paper}"

    def update(self, batch):
        return {{}}
"""


@pytest.fixture
def cite(capsys):
    def call(*words, status=0):
        assert main(["cite", *map(str, words)]) == status
        return capsys.readouterr()

    return call


def keys(*names):
    return [key for name in names for key in (MAPPING["algorithms"] | MAPPING["datasets"] | MAPPING["solvers"])[name]]


def fill(folder, *algorithms, **facts):
    for algorithm in algorithms:
        sweep_folder.write(folder, sweep_folder.records([[0.5] * 4], [[0.5] * 4], algorithm=algorithm, **facts))
    return folder


def test_names(cite):
    out = cite("--algorithm", "SAM", "Mixup", "--dataset", "terra_incognita").out
    assert list(parse(out)) == [*MAPPING["always"], *keys("SAM", "Mixup", "TerraIncognita")]


def test_names_of_several_tasks(cite, capsys):
    out = cite("--algorithm", "F-MTL", "--solver", "IMTL-G", "--dataset", "NYUv2", "CelebA").out
    assert list(parse(out)) == [*MAPPING["always"], *keys("F-MTL", "IMTL-G", "NYUv2", "CelebA")]
    assert "No solver Imtl has a source here" in cite("--solver", "Imtl", status=2).err


def test_folders_of_several_tasks(cite, tmp_path):
    """Their solvers, too; the sum of the losses has no source. They may stand beside folders of the other kind."""
    for name, solver in (("a", "FairGrad"), ("b", "LS")):
        (tmp_path / "t" / name).mkdir(parents=True)
        args = {"task": "multi_task", "dataset": "Cityscapes", "algorithm": "SAMO", "test_envs": [1], "trial_seed": 0}
        record = {"step": 0, "args": args | {"hparams_seed": 0}, "hparams": {"solver": solver, "only_task": ""}}
        record |= {"data": {"variant": "x"}, "higher_is_better": {"test_depth_abserr": False}, "test_depth_abserr": 1.0}
        (tmp_path / "t" / name / "results.jsonl").write_text(json.dumps(record) + "\n")
        (tmp_path / "t" / name / "done").write_text("")
    expected = keys("SAMO", "FairGrad", "Cityscapes")
    assert list(parse(cite(tmp_path / "t").out)) == [*MAPPING["always"], *expected]
    both = list(parse(cite(tmp_path / "t", fill(tmp_path / "one", "GGA")).out))
    assert set(both) == {*MAPPING["always"], *expected, *keys("GGA", "PACS")}


def test_folders(cite, tmp_path):
    one, two = fill(tmp_path / "one", "GGA", "SAM"), fill(tmp_path / "two", "SAM", dataset="VLCS")
    found = list(parse(cite(one, two, "--algorithm", "IRM").out))
    assert found[:3] == MAPPING["always"]
    assert sorted(found[3:-3]) == sorted(keys("GGA", "SAM"))
    assert found[-3:] == keys("IRM", "PACS", "VLCS")


def test_an_unreadable_run_is_named_and_the_others_are_cited(cite, tmp_path):
    fill(tmp_path, "GGA")
    (tmp_path / "broken").mkdir()
    for name in ("results.jsonl", "done"):
        (tmp_path / "broken" / name).write_text('{"args": 3, "step": 1}\n')
    said = cite(tmp_path, status=1)
    assert list(parse(said.out)) == [*MAPPING["always"], *keys("GGA", "PACS")]
    assert "broken" in said.err


def test_runs_that_are_left_out_are_named(cite, tmp_path):
    fill(tmp_path, "GGA", "SAM")
    (done,) = tmp_path.glob("*SAM*/done")
    done.unlink()
    said = cite(tmp_path)
    assert keys("SAM")[0] not in said.out
    assert "Left out, not finished" in said.err


@pytest.mark.parametrize("words", [("--algorithm", "SAGEE"), ("--dataset", "PACSS"), ("no_such_folder",)])
def test_what_is_not_known_is_an_error(cite, words):
    said = cite(*words, status=2)
    assert said.out == ""
    assert words[-1] in said.err


@pytest.mark.usefixtures("forget_plugins")
@pytest.mark.parametrize(
    ("paper", "line"),
    [("Roe, ICLR 2027", "Roe, ICLR 2027 (no BibTeX entry here)"), ("", references.UNKNOWN)],
)
def test_a_plugin_is_a_comment(cite, tmp_path, paper, line):
    name = f"Cited{len(paper)}"
    (tmp_path / "mine.py").write_text(PLUGIN.format(name=name, paper=paper))
    fill(tmp_path / "out", name)
    assert f"% {name}: {references.UNKNOWN}" in cite(tmp_path / "out").out.splitlines()
    for words in ((tmp_path / "out",), ("--algorithm", name)):
        said = cite(*words, "--plugin", tmp_path / "mine.py").out
        assert f"% {name}: {line}" in said.splitlines()
