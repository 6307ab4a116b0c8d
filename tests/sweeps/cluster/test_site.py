"""Settings of a cluster: site file, command line, and what submitit makes of them."""

import argparse

import pytest
import submitit
import yaml

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
        ("partitoin: gpu", "partitoin: Extra inputs are not permitted"),
        ("cpus: 0\nmem_gb: -1", "mem_gb: Input should be greater than 0"),
        (
            "timeout_min: 2\nsignal_delay_s: 100",
            "timeout_min 2 should be at least a minute more than signal_delay_s 100",
        ),
        ("[1, 2]", r"should hold settings such as `partition:`\. Found \[1, 2\]"),
        ("a: [", "cannot be read"),
    ],
)
def test_mistakes(tmp_path, text, words):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read("--site", tmp_path / "s.yaml")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml cannot be read"):
        read("--site", tmp_path / "none.yaml")


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


def test_example_for_mig_slices_is_valid():
    """With every line of it switched on."""
    text = shipped(EXAMPLE).read_text()
    settings = yaml.safe_load(text)
    assert settings["gres"] == "gpu:a100_3g.20gb:1"
    switched_on = yaml.safe_load("\n".join(line.removeprefix("#~ ") for line in text.splitlines()))
    assert site.Site.model_validate(switched_on).sbatch("x")["partition"] == "gpu"
    assert set(switched_on) == set(site.Site.model_fields)
