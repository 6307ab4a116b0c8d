"""`domainbed-sage paper`: what is said on the command line reaches every part."""

from importlib import import_module
from pathlib import Path

import pytest

from domainbed_sage.cli import main
from domainbed_sage.cli.paper import PARTS


@pytest.mark.parametrize(("part", "module"), [(name, module) for name, module, _ in PARTS])
def test_options_reach_the_part(monkeypatch, part, module):
    seen = []
    monkeypatch.setattr(import_module(module), "run", lambda folder, **options: seen.append((folder, options)) or 0)
    assert main(["paper", part]) == 0
    assert main(["paper", part, "--seed", "3", "--quick", "--json", "--output_dir", "x"]) == 0
    assert seen == [
        (Path("results/paper_check"), {"seed": 0, "quick": False, "as_json": False}),
        (Path("x"), {"seed": 3, "quick": True, "as_json": True}),
    ]


@pytest.mark.parametrize(
    ("words", "said"), [([], "PART"), (["audit", "--seed", "-1"], "--seed"), (["audit", "--seed", "1.5"], "--seed")]
)
def test_what_is_refused(capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        main(["paper", *words])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
