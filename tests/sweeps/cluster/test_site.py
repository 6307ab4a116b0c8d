"""Settings of a cluster: site file, command line, and what submitit makes of them."""

import argparse

import pytest
import submitit

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.resources import shipped
from domainbed_sage.sweeps.cluster import site

EXAMPLE = "sweeps/cluster/a100_mig.yaml"


def read(*words):
    parser = argparse.ArgumentParser()
    site.add_arguments(parser)
    return site.from_arguments(parser.parse_args([str(word) for word in words]))


@pytest.fixture(autouse=True)
def no_site_file_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "domainbed-sage" / "cluster.yaml"


def script(settings):
    """The batch script that submitit writes from the settings."""
    executor = submitit.SlurmExecutor.__new__(submitit.SlurmExecutor)
    submitit.core.core.PicklingExecutor.__init__(executor, "folder", 1)
    executor.python = "python"
    executor.update_parameters(**settings.sbatch("name"))
    return executor._make_submission_file_text("python", "uid")


def test_defaults():
    assert read() == site.Site()


def test_option_over_file_over_default(tmp_path):
    (tmp_path / "s.yaml").write_text("partition: gpu\ncpus: 4\nsetup: [module load cuda]\n")
    found = read("--site", tmp_path / "s.yaml", "--cpus", 6)
    assert (found.partition, found.cpus, found.setup, found.mem_gb) == ("gpu", 6, ["module load cuda"], 32)


def test_file_of_the_user(no_site_file_of_the_user):
    no_site_file_of_the_user.parent.mkdir()
    no_site_file_of_the_user.write_text("qos: normal\n")
    assert read().qos == "normal"


def test_every_setting_but_extra_is_an_option():
    parser = argparse.ArgumentParser()
    site.add_arguments(parser)
    options = {action.dest for action in parser._actions}
    assert set(site.Site.model_fields) - options == {"extra"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partitoin: gpu", r"line 1: partitoin is not a setting\. Did you mean 'partition'\? Known: partition, "),
        ("cpus: 0\nmem_gb: -1", r"line 2: mem_gb should be a number of GB > 0, e\.g\. 32\. Found -1\."),
        ("\ntimeout_min: 4:00:00", r"line 2: timeout_min should be a whole number of minutes .* 240. Found '4:00:00'"),
        ("mem_gb: 32G", r"line 1: mem_gb should be a number of GB > 0, e\.g\. 32\. Found '32G'\."),
        ("signal_delay_s: 2m", "line 1: signal_delay_s should be a whole number of seconds ≥ 1, e.g. 120. Found '2m'"),
        ("save_every_s: .inf", "line 1: save_every_s should be a number of seconds > 0, e.g. 30. Found .inf"),
        ("min_free_gb: .nan", "line 1: min_free_gb should be a number of GB ≥ 0, e.g. 5. Found .nan"),
        ("gpus: true", "line 1: gpus should be a whole number ≥ 1 or null. Found true"),
        ("cpus: 8.0", "line 1: cpus should be a whole number ≥ 1. Found 8.0"),
        ("account: 0123", r'line 1: account should be a text or null. Found 0123\. Write it in quotes: "0123"\.'),
        ("qos: true", r'line 1: qos should be a text or null. Found true\. Write it in quotes: "true"\.'),
        ("account: a\naccount: b", "line 2: 'account' is repeated here; it is in line 1 already"),
        (
            "setup: module load x",
            "line 1: setup should be a list of shell commands, each a text. Found 'module load x'",
        ),
        ("extra: [a]", "line 1: extra should be a mapping from options of sbatch to their values"),
        ("extra: {a: [b]}", "line 1: extra should be a mapping from options of sbatch to their values"),
        (
            "timeout_min: 2\nsignal_delay_s: 100",
            r":\n  - timeout_min 2 should be at least a minute more than signal_delay_s 100",
        ),
        ("[1, 2]", r"should hold settings such as `partition:`, `gres:`\. Found \[1, 2\] in line 1"),
        ("a: [", "cannot be read: line 1, column 5"),
    ],
)
def test_mistakes(tmp_path, text, words):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read("--site", tmp_path / "s.yaml")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"Site file .*none.yaml does not exist"):
        read("--site", tmp_path / "none.yaml")


def test_default_file_that_cannot_be_read(no_site_file_of_the_user):
    no_site_file_of_the_user.mkdir(parents=True)
    with pytest.raises(UserError, match=r"Site file .*cluster.yaml cannot be read: it is a folder"):
        read()


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n"])
def test_file_without_settings(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    assert read("--site", tmp_path / "s.yaml") == site.Site()


def test_an_option_hides_a_mistake_of_the_file_and_has_no_line(tmp_path):
    (tmp_path / "s.yaml").write_text("cpus: 0\n")
    assert read("--site", tmp_path / "s.yaml", "--cpus", 3).cpus == 3
    with pytest.raises(UserError, match=r"\n  - cpus should be a whole number ≥ 1\. Found -1\."):
        read("--site", tmp_path / "s.yaml", "--cpus", -1)


def test_texts_and_options_of_sbatch_are_taken_as_they_are_written(tmp_path):
    text = "account: '0123'\nqos: no\nextra: {reservation: 0123, nice: 1e3, begin: 16:00, exclusive: true, x: '007'}\n"
    (tmp_path / "s.yaml").write_text(text)
    found = read("--site", tmp_path / "s.yaml")
    assert (found.account, found.qos) == ("0123", "no")
    extra = {"reservation": "0123", "nice": "1e3", "begin": "16:00", "exclusive": True, "x": "007"}
    assert found.extra == extra
    lines = script(found).splitlines()
    assert "#SBATCH --reservation=0123" in lines
    assert "#SBATCH --exclusive" in lines


def test_batch_script():
    settings = site.Site(
        partition="gpu", gres="gpu:a100_3g.20gb:1", cpus=6, mem_gb=24.5, timeout_min=90, setup=["module load cuda"]
    )
    lines = script(settings).splitlines()
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --gres=gpu:a100_3g.20gb:1",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --mem=25088M",
        "#SBATCH --time=90",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "module load cuda",
    ):
        assert line in lines
    assert "--cpus-per-task=6" in next(line for line in lines if line.startswith("srun"))
    assert not any("account" in line or "gpus-per-node" in line for line in lines)


def test_example_for_mig_slices_is_valid(tmp_path):
    """With every line of it switched on."""
    assert read("--site", shipped(EXAMPLE)).gres == "gpu:a100_3g.20gb:1"
    path = tmp_path / "s.yaml"
    path.write_text("\n".join(line.removeprefix("#~ ") for line in shipped(EXAMPLE).read_text().splitlines()))
    found = read("--site", path)
    assert found.sbatch("x")["partition"] == "gpu"
    assert found.model_fields_set == set(site.Site.model_fields)
