"""Sweep files of a few lines, for the tests of their readers."""

import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.sweep import read_sweep

SMALL = "name: s\ndatasets: [EmojiStyles]\nalgorithms: [ERM]\n"


def read(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_sweep(path)


def runs(tmp_path, text):
    return read(tmp_path, text).runs()


def message(tmp_path, text):
    """What is wrong with a sweep file, whether it is found in the file or in its runs."""
    with pytest.raises(UserError) as caught:
        runs(tmp_path, text)
    return str(caught.value)
