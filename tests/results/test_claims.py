"""The printed forms of a comparison, and the sentences for a paper."""

import io
import json
import math
import re

import pandas as pd
import pytest
from reference import sweep_folder

import domainbed_sage as dg

ERM = {"PACS": [0.50, 0.52, 0.54], "VLCS": [0.60, 0.63, 0.61], "OfficeHome": [0.70, 0.70, 0.72]}
GAINS = {
    "SAGE": ([0.020, 0.022, 0.018], [0.010, 0.013, 0.012], [0.016, 0.015, 0.017]),
    "SAM": ([-0.001, 0.004, 0],) * 3,
}


def write(folder, datasets=3, trials=3, methods=("SAGE", "SAM"), skip=()):
    for at, (dataset, accuracies) in enumerate(list(ERM.items())[:datasets]):
        for trial, accuracy in enumerate(accuracies[:trials]):
            for method in ("ERM", *methods):
                gain = GAINS[method][at][trial] if method != "ERM" else 0
                cells = [None if (method, dataset, trial) in skip else accuracy + gain, 0.5]
                sweep_folder.write_flat(folder, cells, dataset=dataset, algorithm=method, trial=trial)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("full"))


def test_sentence_of_one_method(folder):
    row = dg.compare(folder).frame.loc["SAGE"]
    assert dg.compare(folder).sentence() == (
        "Over 3 datasets and 3 trials, SAGE differs from ERM by +0.79 points of held-out accuracy (model selection: "
        "training-domain validation set). On these datasets: 95% interval "
        f"[{row['these_low']:.2f}, {row['these_high']:.2f}], p < 0.001 (t, df 6). For datasets like these: 95% "
        f"interval [{row['like_low']:.2f}, {row['like_high']:.2f}], p = {row['like_p']:.3f} (t, df 2)."
    )


def test_sentences_of_several_methods_print_adjusted_p(folder):
    comparison = dg.compare(folder, methods=["SAGE", "SAM"])
    first, second, last = comparison.sentence().splitlines()
    assert last == "The p-values are adjusted for 2 comparisons (Holm); each interval is unadjusted."
    adjusted = comparison.frame["like_p_holm"]
    assert f"p = {adjusted['SAGE']:.3f} (t, df 2)." in first
    assert adjusted["SAGE"] == pytest.approx(2 * dg.compare(folder).frame.loc["SAGE", "like_p"])
    assert "SAM differs from ERM by +0.05 points" in second
    assert "For datasets like these: no interval, since the differences are the same on every dataset." in second


def test_sentence_says_why_a_question_has_no_answer(tmp_path):
    said = dg.compare(write(tmp_path, datasets=2, trials=1)).sentence()
    assert said.startswith("Over 2 datasets and 1 trial, SAGE differs from ERM by +0.75 points")
    assert "On these datasets: no interval, since it takes two trials, and PACS has 1." in said
    assert said.endswith("For datasets like these: no interval, since it takes three datasets, and there are 2.")
    assert not re.search("±|p [<=]", said)


def test_sentence_counts_what_is_missing(tmp_path):
    write(tmp_path, skip=[("SAGE", "PACS", 1)])
    assert " in the 17 of 18 results that both have (model" in dg.compare(tmp_path).sentence()
    sweep_folder.write_flat(tmp_path, [0.5, 0.5], algorithm="IRM", trial=7)
    comparison = dg.compare(tmp_path, methods=["IRM"])
    assert comparison.sentence() == "IRM and ERM have no (dataset, environment, trial) in common."
    assert "IRM: - (0 pairs, W/T/L 0/0/0)" in str(comparison)


def test_text_fits_a_terminal(folder, tmp_path):
    comparison = dg.compare(folder, methods=["SAGE", "SAM"])
    assert repr(comparison) == str(comparison) == comparison.to_text()
    row = comparison.frame.loc["SAGE"]
    assert str(comparison).splitlines()[2:4] == [
        "SAGE: +0.79 (18 pairs, W/T/L 3/3/0)",
        f"  these datasets       [+{row['these_low']:.2f}, +{row['these_high']:.2f}]    p < 0.001  "
        f"t = {row['these_t']:.2f}, df 6",
    ]
    assert "p adjusted for 2 methods (Holm)" in comparison.caption
    long = "a method whose name is longer than " + "a line of a terminal " * 3
    for trial in range(3):
        for dataset in ERM:
            for name, accuracy in ((long, 0.2 + 0.3 * trial), ("ERM", 0.9 - 0.4 * trial)):
                sweep_folder.write_flat(
                    tmp_path, [accuracy, 0.5], algorithm=name, trial=trial, dataset=dataset, label=None
                )
    for shown in (comparison, dg.compare(tmp_path, methods=[long])):
        assert max(map(len, str(shown).splitlines())) <= 80


def test_csv_and_json_keep_every_number(folder):
    comparison = dg.compare(folder, methods=["SAGE", "SAM"])
    rows = pd.read_csv(io.StringIO(comparison.to_csv())).set_index("method")
    found = json.loads(comparison.to_json())
    assert (found["unit"], found["confidence"], found["reference"]) == ("points", 0.95, "ERM")
    assert found["mean_ranks"] == comparison.ranks.to_dict()
    assert found["sentence"] == comparison.sentence()
    for own, (method, row) in zip(found["comparisons"], comparison.frame.iterrows(), strict=True):
        assert own["method"] == method
        flat = {name: value for name, value in own.items() if not isinstance(value, dict)}
        flat |= {f"{q}_{name}": value for q in ("these", "like", "images") for name, value in own[q].items()}
        for name, value in row.items():
            read = rows.loc[method, name]
            if isinstance(value, float) and math.isnan(value):
                assert math.isnan(read)
                assert flat[name] is None
            else:
                assert read == flat[name] == value
    assert rows["mean_rank"].to_list() == comparison.ranks[["SAGE", "SAM"]].to_list()
    assert found["comparisons"][1]["like"]["unanswered"] == "the differences are the same on every dataset"


def test_latex_and_markdown(folder):
    comparison = dg.compare(folder, methods=["SAGE", "SAM"])
    text = comparison.to_latex()
    assert text.isascii()
    for command in (
        r"\begin{table}",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\end{table}",
        r"\label{tab:compare:ERM}",
    ):
        assert text.count(command) == 1
    these, like = map(str, comparison.strings().loc["SAGE", ["These datasets", "Datasets like these"]])
    assert "SAGE & +0.79 & " + these.replace("<", r"\textless{}") in text
    assert f"| {like} |" in re.sub(" +", " ", comparison.to_markdown().replace("\\", ""))
    assert "SAM: no answer for datasets like these" in text


def test_names_are_escaped(tmp_path):
    name = "<b>&_%"
    sweep_folder.write_flat(tmp_path, [0.5, 0.6], algorithm=name)
    sweep_folder.write_flat(tmp_path, [0.5, 0.7], algorithm="<i>\x1b[2J")
    comparison = dg.compare(tmp_path, "<i>\x1b[2J", [name])
    shown = comparison._repr_html_()
    assert "<td>&lt;b&gt;&amp;_%</td>" in shown
    assert "<li>Difference to &lt;i&gt;" in shown
    assert "<i>" not in shown
    assert "<b>" not in shown
    assert r"\textless{}b\textgreater{}\&\_\% &" in comparison.to_latex()
    for text in (str(comparison), comparison.to_csv(), comparison.to_json(), comparison.sentence()):
        assert "\x1b" not in text
