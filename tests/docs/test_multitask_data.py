"""The page on multi-task data: its first lines run as printed, its table says what the registry says."""

import re
from pathlib import Path

from domainbed_sage.data.multitask.specs import task_datasets

PAGE = (Path(__file__).parents[2] / "docs" / "multitask_data.md").read_text()


def test_the_first_example_prints_what_it_says(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    exec(compile(code, "multitask_data.md", "exec"), {})
    printed = re.search(r"print\(data\.population\)  # (.*)", code)[1]
    assert capsys.readouterr().out == f"{printed}\n"


def test_the_table_has_every_dataset_with_its_folder_and_counts():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| ([0-9, /]+) \|", PAGE, re.MULTILINE)
    counts = {name: [f"{n:,}" for n in spec.counts.values()] for name, spec in task_datasets.items()}
    assert {name: numbers.split(" / ") for name, _, numbers in rows} == counts
    assert {name: folder.strip("`-") for name, folder, _ in rows} == {n: s.folder for n, s in task_datasets.items()}
