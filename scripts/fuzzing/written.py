"""What people write by hand: sweep files, site files, and hyperparameters."""

import argparse
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from domainbed_sage.algorithms import algorithms
from domainbed_sage.config import declared_hparams, make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import parse_json
from domainbed_sage.core.resources import shipped
from domainbed_sage.sweeps import sweep
from domainbed_sage.sweeps.cluster import site
from domainbed_sage.sweeps.name import read_name
from fuzzing.damage import DEEP, VALUES, Bytes, damaged_text, fragments, names, values
from fuzzing.reader import Reader, repeats

MOST_RUNS = 500  # of a sweep: planning as many as are allowed takes longer than an example may
MODELS = ("small_cnn", "clip_vit_b16", "timm", "tf_efficientnet_lite0")


def structured(model: Any, good: dict[str, Any]) -> Bytes:
    """Settings of a model by name with invented values, beside some good ones."""
    invented = st.dictionaries(st.sampled_from(tuple(model.model_fields)) | names(), values(), max_size=4)

    def write(new: dict[str, Any], keep: bool, escaped: bool) -> bytes:
        text = json.dumps({**(good if keep else {}), **new}, ensure_ascii=escaped)
        return text.encode("utf-8", "surrogatepass")

    return st.builds(write, invented, st.booleans(), st.booleans())


def files_like(text: str, model: Any, good: dict[str, Any]) -> Bytes:
    """Files of settings: damaged, invented, and no files of settings at all."""
    encoded = st.tuples(st.text(), st.sampled_from(("utf-8", "utf-16", "latin-1"))).map(
        lambda pair: pair[0].encode(pair[1], "replace")
    )
    pieces = fragments().map(str.encode)
    return st.one_of(damaged_text(text), structured(model, good), pieces, encoded, st.binary(max_size=200))


def _read_sweep(content: bytes, folder: Path) -> None:
    path = folder / "s.yaml"
    path.write_bytes(content)
    with suppress(UserError):
        read_name(path)
    with mock.patch.object(sweep, "MOST_RUNS", MOST_RUNS):
        sweep.read_sweep(path).planned()


def _read_site(content: bytes, folder: Path) -> None:
    path = folder / "s.yaml"
    path.write_bytes(content)
    parser = argparse.ArgumentParser()
    site.add_arguments(parser)
    site.from_arguments(parser.parse_args(["--site", str(path)])).sbatch("name")


_GOOD_SWEEP = {"name": "s", "datasets": ["PACS"], "algorithms": {"ERM": {}, "a": {"algorithm": "SAGE"}}, "trials": 1}


def _hparams() -> st.SearchStrategy[tuple[str, str, str]]:
    def of(parts: tuple[str, str]) -> st.SearchStrategy[tuple[str, str, str]]:
        known = st.sampled_from([*declared_hparams("EmojiStyles", *parts, "adam"), "other"])
        numbers = st.integers(-2, 300) | st.floats(0, 1) | st.just(10**400) | st.just(float("nan"))
        pairs = st.lists(st.tuples(known, numbers | VALUES), max_size=4)
        written = pairs.map(
            lambda pairs: "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
        )
        texts = written | DEEP.map(bytes.decode) | st.text(max_size=20) | fragments()
        return texts.map(lambda text: (*parts, text))

    return st.tuples(st.sampled_from(sorted(algorithms)), st.sampled_from(MODELS)).flatmap(of)


def _read_hparams(example: tuple[str, str, str], folder: Path) -> None:
    del folder
    algorithm, model, text = example
    given = parse_json(text)
    config = make_config(dataset="EmojiStyles", algorithm=algorithm, model=model, test_envs=["0"], hparams=given)
    assert not repeats(text or "{}"), "of two values of one name, one was dropped"
    _assert_taken(given, config.hparams)
    assert len(config.run_id) == 12


def _assert_taken(given: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    assert given.items() <= taken.items(), "a value was changed"
    numbers = [value for value in taken.values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers)), "a number that is not finite was taken"


_GOOD_SWEEP = {"name": "s", "datasets": ["PACS"], "algorithms": {"ERM": {}, "a": {"algorithm": "SAGE"}}, "trials": 1}
READERS = (
    Reader(
        "sweep", files_like(shipped("sweeps/demo.yaml").read_text(), sweep.Sweep, _GOOD_SWEEP), _read_sweep, few=100
    ),
    Reader("site", files_like(shipped("sweeps/cluster/a100_mig.yaml").read_text(), site.Site, {}), _read_site, few=100),
    Reader("hparams", _hparams(), _read_hparams),
)
