"""Colours are for terminals whose user wants them."""

import pytest

from domainbed_sage.cli import main


@pytest.mark.parametrize(("no_colour", "coloured"), [(None, True), ("1", False)])
def test_no_color_is_honoured(capsys, monkeypatch, tmp_path, no_colour, coloured):
    """https://no-color.org; FORCE_COLOR stands for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", no_colour)
    assert main(["sweep", "status", "demo", "--output_dir", str(tmp_path)]) == 0
    assert ("\x1b[" in capsys.readouterr().out) == coloured
