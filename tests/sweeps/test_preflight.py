"""What is missing is said at once, all of it, before anything starts."""

from pathlib import Path

import pytest
from launches import TEXT

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import models
from domainbed_sage.sweeps import preflight
from domainbed_sage.sweeps.sweep import read_sweep

NEEDY = TEXT.replace("[EmojiStyles]", "{EmojiStyles: {}, PACS: {model: needy}, VLCS: {model: needy}}")


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    def require(hparams):
        raise UserError("Run: domainbed-sage weights download needy")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOMAINBED_DATA_DIR", raising=False)
    monkeypatch.setattr(models, "_things", dict(models._things))
    small = models["small_cnn"]
    models._things["needy"] = type(small)(small.build, require=require)
    Path("s.yaml").write_text(NEEDY)
    return Path("s.yaml")


def test_data_and_weights_are_named_together(sweep):
    with pytest.raises(UserError) as caught:
        preflight.check(read_sweep(sweep).runs(), Path("data"))
    assert caught.value.mistakes == (
        "PACS should be in data/PACS, which does not exist. To get it: domainbed-sage data download PACS --data_dir "
        "data",
        "VLCS should be in data/VLCS, which does not exist. To get it: domainbed-sage data download VLCS --data_dir "
        "data",
        "Run: domainbed-sage weights download needy",
    )
    assert str(caught.value).startswith("Before anything starts, 3 things are needed:\n  - PACS")


def test_one_thing_is_a_plain_sentence(sweep):
    (sweep.parent / "data" / "PACS").mkdir(parents=True)
    (sweep.parent / "data" / "VLCS").mkdir()
    with pytest.raises(UserError, match=r"^Run: domainbed-sage weights download needy$"):
        preflight.check(read_sweep(sweep).runs(), Path("data"))


def test_nothing_is_missing_for_embedded_data(sweep):
    preflight.check([run for run in read_sweep(sweep).runs() if run.dataset == "EmojiStyles"], None)


@pytest.mark.parametrize("words", [["run"], ["launch", "--cluster", "local"], ["plan", "--check"]])
def test_commands_say_it_and_leave_nothing_behind(sweep, capsys, words):
    assert main(["sweep", words[0], str(sweep), *words[1:]]) == 2
    err = capsys.readouterr().err
    assert "PACS is read from disk: give the folder that holds PACS/ with --data_dir" in err
    assert "weights download needy" in err
    assert not Path("results").exists()


def test_runs_that_are_done_need_nothing(sweep):
    for run in read_sweep(sweep).runs():
        if run.dataset != "EmojiStyles":
            (Path("results/s") / run.folder_name).mkdir(parents=True)
            (Path("results/s") / run.folder_name / "done").touch()
    assert main(["sweep", "run", str(sweep), "--device", "no"]) == 2  # the next mistake


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--device", "no"],
        ["launch", "--cluster", "local", "--device", "no"],
        ["launch", "--timeout-min", "1", "--gpus", "1"],
        ["launch"],
        ["retry", "--failed"],
    ],
    ids=" ".join,
)
def test_no_plan_is_written_before_the_options_are_right(sweep, monkeypatch, words):
    monkeypatch.setenv("XDG_CONFIG_HOME", "nowhere")
    sweep.write_text(TEXT)
    assert main(["sweep", words[0], str(sweep), *words[1:]]) == 2
    assert not Path("results").exists()
