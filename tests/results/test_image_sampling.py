"""Other test images: equality with a literal bootstrap and with theory, and which files are not used."""

import json
import math

import numpy as np
import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.results import correctness
from domainbed_sage.results.correctness import Correct
from domainbed_sage.results.image_sampling import RESAMPLES, Sampled, resampled

SIZES = {"PACS": (400, 300), "VLCS": (250, 350), "OfficeHome": (200, 600)}
METHODS = {"ERM": 0.6, "SAGE": 0.7}
STEP = 10  # the selected of the steps 0, 10, 20


def split_of(dataset, env, trial):
    size = SIZES[dataset][env]
    tested = np.ones(size, bool)
    tested[np.random.default_rng([size, env, trial]).permutation(size)[: size // 5]] = False
    return tested


def correct_of(method, dataset, env, trial):
    """Images are hard or easy for both methods and in all trials, so that pairs and trials depend on each other."""
    size = SIZES[dataset][env]
    hardness = np.random.default_rng([size, env]).random(size)
    noise = np.random.default_rng([size, env, trial, list(METHODS).index(method)]).normal(0, 0.15, size)
    tested = split_of(dataset, env, trial)
    return tested, tested & (hardness + noise < METHODS[method])


def write(folder, keep=lambda *cell: True, images="sha", change=lambda cell, correct: correct, trials=2, **more):
    """Two datasets-and-a-half of runs whose records have the accuracies of the bits that they keep."""
    for dataset in SIZES:
        for method in METHODS:
            for env in (0, 1):
                for trial in range(trials):
                    cell = (method, dataset, env, trial)
                    if not keep(*cell):
                        continue
                    tested, right = correct_of(*cell)
                    accuracy = right.sum() / tested.sum()
                    ins = [[accuracy if at == env and n == 1 else 0.5 for at in (0, 1)] for n in range(3)]
                    outs = [[0.5, 0.5], [0.6, 0.6], [0.5, 0.5]]
                    args = {"dataset": dataset, "algorithm": method, "test_envs": [env], "trial": trial}
                    run = sweep_folder.write(folder, sweep_folder.records(ins, outs, **args, **more))
                    correct = change(cell, Correct(images, tested, {STEP: right, 20: right}))
                    if correct is not None:
                        correctness.write(run, {env: correct})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("full"))


def literal(repetitions=1500):
    """Draw the images of every environment one by one, and average as tables do; the order of loops is another."""
    rng, found = np.random.default_rng(5), []
    bits = {
        (d, e, t): (correct_of("SAGE", d, e, t), correct_of("ERM", d, e, t)[1])
        for d in SIZES
        for e in (0, 1)
        for t in (0, 1)
    }
    for _ in range(repetitions):
        by_dataset = []
        for dataset, sizes in SIZES.items():
            drawn = [rng.integers(0, size, size) for size in sizes]
            by_trial = []
            for trial in (0, 1):
                cells = []
                for env in (0, 1):
                    (tested, ours), theirs = bits[dataset, env, trial]
                    rows = drawn[env][tested[drawn[env]]]
                    cells.append(100 * (ours[rows].mean() - theirs[rows].mean()))
                by_trial.append(np.mean(cells))
            by_dataset.append(np.mean(by_trial))
        found.append(np.mean(by_dataset))
    return np.array(found)


def test_equals_a_literal_bootstrap(folder):
    row = dg.compare(folder).frame.loc["SAGE"]
    slow = literal()
    assert row["images_se"] == pytest.approx(slow.std(ddof=1), rel=0.08)
    low, high = np.quantile(slow, [0.025, 0.975])
    assert (row["images_low"], row["images_high"]) == pytest.approx((low, high), abs=0.15 * row["images_se"] + 0.1)
    assert row["images_low"] < row["difference"] < row["images_high"]
    assert slow.mean() == pytest.approx(row["difference"], abs=0.1)


def states(*trials):
    return np.array(trials, np.int8)


def test_error_of_one_environment_is_that_of_theory():
    """300 images: 60 gained, 30 lost. The variance of one is p₊ + p₋ − (p₊ − p₋)²."""
    own = states(np.repeat([1, -1, 0], [60, 30, 210]))
    drawn = resampled([Sampled(np.ones(1), own)])
    assert drawn.shape == (RESAMPLES,)
    assert drawn.mean() == pytest.approx(10, abs=0.1)
    assert drawn.std() == pytest.approx(100 * math.sqrt((0.3 - 0.1**2) / 300), rel=0.03)


def test_trials_share_their_images():
    """Two trials with the same answers know as much as one; two with other images each, half of the variance."""
    one = np.repeat([1, -1, 0], [60, 30, 210])
    alone = resampled([Sampled(np.ones(1), states(one))]).std()
    both = resampled([Sampled(np.full(2, 0.5), states(one, one))]).std()
    assert both == pytest.approx(alone, rel=0.03)
    apart = np.concatenate([one, np.full(300, 2)])
    other = np.concatenate([np.full(300, 2), one])
    halves = resampled([Sampled(np.full(2, 0.5), states(apart, other))]).std()
    assert halves == pytest.approx(alone / math.sqrt(2), rel=0.03)


def test_environments_are_drawn_independently():
    one = np.repeat([1, -1, 0], [60, 30, 210])
    two = resampled([Sampled(np.full(1, 0.5), states(one))] * 2).std()
    assert two == pytest.approx(resampled([Sampled(np.ones(1), states(one))]).std() / math.sqrt(2), rel=0.03)


def test_the_same_numbers_each_time_from_a_folder_and_from_a_frame(folder):
    first, again, framed = dg.compare(folder), dg.compare(str(folder)), dg.compare(dg.load_results(folder))
    assert first.to_json() == again.to_json() == framed.to_json()


def test_files_of_several_folders(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name.split("-")[1]).mkdir(exist_ok=True)
        (tmp_path / path.name.split("-")[1] / path.name).symlink_to(path)
    parts = [tmp_path / method for method in METHODS]
    for source in (parts, dg.load_results(parts)):
        assert dg.compare(source).to_json() == dg.compare(folder).to_json()


def test_is_printed_as_a_line_of_its_own(folder):
    comparison = dg.compare(folder)
    row = comparison.frame.loc["SAGE"]
    interval = f"[{row['images_low']:.2f}, {row['images_high']:.2f}]"
    signed = f"[{row['images_low']:+.2f}, {row['images_high']:+.2f}]"
    assert f"  other test images    {signed}" in str(comparison).splitlines()
    assert comparison.sentence().endswith(
        f"For other test images of these environments alone: 95% interval {interval} (paired bootstrap)."
    )
    assert comparison.strings().loc["SAGE", "Other test images"] == signed
    assert "10,000 resamples" in comparison.caption
    assert json.loads(comparison.to_json())["comparisons"][0]["images"]["low"] == row["images_low"]


def without(folder):
    """The reason why there is no interval."""
    comparison = dg.compare(folder)
    assert math.isnan(comparison.frame.loc["SAGE", "images_low"])
    assert not math.isnan(comparison.frame.loc["SAGE", "these_low"])
    assert "other test images" not in comparison.sentence()
    assert "Other test images" not in comparison.strings().columns
    return [note for note in comparison.notes if "test images" in note]


def test_runs_without_files_need_no_word(tmp_path):
    assert without(write(tmp_path, change=lambda cell, correct: None)) == []


FIRST = ("SAGE", "PACS", 0, 0)


def only(cell, changed):
    return lambda own, correct: changed(correct) if own == cell else correct


def flipped(correct):
    wrong = correct.at[STEP].copy()
    wrong[int(wrong.argmax())] = False
    return Correct(correct.images, correct.tested, {STEP: wrong})


def resplit(correct):
    """The same accuracy on a split of the same size in which one image is replaced by another."""
    tested, right = correct.tested.copy(), correct.at[STEP].copy()
    gone, new = int(np.flatnonzero(tested & ~right)[0]), int(np.flatnonzero(~tested)[0])
    tested[gone], tested[new] = False, True
    return Correct(correct.images, tested, {STEP: right})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda correct: None, "1 of 24 runs have no correct.npz, e.g. PACS-SAGE-0-t0h0."),
        (flipped, "PACS-SAGE-0-t0h0/correct.npz gives accuracy 0."),
        (
            lambda c: Correct(c.images, c.tested, {20: c.at[20]}),
            "correct.npz has no images of step 10, which is selected.",
        ),
        (lambda c: Correct("other", c.tested, c.at), "were tested on different images."),
        (resplit, "PACS-SAGE-0-t0h0 and PACS-ERM-0-t0h0 were tested on different images."),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, changed, reason):
    (note,) = without(write(tmp_path, change=only(FIRST, changed)))
    assert note.startswith("SAGE: no interval for other test images: ")
    assert reason in note


def test_trials_on_different_images_are_named(tmp_path):
    def change(cell, correct):
        return Correct("other", correct.tested, correct.at) if cell[1:] == ("PACS", 0, 1) else correct

    (note,) = without(write(tmp_path, change=change))
    assert "were tested on different images" in note


def test_a_damaged_file_is_named(folder, tmp_path):
    write(tmp_path)
    (tmp_path / "PACS-SAGE-0-t0h0" / "correct.npz").write_bytes(b"PK")
    (note,) = without(tmp_path)
    assert "PACS-SAGE-0-t0h0/correct.npz cannot be read" in note


def test_too_few_images(tmp_path):
    """Of three images, one is tested: a draw may miss it."""

    def change(cell, correct):
        tested = np.array([True, False, False])
        return Correct("few", tested, {STEP: tested}) if cell[1:3] == ("PACS", 0) else correct

    write(tmp_path, change=change)
    for run in tmp_path.glob("PACS-*-0-*"):
        lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
        lines[1]["env0_in_acc"] = 1.0
        (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert without(tmp_path) == ["SAGE: no interval for other test images: there are too few images to draw from."]


def test_common_triples_alone_need_files(tmp_path):
    """SAGE lacks a cell, so that ERM's file there does not matter, nor its absence."""
    gone = ("SAGE", "PACS", 0, 1)
    write(tmp_path / "a", keep=lambda *cell: cell != gone)
    write(tmp_path / "b", keep=lambda *cell: cell != gone, change=only(("ERM", *gone[1:]), lambda correct: None))
    ours, theirs = (dg.compare(tmp_path / name).frame.loc["SAGE"] for name in "ab")
    assert ours["images_low"] == theirs["images_low"] < ours["difference"] < ours["images_high"]
    assert ours["pairs"] == 11


def test_the_file_of_the_selected_setting_counts(tmp_path):
    """A second setting, which is not selected, has other bits."""
    write(tmp_path)
    expected = dg.compare(tmp_path).frame.loc["SAGE", ["images_low", "images_high"]].to_list()
    for run in list(tmp_path.glob("*-SAGE-*")):
        lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
        for line in lines:
            line["args"]["hparams_seed"], line["hparams"] = 1, {"lr": 0.5}
            line |= {f"env{i}_out_acc": 0.1 for i in (0, 1)}
        other = sweep_folder.write(tmp_path, lines, name=f"{run.name}-other")
        (other / "correct.npz").write_bytes(b"not read")
    assert dg.compare(tmp_path).frame.loc["SAGE", ["images_low", "images_high"]].to_list() == expected
