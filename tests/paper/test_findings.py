"""Findings as files: the same bytes each time, nothing from outside, everything escaped."""

import json
import re

import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.paper import findings, pages
from domainbed_sage.paper.findings import Finding

HOW = "the mean of the row's columns"
SOME = [
    Finding("Table 1, SAM", "average 76.2", "76.18", "follows", HOW, {"mean": 76.18}),
    Finding("Table 1, <b>FISH</b> | x", "average 75.0", "76.34", "cannot follow", HOW, {"mean": 76.34}),
    Finding("Theorem 1", "any K", "not for K = 2", "holds in part", "enumeration", {"gone": float("nan")}),
]
PNG = bytes.fromhex("89504e470d0a1a0a")


def written(folder, **options):
    kept = {"command": "domainbed-sage paper audit", "seed": 0, "as_json": False, **options}
    findings.publish(SOME, "Tables & more", "audit", folder, **kept)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_findings_give_the_same_bytes_anywhere(tmp_path):
    first, second = written(tmp_path / "a"), written(tmp_path / "elsewhere")
    assert set(first) == {"audit.html", "audit.json", "audit.md"}
    assert first == second
    assert not any(str(tmp_path).encode() in content for content in first.values())


def test_json_holds_every_number(tmp_path):
    data = json.loads(written(tmp_path)["audit.json"])
    assert data["verdicts"] == {"follows": 1, "cannot follow": 1, "holds in part": 1}
    assert [one["numbers"] for one in data["findings"]] == [{"mean": 76.18}, {"mean": 76.34}, {"gone": None}]


def test_how_many_findings_there_are_of_each_verdict():
    """In the order of the verdicts, not in that of the findings."""
    verdicts = findings.counts([SOME[2], SOME[0], SOME[0]])
    assert list(verdicts.items()) == [("follows", 2), ("holds in part", 1)]
    assert pages.Head("", "", 0, verdicts).summary == "3 findings (follows: 2, holds in part: 1)"
    assert pages.Head("", "", 0, {}).summary == "0 findings"


def test_numbers_are_published_without_rounding_errors(tmp_path):
    noisy = Finding(
        "Table 1", "", "", "holds", HOW, {"none": -1e-17, "third": 1 / 3, "fall": -2.5, "large": 123456789.123456}
    )
    findings.publish([noisy], "", "one", tmp_path, command="", seed=0, as_json=False)
    numbers = json.loads((tmp_path / "one.json").read_text())["findings"][0]["numbers"]
    assert numbers == {"none": 0, "third": 0.3333333333, "fall": -2.5, "large": 123456789.1}


def test_json_goes_to_the_output_and_the_files_to_the_other_one(tmp_path, capsys):
    files = written(tmp_path, as_json=True)
    said = capsys.readouterr()
    assert said.out.encode() == files["audit.json"]
    assert said.err.splitlines() == [f"Wrote {tmp_path / name}" for name in ("audit.json", "audit.md", "audit.html")]


def test_the_terminal_counts_what_follows_and_tells_the_rest(tmp_path, capsys):
    written(tmp_path)
    said = capsys.readouterr().out
    assert "3 findings (follows: 1, cannot follow: 1, holds in part: 1)." in " ".join(said.split())
    assert "follows: 1 number\n" in said
    assert "0 numbers" not in said
    assert "CANNOT FOLLOW: <b>FISH</b> | x. Claimed: average 75.0. Computed: 76.34" in said
    assert "76.18" not in said
    assert max(map(len, said.split("Wrote")[0].splitlines())) <= 80


def test_the_terminal_is_told_no_commands_and_no_number_that_rounding_explains(tmp_path, capsys):
    some = [Finding("X", "c", "\x1b[31mred", "holds", HOW), Finding("X", "", "y", "only if rounded otherwise", HOW)]
    findings.publish(some, "", "x", tmp_path, command="", seed=0, as_json=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "only if rounded otherwise: 1 number\n" in said
    assert "ROUNDED" not in said


def test_names_become_no_markup(tmp_path):
    files = written(tmp_path)
    assert b"<b>FISH" not in files["audit.html"]
    assert b"&lt;b&gt;FISH&lt;/b&gt; | x" in files["audit.html"]
    assert rb"\<b\>FISH\</b\> \| x" in files["audit.md"]


def test_the_page_asks_the_network_for_nothing(tmp_path):
    page = written(tmp_path)["audit.html"].decode()
    assert re.findall(r"(?:src|href)=\"(?!#|data:)", page) == []
    assert "://" not in page
    assert "prefers-color-scheme: dark" in page


def test_pictures_are_inside_the_page_once_for_each_stem(tmp_path):
    paths = [tmp_path / name for name in ("ratio.pdf", "ratio.png", "ratio.svg")]
    for path in paths:
        path.write_bytes(PNG)
    files = written(tmp_path, pictures=paths)
    assert files["audit.html"].count(b'<img src="data:image/png;base64,iVBORw0KGgo=') == 1
    assert files["audit.html"].count(b"<img") == 1
    assert b"![ratio](ratio.png)" in files["audit.md"]


def test_a_picture_outside_of_the_folder_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(UserError, match="should be inside"):
        written(tmp_path / "in", pictures=[tmp_path / "ratio.png"])
    assert not (tmp_path / "in").exists()


def test_rows_of_one_computation_stand_together():
    by_section = dict(pages.grouped(SOME))
    assert [(how, len(rows)) for how, rows in by_section["Table 1"]] == [(HOW, 2)]
    assert list(by_section) == ["Table 1", "Theorem 1"]
    assert pages.place(SOME[2]) == "Theorem 1"


def test_the_command_names_only_what_is_not_the_default():
    assert findings.command("audit", 0, False) == "domainbed-sage paper audit"
    assert findings.command("theory", 3, True) == "domainbed-sage paper theory --seed 3 --quick"


def test_what_contradicts_the_paper_is_seen_from_afar(tmp_path):
    """Three colours, and bold in Markdown for all but what simply follows or holds."""
    chosen = [Finding("X", "", "", verdict, HOW) for verdict in findings.VERDICTS]
    findings.publish(chosen, "", "all", tmp_path, command="", seed=0, as_json=False)
    chips = re.findall(r'class="chip (\w+)">([\w ]+)<', (tmp_path / "all.html").read_text())
    assert chips == [
        ("u1", "follows"),
        ("d1", "only if rounded otherwise"),
        ("d3", "cannot follow"),
        ("u1", "holds"),
        ("d1", "holds in part"),
        ("d3", "does not hold"),
    ]
    bold = re.findall(r"\| \*\*([\w ]+)\*\* \|", (tmp_path / "all.md").read_text())
    assert bold == ["only if rounded otherwise", "cannot follow", "holds in part", "does not hold"]
