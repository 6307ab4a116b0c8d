"""Names of datasets, algorithms and environments come out as text, and as nothing else, in every format."""

import io
import logging

import matplotlib.text
import pandas as pd
import pytest
from reference import sweep_folder

from domainbed_sage.results import curves, dots, escape, looks, paper, picture, progress, render, tables
from domainbed_sage.results.folder import load_records

CASES = {  # name: as printable text, in LaTeX, in Markdown
    "GGA_L": ("GGA_L", r"GGA\_L", "GGA_L"),
    "_mine_": ("_mine_", r"\_mine\_", r"\_mine\_"),
    "a__b": ("a__b", r"a\_\_b", r"a\_\_b"),
    "é_é": ("é_é", r"é\_é", "é_é"),
    r"SAGE$_\gamma$": (r"SAGE$_\gamma$", r"SAGE\$\_\textbackslash{}gamma\$", r"SAGE\$\_\\gamma\$"),
    "cost$ {x}": ("cost$ {x}", r"cost\$ \{x\}", r"cost\$ {x}"),
    "50% A&B #1": ("50% A&B #1", r"50\% A\&B \#1", r"50% A\&B \#1"),
    "<b>|~^": ("<b>|~^", r"\textless{}b\textgreater{}\textbar{}\textasciitilde{}\textasciicircum{}", r"\<b\>\|\~^"),
    "**X**": ("**X**", "**X**", r"\*\*X\*\*"),
    "[x](y)": ("[x](y)", "[x](y)", r"\[x\](y)"),
    "?`--''": ("?`--''", r"?\textasciigrave{}-{}-'{}'", r"?\`--''"),
    "two\nlines": (r"two\nlines", r"two\textbackslash{}nlines", r"two\\nlines"),
    "\x1b[2J\t\x07": (r"\x1b[2J\t\x07", None, r"\\x1b\[2J\\t\\x07"),
    "right\u202eleft": (r"right\u202eleft", None, None),
    "half\ud800": (r"half\ud800", None, None),
    "我们的方法": ("我们的方法", "我们的方法", "我们的方法"),
}


@pytest.mark.parametrize("name", CASES)
def test_escapes(name):
    for escaped, expected in zip((escape.printable, escape.latex, escape.markdown), CASES[name], strict=True):
        assert expected is None or escaped(name) == expected


def test_own_signs_keep_their_looks():
    assert escape.latex("± – − →") == r"$\pm$ -- $-$ $\to$"


def test_labels_of_latex():
    assert escape.latex_label("tab:oracle:My_Data-2.0") == "tab:oracle:My_Data-2.0"
    made = [escape.latex_label(name) for name in ("100% {x}#~", "100% {x}#^", "我", "a\nb", "half\ud800")]
    assert len(set(made)) == len(made)
    assert all(set(label) <= set("0123456789abcdefghijklmnopqrstuvwxyz-_:.") for label in made)
    assert made[0].startswith("100-x-")


@pytest.mark.parametrize("name", [*CASES, "a\\|b", "\\", "`|`", "&lt;", "<script>x</script>", "~~x~~", "1. x", "x #"])
def test_a_reader_of_markdown_gets_the_name_back(name):
    markdown_it = pytest.importorskip("markdown_it")
    text = f"## {escape.markdown(name)}\n\n| {escape.markdown(name)} |\n|---|\n| {escape.markdown(name)} |\n"
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = [token.children for token in parser.parse(text) if token.type == "inline"]
    assert ["".join(part.content for part in parts) for parts in found] == [escape.printable(name)] * 3
    assert {part.type for parts in found for part in parts} <= {"text", "text_special"}


@pytest.fixture(params=[name for name in CASES if "\ud800" not in name], ids=ascii)
def named(request, tmp_path):
    """A name, and a table in which the dataset, an algorithm and an environment have it."""
    name = request.param
    for algorithm in (name, "ERM"):
        lines = sweep_folder.records(
            [[0.5, 0.6]], [[0.5] * 2], dataset=name, algorithm=algorithm, environments=[name, "b"]
        )
        sweep_folder.write(tmp_path, lines, name=f"run{algorithm == name}")
    return name, tables.build(load_records(tmp_path).records, "training-domain", labels={})


def test_text(named):
    name, table = named
    lines = render.text(table).splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith(f"-------- Dataset: {escape.printable(name)},")
    below = next(at for at, line in enumerate(lines) if "model selection method: " in line) + 2  # the head is between
    assert [line.rpartition("50.0")[0].strip() for line in lines[below : below + 2]] == ["ERM", escape.printable(name)]


def test_markdown(named):
    name, table = named
    lines = render.markdown(table).splitlines()
    assert lines[2] == f"## {escape.markdown(name)}"
    assert lines[4].split(" | ")[1].strip() == escape.markdown(name)
    assert lines[7].startswith(f"| {escape.markdown(name)} ")
    assert lines[9].startswith(f"{escape.markdown(name)}, held-out environment: ")


def test_latex(named):
    name, table = named
    lines = render.latex(table).splitlines()
    assert lines[3].startswith(f"\\caption{{{escape.latex(name)}, held-out")
    assert lines[4] == f"\\label{{{escape.latex_label(f'tab:training-domain:{name}')}}}"
    assert lines[8] == f"Algorithm & {escape.latex(name)} & b & Avg \\\\"
    protection = "{}" * name.startswith(("[", "*"))  # else LaTeX reads it as an argument of the line break before
    assert lines[11].startswith(f"{protection}{escape.latex(name)} & ")
    assert len(lines[12:]) > 10
    assert all(line.isprintable() for line in lines)


def test_csv(named):
    name, table = named
    again = pd.read_csv(io.StringIO(render.csv(table)))
    for column in ("dataset", "env_name"):
        assert set(again[column]) == {escape.printable(name)}
    assert set(again["algorithm"]) == {escape.printable(name), "ERM"}
    comparison = pd.read_csv(io.StringIO(paper.csv(paper.compare(table, []))))
    assert {escape.printable(name), "ERM"} <= set(comparison["algorithm"])


def pictures(table, records, names):
    """The pages of dots and of curves."""
    drawn = looks.looks(table.averages.cells.index)
    means = progress.means(progress.of_runs(records, names))
    return dots.draw(table, drawn), curves.draw(means, names, drawn)


def test_pictures(named, tmp_path):
    name, table = named
    printed = escape.printable(name)
    pages = pictures(table, load_records(tmp_path).records, {name: [name, "b"]})
    for (page,), expected in zip(pages, ({printed: 3}, {f"held out: {printed}": 1, printed: 2}), strict=True):
        texts = page.findobj(matplotlib.text.Text)
        shown = [text.get_text() for text in texts]
        assert all(shown.count(text) >= times for text, times in expected.items())
        assert not any(text.get_parse_math() or text.get_usetex() for text in texts if printed in text.get_text())


@pytest.mark.parametrize("name", ["$a", "$a$", "$\\frac{$", "_a", "", "a" * 500, "two\nlines"], ids=ascii)
def test_pictures_are_drawn(name, tmp_path):
    sweep_folder.write(tmp_path, sweep_folder.records([[0.5, 0.6]], [[0.5] * 2], algorithm=name), name="run")
    table = tables.build(load_records(tmp_path).records, "training-domain", labels={})
    ((page,), (other,)) = pictures(table, load_records(tmp_path).records, {"PACS": ["a", "b"]})
    assert picture.written(page).startswith(b"\x89PNG")
    assert picture.written(other).startswith(b"\x89PNG")


def test_long_names_leave_room():
    assert picture.shortened("a" * 32) == "a" * 32
    assert picture.shortened("a" * 20 + "b" * 20) == "a" * 16 + "…" + "b" * 15
    assert len(picture.shortened("\n" * 20)) == 32


def test_characters_that_no_font_has_are_remarked_once(tmp_path, caplog):
    sweep_folder.write(tmp_path, sweep_folder.records([[0.5] * 2], [[0.5] * 2], algorithm="\U000ae000我"), name="run")
    table = tables.build(load_records(tmp_path).records, "training-domain", labels={})
    with caplog.at_level(logging.WARNING):
        picture.written(dots.draw(table, looks.looks(table.averages.cells.index))[0])
    assert sum("lack characters of some names" in line for line in caplog.messages) == 1


def test_wide_characters_are_aligned():
    strings = pd.DataFrame([["1", "2"], ["3", "4"]], pd.Index(["我们", "ab"], name="Algorithm"), ["x", "y"])
    assert render.text_grid(strings) == "Algorithm  x  y\n我们       1  2\nab         3  4"


def test_cells_are_not_taken_for_numbers():
    strings = pd.DataFrame([["1e3", "010"]], pd.Index(["0123"], name="Algorithm"), ["2010", "1e5"])
    assert render.text_grid(strings) == "Algorithm  2010  1e5\n0123       1e3   010"
    assert "1e3" in render.markdown_grid(strings)
    assert "010" in render.markdown_grid(strings)
