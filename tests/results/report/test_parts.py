"""Parts of a report by themselves: numbers as texts, what runs measured, small pictures, gaps of the comparison."""

import json
import math

import numpy as np
import pytest
from reference import sweep_folder
from report_cases import grow, made

import domainbed_sage as dg
from domainbed_sage.results.records import read_run, run_record
from domainbed_sage.results.report import formats, measures, overview, svg, verdicts
from domainbed_sage.results.report.sections import Unavailable

NAN = math.nan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.num(-1.25, 1), "−1.2"),
        (formats.num(-0.004), "0.00"),
        (formats.num(NAN), "–"),
        (formats.num(None), "–"),
        (formats.signed(1.5), "+1.50"),
        (formats.signed(-0.001), "+0.00"),
        (formats.signed(math.inf), "–"),
        (formats.digits(1234.5), "1234"),
        (formats.digits(12.345), "12.3"),
        (formats.digits(0.00123456), "0.00123"),
        (formats.digits(0.0), "0"),
        (formats.p(0.0009), "< 0.001"),
        (formats.p(0.001), "0.001"),
        (formats.p(NAN), "–"),
        (formats.whole(None), "–"),
        (formats.whole(0), "0"),
        (formats.interval({"these_low": -1.0, "these_high": 2.0}, "these"), "−1.00 to +2.00"),
        (formats.interval({"like_low": NAN, "like_high": NAN}, "like"), "–"),
        (formats.settings({"lr": 1e-6, "halve": True}), "lr 1e-06, halve True"),
    ],
)
def test_numbers_as_texts(text, expected):
    assert text == expected


def test_shades_grow_with_the_difference():
    values = (-9, -1, -0.76, -0.74, -0.1, 0, NAN, 0.1, 0.3, 0.6, 1, 9)
    shades = ["d4", "d4", "d4", "d3", "d1", "", "", "u1", "u2", "u3", "u4", "u4"]
    assert [formats.shade(value, 1.0) for value in values] == shades


def test_equal_rows_have_a_heat_table_without_colour(tmp_path):
    for method in ("ERM", "A"):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], dataset="PACS", algorithm=method)
    heat = overview.heat(dg.table(tmp_path), "ERM")
    assert (heat["rows"][0]["points"], heat["full"]) == ([0.0, 0.0], 1.0)


@pytest.fixture
def run(tmp_path):
    """A run, its folder, and a way to change its records."""
    lines = sweep_folder.records([[0.5, 0.6]] * 3, [[0.5, 0.6]] * 3, step_time=2.0, beta=0.5)
    folder = sweep_folder.write(tmp_path, lines)

    def change(*changes):
        texts = [json.dumps(line | change) for line, change in zip(lines, changes, strict=True)]
        (folder / "results.jsonl").write_text("".join(f"{text}\n" for text in texts))
        return measures.read(folder, run_record(folder, read_run(folder / "results.jsonl")))

    return folder, change


def test_further_numbers_of_a_run(run):
    measured = run[1]({"beta": None, "S": [1]}, {"flag": True, "word": "x"}, {"late": 3, "mem_gb": 0.0})
    assert set(measured) == {"step_time", "beta", "late", "mem_gb"}
    np.testing.assert_array_equal(measured["beta"], [NAN, 0.5, 0.5])
    np.testing.assert_array_equal(measured["late"], [NAN, NAN, 3])
    assert math.isnan(measures.peak_memory_gb(measured))
    assert measures.peak_memory_gb({"mem_gb": np.array([NAN, 2.0, 1.0])}) == 2.0
    assert math.isnan(measures.peak_memory_gb({}))


def test_lines_that_were_not_there_when_the_run_was_read_do_not_count(run):
    folder, change = run
    change({}, {}, {})
    record = run_record(folder, read_run(folder / "results.jsonl"))
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"step": 30, "beta": 9}\n[1]\n{"step": 20, "be')
    np.testing.assert_array_equal(measures.read(folder, record)["beta"], [0.5] * 3)
    assert measures.read(folder / "gone", record) == {}


def test_seconds_of_a_run_are_those_of_all_its_steps(run):
    folder, change = run
    measured = change({"step_time": 1.0}, {"step_time": 2.0}, {"step_time": 3.0})
    record = run_record(folder, read_run(folder / "results.jsonl"))
    assert measures.device_seconds(record, measured) == 1 + 10 * 2 + 10 * 3
    assert math.isnan(measures.device_seconds(record, {}))
    assert math.isnan(measures.device_seconds(record, change({}, {"step_time": None}, {})))


def test_no_time_at_all_gives_no_accuracy_per_hour(tmp_path):
    (row,) = made(grow(tmp_path / "runs", methods=("ERM",), sizes={"PACS": 2}, step_time=0.0), tmp_path)[2]["cost"][
        "rows"
    ]
    assert (row["hours"], row["points_per_hour"]) == (0.0, None)


def test_a_scalar_that_one_trial_lacks_is_no_curve(tmp_path):
    grow(tmp_path / "runs", methods=("ERM",), sizes={"PACS": 2}, trials=1, agreement=0.5)
    grow(tmp_path / "more", methods=("ERM",), sizes={"PACS": 2}, trials=2)
    for run in (tmp_path / "more").glob("*t1*"):
        run.rename(tmp_path / "runs" / run.name)
    lines = made(tmp_path / "runs", tmp_path)[2]["curves"]["datasets"][0]["lines"]
    assert "agreement" not in lines
    assert "loss" in lines


def test_without_a_complete_average_nothing_is_the_best(tmp_path):
    folder = grow(tmp_path / "runs", methods=("ERM", "A"), sizes={"PACS": 2}, keep=lambda *key: key[2:] != (0, 0))
    _, shown, numbers, _ = made(folder, tmp_path)
    assert numbers["averages"]["best"] == ""
    assert "no average is complete" in shown.sections["verdict"]
    assert "fewer than two rows are complete" in shown.sections["ranks"]
    assert not numbers["averages"]["answered"]


def test_a_verdict_needs_two_rows():
    with pytest.raises(Unavailable, match="only one row"):
        verdicts.verdict(["ERM"], None, None)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((-2.9, 2.9), (-2, -1, 0, 1, 2)),
        ((0.0, 1.0), (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ((3.1, 3.4), (3.1, 3.15, 3.2, 3.25, 3.3, 3.35, 3.4)),
        ((-700, 100), (-600, -400, -200, 0)),
    ],
)
def test_ticks(ends, expected):
    assert svg.ticks(*ends) == pytest.approx(expected)


def test_an_axis_shows_all_of_its_values():
    axis = svg.axis([1.0, NAN, 3.0], 0.0)
    assert axis.low < 0 < 3 < axis.high
    assert (axis.at(axis.low), axis.at(axis.high)) == ("0.00%", "100.00%")
    for one in (svg.axis([]), svg.axis([0.0, 0.0])):
        assert one.low < 0 < one.high


def test_what_is_not_there_is_not_drawn():
    axis, none = svg.axis([-1.0, 3.0]), (NAN, NAN)
    for thick, thin in ((none, none), ((0, 1), none), (none, (0, 1))):
        drawn = svg.interval(axis, 1.0, thick, thin)
        assert ('class="thick"' in drawn, 'class="thin"' in drawn) == (thick != none, thin != none)
        assert 'class="dot"' in drawn
    assert 'class="dot"' not in svg.interval(axis, NAN, none, none)
    assert 'class="zero"' in svg.interval(axis, 1.0, none, none)
    assert 'class="zero"' not in svg.interval(axis, 1.0, none, none, None)
    assert 'class="zero"' not in svg.interval(svg.axis([1.0, 3.0]), 1.0, none, none)


def test_labels_of_ticks_keep_off_the_edges():
    axis = svg.Axis(0.0, 10.0, (0, 2, 9, 10))
    assert [f">{tick}<" in svg.head(axis, "points") for tick in (0, 2, 9, 10)] == [False, True, True, False]
