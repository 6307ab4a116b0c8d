"""BibTeX of what results rest on: every algorithm and dataset has an entry that agrees with what it says itself."""

import json
import re
from types import SimpleNamespace

import pytest
from bibtex import first_family, parse

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.solvers import solvers
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.data.specs import datasets
from domainbed_sage.results import references

ENTRIES = parse(references._read("references.bib"))
KINDS = ("algorithms", "datasets", "solvers")
ALWAYS = references.mapping()["always"]


def all_datasets():
    return [*datasets.items(), *task_datasets.items()]


def stated():
    """Of every algorithm, and every dataset with a citation: kind, name, and what it says of its source."""
    of_algorithms = [("algorithms", name, cls.paper) for name, cls in algorithms.items()]
    of_solvers = [("solvers", name, cls.paper) for name, cls in solvers.items() if cls.paper]
    cited = [("datasets", name, spec.citation) for name, spec in all_datasets() if spec.citation]
    return of_algorithms + of_solvers + cited


def test_every_algorithm_and_dataset_has_an_entry():
    mapping = references.mapping()
    assert list(mapping["algorithms"]) == list(algorithms)
    for known in (datasets, task_datasets):
        assert [name for name in mapping["datasets"] if name in known] == list(known)
    assert set(mapping["datasets"]) == {*datasets, *task_datasets}
    assert list(mapping["solvers"]) == [name for name, cls in solvers.items() if cls.paper]
    keys = [key for kind in KINDS for own in mapping[kind].values() for key in own]
    assert all(own for kind in KINDS for own in mapping[kind].values())
    assert {*ALWAYS, *keys} == set(ENTRIES)


@pytest.mark.parametrize(("kind", "name", "source"), stated(), ids=lambda value: value.replace(" ", "_"))
def test_first_author_and_year_agree(kind, name, source):
    entry = ENTRIES[references.mapping()[kind][name][0]]
    assert re.match(r"[^ ,:]+", source)[0] == first_family(entry["author"])
    assert source[-4:] == entry["year"]


@pytest.mark.parametrize(("name", "citation"), [(n, s.citation) for n, s in all_datasets() if s.citation])
def test_title_and_authors_of_datasets_agree(name, citation):
    authors, title, _ = re.fullmatch(r"(.*?): (.*)\. ([^.]*)", citation).groups()
    entry = ENTRIES[references.mapping()["datasets"][name][0]]
    authors = authors.replace(" et al.", ", others").replace(" et al", ", others")
    assert authors.split(", ") == [author.split(",")[0] for author in entry["author"].split(" and ")]
    assert entry["title"].replace("{", "").replace("}", "").startswith(title)


def test_entries_are_split_as_a_parser_splits_them():
    assert {key: parse(entry + "\n")[key] for key, entry in references.entries().items()} == ENTRIES


def test_without_names_it_is_the_suite_the_paper_and_the_protocol():
    assert list(parse(references.bibtex())) == ALWAYS


def test_each_entry_once_in_order_of_the_names_with_what_it_is_for():
    text = references.bibtex(["GGA_L", "ERM", "GGA", "SAGE", "ERM"], ["VLCS", "EmojiStyles"])
    mapping = references.mapping()
    keys = [mapping["algorithms"]["GGA"][0], mapping["algorithms"]["ERM"][0], mapping["datasets"]["VLCS"][0]]
    assert list(parse(text)) == [*ALWAYS, *keys]
    comments = [line for line in text.splitlines() if line.startswith("%")]
    assert comments == ["% EmojiStyles", "% SAGE", "% GGA_L, GGA", "% ERM", "% VLCS"]


def test_what_has_no_entry_is_a_comment():
    text = references.bibtex(["Mine", "Theirs"], ["Cams"], {"Theirs": "Roe, ICLR 2027", "Mine": ""})
    assert text.splitlines()[-5:] == [
        f"% Mine: {references.UNKNOWN}",
        "",
        "% Theirs: Roe, ICLR 2027 (no BibTeX entry here)",
        "",
        f"% Cams: {references.UNKNOWN}",
    ]
    assert list(parse(text)) == ALWAYS


def test_no_name_becomes_an_entry():
    text = references.bibtex(["a@misc{b,\n}"])
    assert list(parse(text)) == ALWAYS
    assert f"% a(at)misc{{b,\\n}}: {references.UNKNOWN}" in text


def run(algorithm, dataset, hparams=None):
    return SimpleNamespace(algorithm=algorithm, dataset=dataset, hparams=json.dumps(hparams))


def test_what_runs_use():
    runs = [run("SWAD", "PACS", {"around": "SAM"}), run("ERM", "VLCS", {"around": 3}), run("SWAD", "PACS")]
    assert references.used(runs) == (["SWAD", "SAM", "ERM"], ["PACS", "VLCS"])
