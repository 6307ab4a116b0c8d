"""Names of files and folders, and texts beside them, in any alphabet and under any locale."""

import os
import shutil
import subprocess
import sys

import pytest
from generated_trees import few, plant

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import corrupt
from domainbed_sage.data.acquire import manifest
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.specs import datasets

LATIN = os.fsdecode(b"b\xfcro.jpg")  # a name that is no UTF-8
ENVIRONMENTS = ("art", "photo", "sketch")


@pytest.fixture
def root(tmp_path):
    counts = {e: {"cat": 3, "dog": 3} for e in ENVIRONMENTS}
    return plant(tmp_path / "own", counts, same=False)


def test_one_name_in_two_unicode_forms(root):
    for environment in ENVIRONMENTS:
        form = "cafe\u0301" if environment == "photo" else "caf\u00e9"
        (root / environment / "cat").rename(root / environment / form)
    with pytest.raises(UserError) as caught:
        read_folders(root, "Own")
    assert r"'cafe\u0301' and 'caf\xe9' are the same name café in two Unicode forms; rename one" in str(caught.value)


@pytest.mark.parametrize("place", ["photo", "photo/dog"])
def test_environments_and_classes_have_names_in_utf8(root, place):
    (root / place).rename((root / place).with_name(os.fsdecode(b"b\xfcro")))
    with pytest.raises(UserError, match="has a name that is no UTF-8, and goes into records and prompts; rename it"):
        read_folders(root, "Own")


def test_files_may_have_names_in_any_alphabet(tmp_path, capsys):
    """Read, checked, listed, stored resized, left out and trained on; nothing is encoded that cannot be."""
    root = plant(tmp_path / "PACS", few(datasets["PACS"]), "a few", same=False)
    folder = root / "photo" / "dog"
    (folder / "pic_00000.jpg").rename(folder / LATIN)
    for action in ("manifest", "cache", "check"):
        assert cli.main(["data", action, "PACS", "--data_dir", str(tmp_path)]) == 0, action
    assert b"photo/dog/b\xfcro.jpg," in (root / "MANIFEST.csv").read_bytes()
    assert "all 56 files are those of" in " ".join(capsys.readouterr().out.split())
    (folder / LATIN).write_bytes(b"")
    (root / "MANIFEST.csv").unlink()
    assert cli.main(["data", "check", "PACS", "--data_dir", str(tmp_path), "--leave_out"]) == 0
    assert (root / corrupt.FILE).read_bytes() == b"photo/dog/b\xfcro.jpg\n"
    command = "train --dataset PACS --model small_cnn --steps 1 --device cpu --skip_model_save --data_dir"
    hparams = ["--hparams", '{"width": 8, "batch_size": 2, "corrupt": "leave_out"}', "--holdout_fraction", "0.5"]
    assert cli.main([*command.split(), str(tmp_path), *hparams, "--output_dir", str(tmp_path / "run")]) == 0
    assert r"photo/dog/b\udcfcro.jpg" in (tmp_path / "run" / "results.jsonl").read_text()


def test_a_list_of_names_with_line_breaks_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Rename '.*a\\nb\.jpg', which has a line break"):
        corrupt.write(tmp_path, ["photo/dog/a\nb.jpg"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"gr\xf6\xdfe", "größe".encode("utf-16")])
def test_texts_are_in_utf8(root, content):
    (root / "SUBSET.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"SUBSET.txt should be a text in UTF-8 \(.*\)\. Save it as UTF-8"):
        read_folders(root, "Own")
    (root / "SUBSET.txt").write_bytes("größe".encode("utf-8-sig"))
    assert read_folders(root, "Own").variant == "subset: größe"


def facts(root, place):
    """What is read, and the bytes of what is written."""
    dataset = read_folders(root, "Own")
    manifest.write(manifest.build(root, ENVIRONMENTS), place / "manifest")
    corrupt.write(place, [f"art/{dataset.environments[0].keys[0]}"])
    written = [(place / name).read_bytes() for name in ("manifest", corrupt.FILE)]
    return ascii([dataset.classes, dataset.variant, dataset.notes, *written])


def test_the_locale_changes_nothing(root, tmp_path):
    """Not the classes, notes, manifests and lists, where Python takes the names of files for ISO 8859-1."""
    compiled = ["localedef", "-f", "ISO-8859-1", "-i", "en_US", str(tmp_path / "en_US.ISO-8859-1")]
    if not shutil.which("localedef") or subprocess.run(compiled, capture_output=True).returncode:
        pytest.skip("this needs localedef and the definitions of locales")
    for environment in ENVIRONMENTS:
        (root / environment / "cat").rename(root / environment / "café")
        (root / environment / "café" / "pic_00000.jpg").rename(root / environment / "café" / "bär.jpg")
    (root / "PREPARED.json").write_bytes('{"notes": ["schön"]}'.encode())
    (root / "SUBSET.txt").write_bytes("größe".encode())
    program = "import sys, test_file_names; from pathlib import Path; print(sys.getfilesystemencoding())"
    program += "; print(test_file_names.facts(*map(Path, sys.argv[1:])))"
    environ = os.environ | {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program, root, tmp_path], env=environ, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.stdout.splitlines()[:1] == ["iso8859-1"], done.stderr
    assert done.stdout.splitlines()[1] == facts(root, tmp_path)
    assert (tmp_path / corrupt.FILE).read_bytes() == "art/café/bär.jpg\n".encode()
