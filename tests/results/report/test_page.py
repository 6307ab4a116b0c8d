"""The page as a file: names stay text, nothing is asked of the network, equal input gives equal bytes; and its gaps."""

import base64
import hashlib
import json
import re

import pytest
from reference import sweep_folder
from report_cases import embedded, grow, made

import domainbed_sage
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import packed, planned
from domainbed_sage.results.planned import Plan, PlannedRun
from domainbed_sage.results.report import page
from domainbed_sage.results.report.gathered import Wanted, gather
from domainbed_sage.results.report.overview import condensed

EVIL = "</script><script>alert(1)</script>"
QUOTED = """"'><b onclick='x'>&amp;"""
TURNED = "a\u202eb\u2066"  # marks that turn the direction of text
SMALL = {"PACS": 2}


def test_names_stay_text(tmp_path):
    methods, sizes = ("ERM", EVIL, QUOTED, TURNED), {f"d{EVIL}": 2}
    folder = tmp_path / "runs"
    for method in methods:
        for env in range(2):
            facts = {"dataset": next(iter(sizes)), "algorithm": method, "test_envs": [env], "hparams": {EVIL: QUOTED}}
            lines = sweep_folder.records([[0.5, 0.6]], [[0.5, 0.6]], **facts, environments=[QUOTED, TURNED])
            sweep_folder.write(folder, lines, name=f"{methods.index(method)}-{env}{QUOTED}"[:50].replace("/", "-"))
    html, shown, numbers, _ = made(folder, tmp_path)
    assert html.count("<script") == html.count("</script>") == 2
    assert "<b onclick" not in html
    assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", html)
    rows = [row[0] for row in shown.tables["averages"][0][1:]]
    assert rows == ["ERM", QUOTED, EVIL, r"a\u202eb\u2066"]
    assert [row["method"] for row in numbers["averages"]["rows"]] == ["ERM", QUOTED, EVIL, TURNED]
    assert embedded(html)["methods"] == rows


def test_equal_input_gives_equal_bytes(tmp_path):
    grow(tmp_path / "runs", sizes=SMALL)
    first = made(tmp_path / "runs", tmp_path / "a")[0]
    numbers = (tmp_path / "a" / "made" / "report.json").read_bytes()
    assert made(tmp_path / "runs", tmp_path / "b")[0] == first
    assert (tmp_path / "b" / "made" / "report.json").read_bytes() == numbers


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = grow(tmp_path_factory.mktemp("whole"))
    return made(folder, tmp_path_factory.mktemp("out"), command="domainbed-sage report whole")


def test_the_page_may_ask_nothing_and_runs_its_own_script_only(whole):
    html = whole[0]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)[1]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    hashes = {}
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        text = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        hashes[kind] = f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    nothing = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "img-src": "data:"}
    assert allowed == nothing | hashes
    assert not re.search(r"""(?:src|href|action)=["'](?!#|data:)""", html)
    assert " style=" not in html


def test_links_of_the_page_lead_somewhere(whole):
    html = whole[0]
    anchors = re.findall('href="#(.*?)"', html)
    assert anchors == [name for name, _ in page.TITLES]
    assert all(html.count(f'id="{name}"') == 1 for name in anchors)
    assert list(whole[1].sections) == ["head", *anchors]


def test_report_json_names_its_version_and_sections(whole):
    numbers = whole[2]
    assert numbers["version"] == page.VERSION == 1
    assert list(numbers) == [
        *("version", "state", "verdict", "averages", "differences", "by_dataset", "heat", "datasets", "selections"),
        *("validation", "ranks", "curves", "cost", "failures", "runs", "paper"),
    ]
    state = numbers["state"]
    assert (state["done"], state["missing"], state["failed"], state["trials"]) == (99, 0, 0, [0, 1, 2])
    assert state["package_version"] == domainbed_sage.__version__
    assert state["command"] == "domainbed-sage report whole"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", state["newest"])


def test_size(tmp_path):
    """As many curves and runs as 17 methods on 22 environments with 3 trials have, per environment."""
    folder = grow(tmp_path / "runs", methods=[f"M{at}" for at in range(17)], sizes=SMALL, trials=1, evaluations=18)
    assert len(made(folder, tmp_path)[0]) < 120_000


def test_one_trial_says_why_there_are_no_intervals(tmp_path):
    html, shown, numbers, _ = made(grow(tmp_path / "runs", trials=1), tmp_path)
    assert all(row["these_low"] is None for row in numbers["differences"]["rows"])
    assert "All rows" not in shown.sections["differences"]
    assert "SAGE, SAM: no answer for these datasets: it takes two trials" in shown.sections["differences"]
    assert "that takes two trials" in shown.sections["averages"]
    assert "No comparison was declared" in shown.sections["verdict"]
    assert "adjusted" not in shown.sections["verdict"]
    assert "±0" not in shown.sections["datasets"]
    assert 'class="near"' not in html
    assert [row["inseparable"] for row in numbers["averages"]["rows"]] == [None] * 3


def test_one_dataset_answers_the_first_question_only(tmp_path):
    _, shown, numbers, _ = made(grow(tmp_path / "runs", sizes=SMALL), tmp_path)
    row = numbers["differences"]["rows"][0]
    assert row["these_low"] < row["difference"] < row["these_high"]
    assert row["like_low"] is None
    assert "it takes three datasets, and there is 1" in shown.sections["differences"]
    assert numbers["by_dataset"] == {"unavailable": "There is only one dataset."}
    assert "On each dataset" not in shown.sections["differences"]


def test_one_method_has_nothing_to_compare(tmp_path):
    _, shown, numbers, _ = made(grow(tmp_path / "runs", methods=("SAGE",), sizes=SMALL), tmp_path)
    for name, section in (("verdict", "verdict"), ("differences", "differences"), ("heat", "environments")):
        assert "only one row has results" in numbers[name]["unavailable"]
        assert numbers[name]["unavailable"] in shown.sections[section]
    assert numbers["averages"]["rows"][0]["difference"] is None


def test_the_usual_reference_is_not_needed(tmp_path):
    folder = grow(tmp_path / "runs", methods=("A", "B"), sizes=SMALL)
    assert made(folder, tmp_path)[2]["differences"]["reference"] == "A"
    assert made(folder, tmp_path, reference="B")[2]["differences"]["reference"] == "B"
    assert made(folder, tmp_path, compared=("A",))[2]["differences"]["reference"] == "B"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"reference": "ERN"}, "There is no result of ERN to compare. Known: ERM, SAGE, SAM."),
        ({"compared": ("SAGE", "SAGM")}, "There is no result of SAGM to compare."),
        ({"reference": "SAM", "compared": ("SAM",)}, "SAM cannot be compared with itself. Name another --reference."),
        ({"selection": "leave-one-domain-out"}, "needs also the runs that hold out each pair of environments"),
    ],
)
def test_what_cannot_be_reported(tmp_path, wanted, message):
    folder = grow(tmp_path / "runs", sizes=SMALL, trials=1)
    with pytest.raises(UserError, match=re.escape(message)):
        made(folder, tmp_path, **wanted)
    assert not (tmp_path / "made").exists()


def test_missing_results_are_named(tmp_path):
    gone = ("PACS", "SAGE", 1, 2)
    folder = grow(tmp_path / "runs", sizes={"PACS": 3}, keep=lambda *key: key != gone)
    _, shown, numbers, _ = made(folder, tmp_path)
    assert numbers["state"]["missing"] == 1
    assert "1 result missing" in shown.sections["head"]
    assert "Missing: SAGE on PACS, held out env1 (trial 2): no run." in numbers["state"]["remarks"]
    (row,) = [row for row in shown.tables["datasets"][0] if row[0] == "SAGE"]
    assert "(2/3)" in row[2]
    assert row[-1] == "X"
    assert "compared on the 8 of 9" in shown.sections["differences"]
    assert numbers["averages"]["best"] == "SAM"


def fail(folder, name, kind, reason):
    run = folder / name
    run.mkdir()
    (run / "failed.json").write_text(json.dumps({"kind": kind, "reason": reason, "by": "x"}))
    (run / "results.jsonl").touch()


def test_failures_by_cause(tmp_path):
    folder = grow(tmp_path / "runs", sizes=SMALL, trials=1)
    for at in range(3):
        fail(folder, f"PACS-DANN-{at}", "UserError", f"step {at}00: the loss is not finite")
    fail(folder, "PACS-IRM-0", "OutOfMemoryError", "CUDA out of memory. Tried 2 GiB")
    (folder / "torn").mkdir()
    (folder / "torn" / "results.jsonl").write_text("{")
    (folder / "torn" / "failed.json").write_text("{")
    planned.write(folder, "s", Plan("x", (PlannedRun("PACS-IRM-0", "IRM 2", "PACS", "IRM", (0,), 0, 100),)))
    _, shown, numbers, _ = made(folder, tmp_path)
    causes = numbers["failures"]["causes"]
    assert [(len(own["runs"]), own["cause"]) for own in causes] == [
        (3, "step 000: the loss is not finite"),
        (1, "OutOfMemoryError: CUDA out of memory. Tried 2 GiB"),
    ]
    assert "a lower lr or a smaller radius" in shown.sections["failures"]
    assert "a larger slice" in causes[1]["advice"]
    assert "4 failed" in shown.sections["head"]
    listed = {row["folder"]: (row["state"], row["method"]) for row in numbers["runs"]["rows"]}
    assert listed["PACS-IRM-0"] == ("failed", "IRM 2")
    assert listed["PACS-DANN-1"] == ("failed", "")
    assert listed["torn"][0] == "unfinished"


def test_a_run_that_was_done_after_a_failure_has_not_failed(tmp_path):
    folder = grow(tmp_path / "runs", sizes=SMALL, trials=1)
    run = next(folder.iterdir())
    (run / "failed.json").write_text('{"kind": "Killed", "reason": "killed"}')
    assert made(folder, tmp_path)[2]["failures"]["unavailable"] == "No run has failed."


def test_unreadable_runs_are_named(tmp_path):
    folder = grow(tmp_path / "runs", sizes=SMALL, trials=1)
    broken = folder / "broken"
    broken.mkdir()
    (broken / "results.jsonl").write_text('{"a": 1}\nno json\n{"a": 1}\n')
    (broken / "done").write_text("done")
    _, shown, numbers, faults = made(folder, tmp_path)
    assert len(faults) == numbers["state"]["unreadable"] == 1
    assert faults[0] in numbers["state"]["remarks"]
    assert "1 unreadable" in shown.sections["head"]


def test_packed_records_give_the_same_report(tmp_path):
    grow(tmp_path / "a" / "runs", sizes=SMALL, agreement=0.5)
    (tmp_path / "b" / "runs").mkdir(parents=True)
    (tmp_path / "b" / "runs" / packed.FILE).write_bytes(packed.pack(tmp_path / "a" / "runs")[0])
    numbers = [made(tmp_path / name / "runs", tmp_path / name)[2] for name in ("a", "b")]
    for own in numbers:
        assert own["state"].pop("newest") > "2000"
    assert numbers[0] == numbers[1]
    assert numbers[0]["cost"]["hours"] > 0


def test_packed_records_are_unpacked_once(tmp_path, monkeypatch):
    grow(tmp_path / "a", sizes=SMALL)
    grow(tmp_path / "b", sizes=SMALL, methods=("GGA",))
    for name in ("a", "b"):
        (tmp_path / f"{name}-packed").mkdir()
        (tmp_path / f"{name}-packed" / packed.FILE).write_bytes(packed.pack(tmp_path / name)[0])
    unpacked, real = [], packed.unpacked
    monkeypatch.setattr(packed, "unpacked", lambda folder: unpacked.append(folder) or real(folder))
    folders = [tmp_path / "a-packed", tmp_path / "b-packed"]
    gathered = gather(folders, Wanted())
    assert unpacked == folders
    assert all(own["step_time"].tolist() == [0.5] * 3 for own in gathered.measured)
    assert not any(path.exists() for path in gathered.loaded.unpacked.values())


def test_what_differs_between_runs_is_shown_with_counts(tmp_path):
    grow(tmp_path / "runs", sizes=SMALL, trials=1, device="cpu")
    grow(tmp_path / "runs", sizes={"VLCS": 2}, trials=1, methods=("ERM",), device="H200")
    _, shown, numbers, _ = made(tmp_path / "runs", tmp_path)
    device = numbers["state"]["provenance"][0]
    assert device == {
        "fact": "device",
        "uniform": False,
        "values": [{"value": "cpu", "runs": 6}, {"value": "H200", "runs": 2}],
    }
    assert "not the same in all runs: device" in shown.sections["head"]
    assert "cpu (6); H200 (2)" in shown.sections["head"]


def test_without_times_there_is_no_cost(tmp_path):
    sweep_folder.write_flat(tmp_path / "runs", [0.5, 0.6], dataset="PACS", algorithm="ERM")
    _, shown, numbers, _ = made(tmp_path / "runs", tmp_path)
    assert numbers["cost"]["unavailable"] in shown.sections["cost"]


def test_notes_on_all_rows_are_said_once():
    notes = ["A: B: x.", "B: x.", "A: y.", "C: y.", "B: y.", "of all."]
    assert condensed(notes, ["A", "B", "C"]) == ["A: B: x.", "B: x.", "All rows: y.", "of all."]
    assert condensed(["A: y.", "B: y."], ["A", "B"]) == ["A, B: y."]
    assert condensed(["A: B: x."], ["A", "A: B"]) == ["A: B: x."]
