"""`domainbed-sage compare`: what it prints and writes, and what it refuses."""

import json

import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results")
    for at, dataset in enumerate(("PACS", "VLCS", "OfficeHome")):
        for trial in range(3):
            for method, gain in (("ERM", 0), ("SAGE", 0.02), ("SAM", 0.01)):
                cells = [0.5 + (1 + 0.1 * at) * gain * (1 + trial), 0.6]
                seeds = (0, 1) if method == "SAM" else (0,)
                for seed in seeds:
                    sweep_folder.write_flat(
                        path, cells, dataset=dataset, algorithm=method, trial=trial, hparams_seed=seed
                    )
    return path


@pytest.fixture
def run(folder, capsys):
    def run(*words):
        status = main(["compare", str(folder), *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("flag", "form"),
    [
        ([], "to_text"),
        (["--latex"], "to_latex"),
        (["--csv"], "to_csv"),
        (["--json"], "to_json"),
        (["--sentence"], "sentence"),
    ],
)
def test_prints_each_form(run, folder, flag, form):
    status, out, err = run("--compare", "SAGE", "SAM", *flag)
    assert status == 0
    assert out == getattr(dg.compare(folder, "ERM", ["SAGE", "SAM"]), form)().rstrip("\n") + "\n"
    warning = "SAM: unequal hyperparameter settings per result: 2, ERM 1 (OfficeHome, PACS, VLCS)."
    assert (warning in " ".join(err.split())) == (form in ("to_csv", "sentence"))
    assert (warning in out.replace("\n  ", " ")) == (form not in ("to_csv", "sentence"))


def test_reference_and_selection(run, folder):
    _, out, _ = run("--reference", "SAGE", "--compare", "ERM", "--selection", "oracle", "--json")
    found = json.loads(out)
    assert (found["reference"], found["selection"]) == ("SAGE", "test-domain validation set (oracle)")
    assert found["comparisons"][0]["difference"] == -dg.compare(folder).frame.loc["SAGE", "difference"]


def test_writes_where_it_is_told_to_and_nowhere_else(run, folder, tmp_path):
    before = sorted(folder.iterdir())
    assert run("--compare", "SAGE")[0] == 0
    assert sorted(folder.iterdir()) == before
    status, out, err = run("--compare", "SAGE", "--csv", "--out", tmp_path / "new")
    assert status == 0
    assert "Wrote" not in out
    assert "compare.json" in err
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"compare.{e}" for e in ("txt", "md", "tex", "csv", "json")
    }
    assert (tmp_path / "new" / "compare.csv").read_text() == out
    assert dg.compare(folder).sentence() in (tmp_path / "new" / "compare.txt").read_text()


def test_several_folders_are_one(run, folder, tmp_path):
    for at, path in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        (tmp_path / str(at % 2)).mkdir(exist_ok=True)
        (tmp_path / str(at % 2) / path.name).symlink_to(path)
    assert main(["compare", str(tmp_path / "0"), str(tmp_path / "1"), "--compare", "SAGE", "--csv"]) == 0
    assert dg.compare([tmp_path / "0", tmp_path / "1"]).to_csv() == dg.compare(folder).to_csv()
    again = dg.compare(dg.load_results([tmp_path / "0", tmp_path / "1"]))
    assert again.to_csv() == dg.compare(folder).to_csv()


def test_files_written_into_the_folder_are_no_foreign_entries(tmp_path, capsys):
    for method in ("ERM", "SAGE"):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], algorithm=method)
    for _ in range(2):
        assert main(["compare", str(tmp_path), "--compare", "SAGE", "--out", str(tmp_path)]) == 0
    assert "Not runs" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "DISAM"], "There is no result of DISAM to compare. Known: ERM, SAGE, SAM."),
        (["--compare", "ERM"], "Nothing is compared with ERM"),
        (["--compare", "SAGE", "--reference", "erm"], "no result of erm"),
    ],
)
def test_refused(run, words, message):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert message in err


SWEEP = """
name: s
datasets: [EmojiStyles]
model: small_cnn
algorithms: [ERM, SAGE]
test_envs: [[0], [1]]
trials: 2
steps: 3
checkpoint_freq: 1
hparams: {width: 8, batch_size: 2}
"""


def test_a_sweep_that_keeps_its_correct_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SWEEP)
    assert main(["sweep", "run", "s.yaml", "--keep_correctness", "--device", "cpu", "--skip_model_save"]) == 0
    assert len(list(tmp_path.glob("results/s/*/correct.npz"))) == 8
    capsys.readouterr()
    for selection in ("training-domain", "oracle"):
        assert main(["compare", "results/s", "--compare", "SAGE", "--selection", selection, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["comparisons"]
        assert found["images"]["low"] <= found["difference"] <= found["images"]["high"]


def test_what_is_left_out_is_named(tmp_path, capsys):
    for method in ("ERM", "SAGE"):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], algorithm=method)
    (tmp_path / "PACS-ERM-0-t0h0" / "done").unlink()
    (tmp_path / "PACS-ERM-1-t0h0" / "results.jsonl").write_text("{}\nno JSON\n{}\n")
    lines = sweep_folder.records([[0.5, 0.6]], [[0.5, 0.5]], trial=1)
    sweep_folder.write(tmp_path, lines)
    assert main(["compare", str(tmp_path), "--compare", "SAGE"]) == 1
    err = capsys.readouterr().err
    assert "Left out, not finished: 1 (PACS-ERM-0-t0h0)." in err
    assert "line 2, is not a JSON object" in err


def test_several_folders(folder, tmp_path, capsys):
    """Of rows of both; in what the folders differ is said."""
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], dataset="PACS", algorithm="GGA", trial=0)
    assert main(["compare", str(folder), str(tmp_path), "--compare", "GGA", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["comparisons"][0]["method"] == "GGA"
    assert f"Note: The folders differ in trials on PACS: 0, 1, 2 in {folder}; 0 in {tmp_path}." in " ".join(
        said.err.split()
    )
