"""What is said of the entries of a results folder, and in which order."""

from types import SimpleNamespace
from typing import Any

from domainbed_sage.results.loaded import Loaded, shortened


def test_the_first_eight_names_are_said():
    names = [str(n) for n in range(10)]
    assert shortened([]) == ""
    assert shortened(names[:8]) == "8 (0, 1, 2, 3, 4, 5, 6, 7)"
    assert shortened(names) == "10 (0, 1, 2, 3, 4, 5, 6, 7, and 2 more)"


def test_populations_come_first_and_what_is_no_run_last():
    runs: Any = (SimpleNamespace(dataset="PACS", variant=""), SimpleNamespace(dataset="Terra", variant="cropped"))
    loaded = Loaded(runs, foreign=("notes.txt", "table.md"), empty=("run1",), tasks=("run2",), remarks=("A remark.",))
    assert loaded.notes() == [
        "Terra: population cropped.",
        "A remark.",
        "On several tasks, with tables of their own: 1 (run2).",
        "Without any evaluation: 1 (run1).",
        "Not runs: 1 (notes.txt).",
    ]
