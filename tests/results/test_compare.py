"""Paired comparisons: numbers of independent programs, what cannot be answered, and the printed forms."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.core.errors import UserError
from domainbed_sage.results.compare import holm, mean_ranks, of_like_these, of_these
from domainbed_sage.results.paper import DATASETS, printed_table

METHODS = ("ERM", "SAM", "SAGM", "SAGE")
SIZES = {"VLCS": 4, "PACS": 4, "OfficeHome": 4, "TerraIncognita": 4, "DomainNet": 6}
CLOSE = 1e-9


def accuracy(m, d, e, t):
    """Accuracies that look like a sweep's, percent: method, dataset, environment and trial by their indices."""
    waves = 0.4 * math.sin(3 * m + d) + 0.6 * math.sin(7 * m + 5 * d + 3 * e)
    waves += 0.8 * math.sin(13 * m + 11 * d + 17 * e + 29 * t)
    return round(50 + 6 * d + 3 * e + 0.3 * t + 0.35 * m + waves, 4)


def write(folder, keep=lambda m, d, e, t: True, trials=3):
    for m, method in enumerate(METHODS):
        for d, (dataset, n) in enumerate(SIZES.items()):
            for t in range(trials):
                cells = [accuracy(m, d, e, t) / 100 if keep(m, d, e, t) else None for e in range(n)]
                sweep_folder.write_flat(folder, cells, dataset=dataset, algorithm=method, trial=t)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("full"))


# Computed from the formula above by scipy 1.17.1 and statsmodels 0.15.0, outside of this project.
EXPECTED = {
    "SAM": {
        "difference": 0.16476388888888874,
        "these_se": 0.012390807387578147,
        "these_interval": (0.137155, 0.192372),
        "like_t": 0.7143442263689984,
        "like_p": 0.5144864509135838,
        "like_interval": (-0.475625, 0.805152),
        "like_p_holm": 0.51448645,
        "wins": 12,
    },
    "SAGM": {
        "difference": 0.7100822222222215,
        "these_se": 0.024422069545069043,
        "these_interval": (0.655666, 0.764498),
        "like_t": 17.369827441670626,
        "like_p": 6.448124462856181e-05,
        "like_interval": (0.596581, 0.823584),
        "like_p_holm": 0.00019344,
        "wins": 19,
    },
    "SAGE": {
        "difference": 0.8617050000000002,
        "these_se": 0.03535320460617332,
        "these_interval": (0.782933, 0.940477),
        "like_t": 4.274583325379829,
        "like_p": 0.012903043490428374,
        "like_interval": (0.302007, 1.421403),
        "like_p_holm": 0.02580609,
        "wins": 18,
    },
}


def test_equals_independent_programs(folder):
    assert (
        round(
            sum(
                accuracy(m, d, e, t)
                for m in range(4)
                for d, n in enumerate(SIZES.values())
                for e in range(n)
                for t in range(3)
            ),
            4,
        )
        == 18276.7997
    )
    frame = dg.compare(folder, methods=METHODS[1:]).frame
    assert list(frame.index) == list(METHODS[1:])
    for method, expected in EXPECTED.items():
        row = frame.loc[method]
        for name in ("difference", "these_se", "like_t", "like_p"):
            assert row[name] == pytest.approx(expected[name], rel=0, abs=CLOSE), name
        for question in ("these", "like"):
            interval = row[f"{question}_low"], row[f"{question}_high"]
            assert interval == pytest.approx(expected[f"{question}_interval"], rel=0, abs=6e-7)
        assert row["like_p_holm"] == pytest.approx(expected["like_p_holm"], rel=0, abs=6e-9)
        assert (row["wins"], row["ties"], row["losses"]) == (expected["wins"], 0, 22 - expected["wins"])
        assert tuple(row[["pairs", "pairs_total", "datasets", "trials"]]) == (66, 66, 5, 3)
        assert (row["these_df"], row["like_df"]) == (10, 4)
        assert row["these_t"] == pytest.approx(row["difference"] / row["these_se"])
        assert row["reference"] == "ERM"


def test_p_of_these_datasets():
    """t with 2 (3 - 1) degrees of freedom, whose distribution has a closed form: p = 1 - s (1 + c² / 2)."""
    differences = pd.DataFrame([[0.1, 0.5, 0.3], [-0.2, 0.4, 0.4]], index=["a", "b"])
    test, why = of_these(differences)
    variances = (0.04, 0.12)
    se = math.sqrt(sum(variances) / 3) / 2
    angle = math.atan(0.25 / se / math.sqrt(4))
    sine, cosine = math.sin(angle), math.cos(angle)
    assert (test.se, test.df, test.t, why) == (pytest.approx(se), 4, pytest.approx(0.25 / se), "")
    assert test.p == pytest.approx(1 - sine * (1 + cosine**2 / 2), rel=1e-12)
    assert (test.low + test.high) / 2 == pytest.approx(0.25)
    assert of_these(-differences)[0].p == test.p


def test_printed_table_equals_independent_programs():
    printed = printed_table()[list(DATASETS)]
    test, _ = of_like_these(printed.loc["SAGE"] - printed.loc["ERM"])
    assert (test.t, test.p) == pytest.approx((5.909692995333484, 0.004104169569678668), rel=0, abs=CLOSE)
    test, _ = of_like_these(printed.loc["SAGE"] - printed.loc["BOA"])
    assert (test.t, test.p) == pytest.approx((1.1757556360866288, 0.3048946909305617), rel=0, abs=CLOSE)
    assert (test.low, test.high) == pytest.approx((-1.1163589817, 2.7563589817), rel=0, abs=CLOSE)
    assert test.se == pytest.approx(0.82 / test.t)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.03, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([math.nan, 0.01, 0.04], [math.nan, 0.03, 0.08]),
        ([], []),
    ],
)
def test_holm(p, adjusted):
    np.testing.assert_allclose(holm(p), adjusted)


def test_only_common_triples_count(tmp_path):
    """ERM lacks one cell, SAGE another and all of DomainNet: as if neither had them."""
    missing = {(0, 0, 1, 2), (3, 1, 0, 0)}
    gappy = write(tmp_path / "gappy", lambda m, d, e, t: (m, d, e, t) not in missing and (m, d) != (3, 4))
    common = {(0, 1, 2), (1, 0, 0)}
    both = write(tmp_path / "both", lambda m, d, e, t: m in (0, 3) and (d, e, t) not in common and d != 4)
    ours, theirs = dg.compare(gappy), dg.compare(both)
    columns = ours.frame.columns.drop("pairs_total")
    pd.testing.assert_frame_equal(ours.frame[columns], theirs.frame[columns])
    assert tuple(ours.frame.loc["SAGE", ["pairs", "pairs_total", "datasets"]]) == (46, 66, 4)
    assert ours.notes == (
        "SAGE: compared on the 46 of 66 (dataset, environment, trial) triples that both have.",
        "SAGE: nothing is left of DomainNet.",
        "SAGE: the trials of PACS, VLCS average over different environments.",
    )
    assert theirs.notes == ours.notes[2:]
    differences = [
        [accuracy(3, d, e, t) - accuracy(0, d, e, t) for e in range(4) if (d, e, t) not in common]
        for d in range(4)
        for t in range(3)
    ]
    means = np.array([np.mean(cells) for cells in differences]).reshape(4, 3)
    assert ours.frame.loc["SAGE", "difference"] == pytest.approx(means.mean(), abs=CLOSE)
    assert ours.frame.loc["SAGE", "these_se"] == pytest.approx(math.sqrt((means.var(axis=1, ddof=1) / 3).sum()) / 4)
    assert (ours.frame.loc["SAGE", "these_df"], ours.frame.loc["SAGE", "like_df"]) == (8, 3)


def test_one_trial_and_two_datasets_answer_nothing(tmp_path):
    write(tmp_path, lambda m, d, e, t: d < 2, trials=1)
    comparison = dg.compare(tmp_path)
    row = comparison.frame.loc["SAGE"]
    questions = [name for name in row.index if name.startswith(("these_", "like_"))]
    assert len(questions) == 14
    assert row[questions].isna().all()
    assert row["difference"] == pytest.approx(
        np.mean([accuracy(3, d, e, 0) - accuracy(0, d, e, 0) for d in range(2) for e in range(4)])
    )
    assert comparison.notes == (
        "SAGE: no answer for these datasets: it takes two trials, and PACS has 1.",
        "SAGE: no answer for datasets like these: it takes three datasets, and there are 2.",
    )
    assert "±" not in str(comparison)
    assert list(comparison.strings().loc["SAGE"])[:3] == [f"{row['difference']:+.2f}", "-", "-"]


def test_one_dataset_is_one():
    assert of_like_these(pd.Series([0.5]))[1] == "it takes three datasets, and there is 1"


def test_one_dataset_with_one_trial_spoils_the_first_question(tmp_path):
    write(tmp_path, lambda m, d, e, t: d != 2 or t == 0)
    comparison = dg.compare(tmp_path)
    assert math.isnan(comparison.frame.loc["SAGE", "these_p"])
    assert not math.isnan(comparison.frame.loc["SAGE", "like_p"])
    assert "two trials, and OfficeHome has 1" in comparison.notes[0]


def test_equal_differences_have_no_error(tmp_path):
    for dataset in ("PACS", "VLCS", "OfficeHome"):
        for trial in (0, 1):
            sweep_folder.write_flat(tmp_path, [0.5, 0.6, 0.7], dataset=dataset, trial=trial)
            sweep_folder.write_flat(tmp_path, [0.6, 0.6, 0.6], dataset=dataset, trial=trial, algorithm="SAGE")
    comparison = dg.compare(tmp_path)
    row = comparison.frame.loc["SAGE"]
    assert row[["these_p", "like_p"]].isna().all()
    assert (row["wins"], row["ties"], row["losses"]) == (3, 3, 3)
    assert [note.split(": ")[-1] for note in comparison.notes] == [
        "the differences are the same in every trial.",
        "the differences are the same on every dataset.",
    ]


def test_a_tie_is_one_in_spite_of_rounding(tmp_path):
    """The same three accuracies in another order: their differences, in percent, average to 1.2e-15."""
    for trial, (ours, theirs) in enumerate(((0.2, 0.29), (0.29, 0.62), (0.62, 0.2))):
        sweep_folder.write_flat(tmp_path, [theirs, 0.5], trial=trial)
        sweep_folder.write_flat(tmp_path, [ours, 0.4], trial=trial, algorithm="SAGE")
    row = dg.compare(tmp_path).frame.loc["SAGE"]
    assert (row["wins"], row["ties"], row["losses"]) == (0, 1, 1)


def test_nothing_in_common(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], trial=0)
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], trial=1, algorithm="SAGE")
    comparison = dg.compare(tmp_path)
    row = comparison.frame.loc["SAGE"]
    assert (row["pairs"], row["pairs_total"], row["wins"]) == (0, 4, 0)
    assert math.isnan(row["difference"])
    assert comparison.notes[0].startswith("SAGE: compared on the 0 of 4 ")
    assert comparison.notes[1] == "SAGE: nothing is left of PACS."
    assert comparison.notes[2].endswith("there is nothing to compare.")


def test_a_part_of_a_frame(folder):
    frame = dg.load_results(folder)
    part = frame[frame["dataset"].isin(["PACS", "VLCS", "OfficeHome"]) & frame["label"].isin(["ERM", "SAGM"])]
    row = dg.compare(part, methods=["SAGM"]).frame.loc["SAGM"]
    cells = [accuracy(2, d, e, t) - accuracy(0, d, e, t) for d in range(3) for e in range(4) for t in range(3)]
    assert row["difference"] == pytest.approx(np.mean(cells))
    assert (row["pairs"], row["these_df"], row["like_df"]) == (36, 6, 2)


def test_other_reference_and_selection(folder):
    one = dg.compare(folder, "SAGE", ["ERM"]).frame.loc["ERM"]
    other = dg.compare(folder, "ERM", ["SAGE"]).frame.loc["SAGE"]
    assert one["difference"] == -other["difference"]
    assert (one["wins"], one["losses"]) == (other["losses"], other["wins"])
    assert "test-domain validation set (oracle)" in dg.compare(folder, selection="oracle").caption


@pytest.mark.parametrize(
    ("reference", "methods", "message"),
    [
        ("ERM", ["SAGE", "DISAM"], "no result of DISAM to compare. Known: ERM, SAGE, SAGM, SAM"),
        ("erm", ["SAGE"], "no result of erm"),
        ("ERM", ["ERM", "SAGE"], "Nothing is compared with ERM"),
        ("ERM", [], "Nothing is compared with ERM"),
    ],
)
def test_refused(folder, reference, methods, message):
    with pytest.raises(UserError, match=message):
        dg.compare(folder, reference, methods)


def test_a_method_named_twice_counts_once(folder):
    once = dg.compare(folder, methods=["SAGE", "SAM"])
    pd.testing.assert_frame_equal(dg.compare(folder, methods=["SAGE", "SAM", "SAGE"]).frame, once.frame)
    pd.testing.assert_frame_equal(dg.compare(folder, methods="SAGE").frame, dg.compare(folder).frame)


def test_simulated_sweep_equals_an_independent_program(tmp_path):
    """Selected accuracies of a simulated sweep of five datasets; expected numbers by NumPy and SciPy, as printed."""
    cells = pd.read_csv(Path(__file__).parent.parent / "data" / "simulated_sweep.csv.gz")
    for (dataset, algorithm, trial), rows in cells.groupby(["dataset", "algorithm", "trial_seed"]):
        accuracies = rows.sort_values("env")["test_acc"]
        sweep_folder.write_flat(tmp_path, accuracies, dataset=dataset, algorithm=algorithm, trial=trial)
    frame = dg.load_results(tmp_path)
    averages = dg.table(frame).averages.means["Avg"].round(4)
    assert averages[["SAGE", "SWAD", "ERM"]].to_list() == [77.2041, 77.4035, 75.9031]
    numbers = dg.compare(frame, methods=["SAGE", "SWAD", "SAM", "IRM"]).frame
    assert numbers["difference"].round(4).to_list() == [1.3010, 1.5004, -0.0049, -1.7217]
    intervals = [f"{question}_{end}" for question in ("these", "like") for end in ("low", "high")]
    assert numbers.loc["SAGE", intervals].astype(float).round(4).to_list() == [1.1357, 1.4662, 0.2277, 2.3742]
    assert numbers.loc["SWAD", intervals].astype(float).round(4).to_list() == [1.2529, 1.7478, 0.2194, 2.7813]
    assert round(numbers.loc["SAGE", "like_p"], 5) == 0.02816


def test_mean_ranks_equal_an_independent_program():
    """The paper's printed table, ranked by pandas outside of this project; the formula's, by SciPy."""
    ranks = mean_ranks(printed_table()[list(DATASETS)])
    assert {name: ranks[name] for name in ("SAGE", "BOA", "GGA", "ERM")} == pytest.approx(
        {"SAGE": 1.3, "BOA": 1.7, "GGA": 3.6, "ERM": 13.1}
    )


def test_ranks_of_the_complete_methods(folder, tmp_path):
    assert dg.compare(folder).ranks.to_dict() == pytest.approx({"ERM": 3.6, "SAM": 3.2, "SAGM": 1.6, "SAGE": 1.6})
    gappy = write(tmp_path, lambda m, d, e, t: (m, d, e, t) != (2, 0, 0, 0))
    comparison = dg.compare(gappy, methods=["SAM"])
    assert set(comparison.ranks.index) == {"ERM", "SAM", "SAGE"}
    assert "among 3 methods (1 = best): ERM 2.6, SAM 2.4." in str(comparison).replace("\n  ", " ")


def test_equal_averages_share_their_rank_in_spite_of_rounding():
    means = pd.DataFrame({"PACS": [50 + 1e-13, 50.0, 60.0]}, index=["a", "b", "c"])
    assert mean_ranks(means).to_list() == [2.5, 2.5, 1.0]
