"""Zero-shot accuracies beside published ones: the numbers, and what each kind of mistake is called."""

import pytest
from reference import sweep_folder

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.zero_shot import EXPECTED, PUBLISHED, TOLERANCE, Reference, check, text, whole

RIGHT = {"weights": "openai", "activation": "auto", "head": "zero_shot", "template": "a photo of a {}."}


def checked(folder, accuracies, hparams=RIGHT, **more):
    """Verdicts on runs of two environments of each dataset, with these accuracies in percent, by dataset."""
    for dataset, accuracy in accuracies.items():
        facts = {"data": {"variant": "24788"}} if dataset == "TerraIncognita" else {}
        for env in (0, 1):
            lines = sweep_folder.records(
                [[accuracy / 100] * 2],
                [[accuracy / 100] * 2],
                dataset=dataset,
                algorithm="ZeroShot",
                test_envs=[env],
                hparams=hparams,
                **(facts | more),
            )
            sweep_folder.write(folder, lines)
    return {v.dataset: v for v in check(load_records(folder).records)}


ALL = {name: reference.accuracy for name, reference in PUBLISHED.items()}


def test_published_numbers():
    assert [reference.accuracy for reference in PUBLISHED.values()] == [96.2, 81.7, 82.0, 33.4, 57.5]
    assert sum(ALL.values()) / 5 == pytest.approx(70.2, abs=0.05)


def test_accuracy_is_that_of_the_whole_environment(tmp_path):
    for env, (ins, outs) in enumerate([(0.9, 0.4), (0.5, 0.6)]):
        lines = sweep_folder.records([[ins] * 2], [[outs] * 2], test_envs=[env])
        sweep_folder.write(tmp_path, lines)
    assert whole(load_records(tmp_path).records) == pytest.approx(
        100 * (0.8 * 0.9 + 0.2 * 0.4 + 0.8 * 0.5 + 0.2 * 0.6) / 2
    )


def test_the_share_of_the_out_split_is_the_runs(tmp_path):
    (line,) = sweep_folder.records([[0.9, 0.9]], [[0.5, 0.5]])
    line["args"]["holdout_fraction"] = 0.5
    sweep_folder.write(tmp_path, [line])
    assert whole(load_records(tmp_path).records) == pytest.approx(70)


@pytest.mark.parametrize("off_by", [0.0, TOLERANCE - 0.01, -TOLERANCE + 0.01])
def test_what_agrees(tmp_path, off_by):
    verdicts = checked(tmp_path, {name: accuracy + off_by for name, accuracy in ALL.items()})
    assert list(verdicts) == list(PUBLISHED)
    assert not any(v.advice for v in verdicts.values())
    shown = text(list(verdicts.values()))
    assert shown.count("agrees") == 5
    assert "OFF" not in shown
    assert shown.splitlines()[-1].startswith("Weights, prompts, transforms and images are those")


@pytest.mark.parametrize("off_by", [TOLERANCE + 0.01, -TOLERANCE - 0.01])
def test_what_is_off(tmp_path, off_by):
    verdicts = checked(tmp_path, ALL | {"VLCS": 81.7 + off_by})
    assert [name for name, v in verdicts.items() if v.advice] == ["VLCS"]
    assert text(list(verdicts.values())).count("OFF") == 1


def test_labels_in_another_order(tmp_path):
    (advice,) = checked(tmp_path, ALL | {"OfficeHome": 1.6})["OfficeHome"].advice
    assert "its labels are in another order than its class names" in advice


def test_wrong_weights(tmp_path):
    verdicts = checked(tmp_path, {"PACS": 15.0, "VLCS": 22.0, "OfficeHome": 1.4})
    assert all("the weights are not the expected ones" in v.advice[0] for v in verdicts.values())


def test_activation_or_transform(tmp_path):
    (advice,) = checked(tmp_path, ALL | {"PACS": 94.0})["PACS"].advice
    assert "look at the activation (QuickGELU for OpenAI's weights), mean and deviation of the images" in advice


def test_higher_than_published(tmp_path):
    (advice,) = checked(tmp_path, ALL | {"TerraIncognita": 50.0})["TerraIncognita"].advice
    assert advice.startswith("higher than published")


def test_another_population(tmp_path):
    verdict = checked(tmp_path, ALL | {"TerraIncognita": 31.0}, data={"variant": "24330"})["TerraIncognita"]
    assert verdict.advice == ("its population is 24330; the published number is of 24788 images",)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_setting_that_is_not_the_published_one_is_named(tmp_path, name):
    other = {bool: False, str: "another"}[type(EXPECTED[name])]
    (advice,) = checked(tmp_path, {"PACS": 90.0, "VLCS": 81.7}, hparams=RIGHT | {name: other})["PACS"].advice
    assert advice == f"{name} is {other!r}, and the published numbers were made with {EXPECTED[name]!r}"


def test_chance_is_of_the_datasets_classes(tmp_path):
    """A quarter of the way from chance to the published number."""
    for accuracy, low in ((100 / 7 + (96.2 - 100 / 7) / 4 - 0.1, True), (100 / 7 + (96.2 - 100 / 7) / 4 + 0.1, False)):
        (advice,) = checked(tmp_path / str(low), {"PACS": accuracy, "VLCS": 81.7})["PACS"].advice
        assert ("another order" in advice) == low


def test_other_runs_are_left_out(tmp_path):
    sweep_folder.write(tmp_path, sweep_folder.records([[0.1, 0.1]], [[0.1, 0.1]], algorithm="ERM"))
    sweep_folder.write(tmp_path, sweep_folder.records([[0.1, 0.1]], [[0.1, 0.1]], algorithm="ZeroShot", dataset="Mine"))
    assert check(load_records(tmp_path).records) == []
    with pytest.raises(UserError, match=r"no zero-shot runs to compare\. Run sweeps/zero_shot\.yaml"):
        text([])
    assert len(check(load_records(tmp_path).records, {"Mine": Reference(10.0, 10)})) == 1
