"""Flags in both spellings, and what is said of those that are not known."""

import argparse

import pytest

from domainbed_sage.cli import COMMANDS, main, make_parser
from domainbed_sage.cli.parser import Parser


@pytest.fixture
def parser():
    made = Parser("prog")
    made.add_argument("--output_dir")
    made.add_argument("--mem-gb", type=int)
    made.add_argument("rest", nargs="*")
    return made


@pytest.mark.parametrize("words", [["--output-dir", "a"], ["--output_dir", "a"], ["--output-dir=a"], ["--output", "a"]])
def test_both_spellings(parser, words):
    assert parser.parse_args(words).output_dir == "a"


def test_both_spellings_of_a_flag_with_hyphens(parser):
    assert parser.parse_args(["--mem_gb", "3"]).mem_gb == 3


def test_words_after_two_hyphens_and_values_are_left_alone(parser):
    found = parser.parse_args(["--output_dir=--mem_gb", "--", "--output-dir"])
    assert (found.output_dir, found.rest) == ("--mem_gb", ["--output-dir"])


def test_the_help_shows_a_flag_once(parser):
    assert "--output-dir" not in parser.format_help()
    assert parser.format_help().count("--output_dir") == 2  # usage, and its line


def leaves(parser, prefix=()):
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield prefix, parser
    for name, below in (nested[0].choices if nested else {}).items():
        yield from leaves(below, (*prefix, name))


def test_every_flag_of_every_command_has_one_meaning_in_both_spellings():
    """Two flags that differ in - and _ only could not be told apart."""
    found = dict(leaves(make_parser([name for name, *_ in COMMANDS])))
    assert len(found) > 20
    for words, parser in found.items():
        assert isinstance(parser, Parser)
        flags = [flag.replace("_", "-") for flag in parser._option_string_actions]
        assert len(set(flags)) == len(flags), words


@pytest.mark.parametrize(
    ("words", "usage", "said"),
    [
        (["train", "--output-dirr", "x"], "domainbed-sage train ", "--output-dirr x. Did you mean '--output_dir'?"),
        (["sweep", "launch", "demo", "--mem=3", "--partitoin=x"], "domainbed-sage sweep launch ", "'--partition'?"),
        (["train", "--zzz"], "domainbed-sage train ", "unrecognized arguments: --zzz.\n"),
        (["swep"], "domainbed-sage [-h]", "Did you mean 'sweep'?"),
        (["sweep", "lst", "demo"], "domainbed-sage sweep ", "Did you mean 'list'?"),
        (["table", "x", "--selection", "orcale"], "domainbed-sage table ", "Did you mean 'oracle'?"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_mistakes_are_explained_with_the_usage_of_the_subcommand(capsys, words, usage, said):
    with pytest.raises(SystemExit) as stop:
        main(words)
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.startswith(f"usage: {usage}")
    assert said in err


def test_two_hyphens_as_a_value(parser):
    """argparse makes an empty list of it, which no option expects."""
    found = parser.parse_args(["--output_dir=--", "--", "--"])
    assert (found.output_dir, found.rest) == ("--", ["--"])
