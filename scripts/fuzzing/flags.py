"""The command line: invented values of every option of every command. Nothing is trained, submitted or downloaded."""

import argparse
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from domainbed_sage import cli
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import download, hub
from domainbed_sage.models import weights
from domainbed_sage.sweeps import local
from domainbed_sage.training import train
from fuzzing.reader import Reader, silent

NUMBERS = ("-1", "0", "1", "2", "7", "0.5", "-0.5", "1e400", "nan", "inf", "1_0", "9" * 30, "9" * 5000, str(2**63))
TEXTS = (
    "",
    " ",
    "é",
    os.fsdecode(b"\xfc"),
    "a\nb",
    "x" * 300,
    "~nobody/x",
    "-",
    "--",
    "$HOME",
    "%",
    "{}",
    '{"lr": 1e-3}',
)
GOOD = ("EmojiStyles", "ERM", "SAGE", "small_cnn", "adam", "noto", "0", "cpu", "s.yaml", "r", ".", "in", "all", "none")
PLACES = ("no/such", "s.yaml/x", "/dev/null", "/proc/nothing", "pipe", "empty")
VALUES = st.sampled_from([*NUMBERS, *TEXTS, *GOOD * 2, *PLACES]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
)
USUAL = {  # what a command needs to get anywhere
    ("train",): ["--model", "small_cnn", "--steps", "2", "--output_dir", "out"],
    ("evaluate",): ["r/run"],
    ("table",): ["r"],
    ("verify",): ["s.yaml"],
    ("list",): ["models"],
    ("completion",): ["bash"],
    **{("sweep", action): ["s.yaml", "--output_dir", "out"] for action in ("list", "plan", "run", "launch", "status")},
    ("sweep", "retry"): ["s.yaml", "--failed", "--output_dir", "out"],
    ("sweep", "cancel"): ["s.yaml", "--output_dir", "out"],
    ("sweep", "logs"): ["s.yaml", "ERM-env0", "--output_dir", "out"],
    **{("data", action): ["PACS"] for action in ("download", "check", "manifest", "prepare", "cache")},
    **{("weights", action): ["none"] for action in ("download", "check")},
}


def _commands() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Every command that has no commands below it."""
    found = {}

    def look(way: tuple[str, ...], parser: argparse.ArgumentParser) -> None:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for action in below:
            for name, inner in action.choices.items():
                look((*way, name), inner)
        if not below:
            found[way] = parser

    look((), cli.make_parser([name for name, *_ in cli.COMMANDS]))
    return found


def lines(only: Sequence[tuple[str, ...]] = ()) -> st.SearchStrategy[list[str]]:
    """Command lines of all commands, or of these only; a command comes as often as it has something to give."""

    def of(way: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
        options = [action for action in commands[way]._actions if action.option_strings and action.dest != "help"]
        words = st.one_of(*map(_words, options)) if options else st.just([])
        given = st.lists(words, max_size=3).map(lambda found: [word for words in found for word in words])
        free = st.lists(VALUES, max_size=2)
        usual = st.sampled_from([USUAL.get(way, [])] * 8 + [[]])
        return st.builds(lambda usual, given, free: [*way, *usual, *given, *free], usual, given, free | st.just([]))

    commands = _commands()
    ways = [way for way in only or sorted(commands) for _ in commands[way]._actions]
    return st.sampled_from(ways).flatmap(of)


def _words(action: argparse.Action) -> st.SearchStrategy[list[str]]:
    most = 0 if action.nargs == 0 else 3 if action.nargs in ("+", "*") else 1
    known = st.sampled_from([str(choice) for choice in action.choices]) if action.choices else VALUES
    joined = st.tuples(st.sampled_from(action.option_strings), VALUES).map("=".join).map(lambda word: [word])
    values = st.lists(VALUES | known | known, min_size=min(most, 1), max_size=most)
    return st.builds(lambda name, values: [name, *values], st.sampled_from(action.option_strings), values) | joined


class Reached(UserError):  # noqa: N818 - reads as what it is
    """The arguments were accepted, and the work would begin."""


def _build(config: RunConfig, machine: Machine) -> Any:
    assert config.steps >= 1
    assert config.checkpoint_freq >= 1
    assert 0 < config.holdout_fraction < 1
    assert machine.num_workers >= 0
    assert all(-(2**63) <= seed < 2**63 for seed in (config.seed, config.trial_seed, config.hparams_seed))
    raise Reached("the run begins")


def _pool(jobs: int, *_: Any, **__: Any) -> Any:
    assert jobs >= 1
    raise Reached("the runs begin")


def _interrupt(seconds: float) -> None:
    assert seconds > 0
    raise KeyboardInterrupt


def _refuse(*_: Any, **__: Any) -> Any:
    raise UserError("no network")


@contextmanager
def _harmless(folder: Path) -> Iterator[None]:
    """Nothing is started, and nothing outside of the folder is reached."""
    variables = {"PATH": str(folder / "empty"), "HOME": str(folder), "DOMAINBED_WEIGHTS_DIR": str(folder / "weights")}
    with ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(mock.patch.dict(os.environ, variables))
        for place, name, instead in (
            (train, "build", _build),
            (local, "ProcessPoolExecutor", _pool),
            (weights, "_sources", lambda name: []),
            (download, "fetch", _refuse),
            (hub, "find", _refuse),
            (time, "sleep", _interrupt),
            (download, "fetch_drive", _refuse),
            (socket.socket, "connect", _refuse),
        ):
            stack.enter_context(mock.patch.object(place, name, instead))
        yield


def _plant(folder: Path) -> None:
    (folder / "s.yaml").write_text("{name: s, datasets: [EmojiStyles], algorithms: [ERM], model: small_cnn, trials: 1}")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    run = folder / "r" / "run"
    run.mkdir(parents=True)
    args = {"dataset": "EmojiStyles", "algorithm": "ERM", "test_envs": [0], "trial_seed": 0, "hparams_seed": 0}
    accuracies = {f"env{i}_{half}_acc": 0.5 for i in range(4) for half in ("in", "out")}
    (run / "results.jsonl").write_text(json.dumps({"step": 0, "loss": 1.0, "args": args} | accuracies) + "\n")
    (run / "done").write_text("done")


def _read_flags(words: Sequence[str], folder: Path) -> None:
    _plant(folder)
    with _harmless(folder), silent() as printed:
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    assert status in (0, 1, 2, 3, cli.INTERRUPTED), f"status {status}"
    assert status in (0, 3) or printed.getvalue().strip(), "refused without a word"


READERS = (Reader("flags", lines(), _read_flags),)
