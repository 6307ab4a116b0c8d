"""Failures grouped by cause, and what is advised about them."""

from domainbed_sage.results.failures import OTHERWISE, Failure, advice, by_cause, cause, read_note


def failure(at, kind="UserError", reason="no", dataset="PACS", label="ERM"):
    return Failure(f"run{at}", dataset, label, kind, reason)


def test_names_numbers_and_paths_do_not_tell_causes_apart():
    alike = [failure(at, reason=f"run{at}: step {at}.5e-3 of /x/{at}/y is not finite\nmore {at}") for at in range(3)]
    others = [failure(7, reason="something else"), failure(8, kind="OSError", reason="something else")]
    assert by_cause([others[0], *alike, others[1]]) == [alike, [others[0]], [others[1]]]


def test_a_failure_without_a_plan_has_no_names_to_leave_out():
    runs = [failure(at, reason=f"step {at}", dataset="", label="") for at in (5, 12)]
    assert by_cause(runs) == [runs]


def test_cause_is_one_line_with_the_type_where_that_says_something():
    assert cause(failure(0, reason="a\nb")) == "a"
    assert cause(failure(0, kind="OSError", reason="a")) == "OSError: a"
    assert cause(failure(0, kind="OSError", reason="OSError 5")) == "OSError 5"


def test_advice():
    assert advice(failure(0, kind="OutOfMemoryError")).startswith("a larger slice")
    assert advice(failure(0, reason="loss is not finite")).startswith("the run diverged")
    assert advice(failure(0, reason="x")) == OTHERWISE


def test_a_damaged_note_is_none(tmp_path):
    for content in (b"{", b"[1]", b"\xff"):
        (tmp_path / "note").write_bytes(content)
        assert read_note(tmp_path / "note") == {}
    assert read_note(tmp_path / "none") == {}
