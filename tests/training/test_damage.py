"""Whatever happens to a file that a run reads again: it is read as it was written, set aside, or refused in words."""

import logging
import re
import shutil
import threading

import pytest
import torch
from fuzzing import run_files as fuzz_files
from fuzzing.damage import DAMAGES, Damage, damaged
from fuzzing.run_files import same
from helpers import assert_same, records, run, small_config
from hypothesis import HealthCheck, given, settings

from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.training import checkpoint, notes, ownership
from domainbed_sage.training.run_folder import RunFolder

FEW = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def states(stopped):
    return {name: checkpoint.read(stopped / name) for name in ("checkpoint.pt", "checkpoint.previous.pt")}


def without_seal(path):
    """As earlier versions wrote it."""
    state = checkpoint.read(path)
    for key in ("run_id", "sealed"):
        state.pop(key, None)
    del state["algorithm"]["perturbation_cosine"]
    torch.save(state, path)


def third_entry(content):
    at = -1
    for _ in range(6):
        at = content.index(b"PK\x01\x02", at + 1)
    return at


# The seal


def test_a_checkpoint_is_what_was_written(states, stopped):
    assert states["checkpoint.pt"]["step"] == 4
    assert states["checkpoint.previous.pt"]["step"] == 3
    assert not same(states["checkpoint.pt"], states["checkpoint.previous.pt"])
    content = (stopped / "checkpoint.pt").read_bytes()
    assert re.fullmatch(rb"\nsha256 [0-9a-f]{64}\n", content[-73:])
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["step"] == 4  # other tools read past it


@pytest.mark.parametrize(("offset", "bit"), [(34, 4), (38, 0x10)], ids=["disk number", "directory attribute"])
def test_a_bit_of_the_archives_directory(begun, undisturbed, caplog, offset, bit):
    """No checksum of the archive covers it: PyTorch refused the file at every start, or read nothing in its place."""
    content = bytearray((begun / "checkpoint.pt").read_bytes())
    content[third_entry(content) + offset] ^= bit
    (begun / "checkpoint.pt").write_bytes(content)
    with caplog.at_level(logging.INFO):
        run(small_config(), begun)
    assert any(
        "checkpoint.pt is damaged (wrong checksum); taking the checkpoint before it" in m for m in caplog.messages
    )
    assert "Continuing at step 3." in caplog.messages
    assert_same(begun, undisturbed)


@FEW
@given(damage=DAMAGES)
def test_any_damage_is_seen(stopped, states, damage):
    whole = (stopped / "checkpoint.pt").read_bytes()
    fuzz_files.check_checkpoint(whole, states["checkpoint.pt"], damage)


def test_every_bit_of_the_end(stopped, states, tmp_path):
    """The directory's end and the seal, where a flipped bit may hide the seal itself."""
    whole = (stopped / "checkpoint.pt").read_bytes()
    for at in range(len(whole) - 130, len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        (tmp_path / "checkpoint.pt").write_bytes(flipped)
        with pytest.raises(checkpoint.Damaged, match=r"wrong checksum|its checksum is missing"):
            checkpoint.read(tmp_path / "checkpoint.pt")
    for size in (1, 72, 73):
        (tmp_path / "checkpoint.pt").write_bytes(whole[:-size])
        with pytest.raises(checkpoint.Damaged, match="its checksum is missing"):
            checkpoint.read(tmp_path / "checkpoint.pt")


@settings(FEW, max_examples=25)
@given(damage=DAMAGES)
def test_a_restart_finds_one_of_the_states(stopped, states, tmp_path_factory, damage):
    folder = shutil.copytree(stopped, tmp_path_factory.mktemp("restart") / "run")
    name = "checkpoint.pt"
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), damage))
    with (owned := RunFolder(folder)).locked():
        owned.claim(small_config())
        found = owned.restore()
    assert any(same(found, state) for state in states.values())
    assert len(records(folder)) == found["recorded"]


@pytest.mark.parametrize("kept", [False, True])
def test_both_are_damaged(begun, undisturbed, caplog, kept):
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        content = (begun / name).read_bytes()
        (begun / name).write_bytes(bytes(len(content)) if kept else b"")
    with caplog.at_level(logging.WARNING):
        run(small_config(), begun)
    assert "checkpoint.previous.pt is damaged" in caplog.text
    assert "starting over from step 0" in caplog.text
    assert_same(begun, undisturbed)


def test_a_bad_block_of_the_disk(begun, undisturbed, monkeypatch, caplog):
    """EIO is damage; trouble with the way to the disk is not, and costs no checkpoint."""
    sealed = checkpoint._is_sealed

    def with_error(number):
        def call(path):
            if path.name == "checkpoint.pt":
                raise OSError(number, "the words of the system")
            return sealed(path)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_is_sealed", with_error(116))
        with pytest.raises(
            UserError, match=r"Cannot read .*checkpoint\.pt: the words of the system\. The disk, or the"
        ):
            run(small_config(), begun)
        assert (begun / "checkpoint.pt").exists()
        patch.setattr(checkpoint, "_is_sealed", with_error(5))
        run(small_config(), begun)
    assert "checkpoint.pt is damaged (the words of the system); taking" in caplog.text
    assert_same(begun, undisturbed)


# Checkpoints of earlier versions


def test_a_checkpoint_of_an_earlier_version(begun, undisturbed, caplog):
    without_seal(begun / "checkpoint.pt")
    with caplog.at_level(logging.INFO):
        run(small_config(), begun)
    assert "Continuing at step 4." in caplog.messages
    assert_same(begun, undisturbed)


@FEW
@given(damage=DAMAGES)
def test_a_damaged_one_of_an_earlier_version(stopped, tmp_path_factory, damage):
    path = tmp_path_factory.getbasetemp() / "old.pt"
    if not path.exists():
        shutil.copy(stopped / "checkpoint.pt", path)
        without_seal(path)
    fuzz_files.check_old_checkpoint(path.read_bytes(), damage)


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_bit_of_a_tensor_of_an_earlier_version(begun, undisturbed, caplog, position):
    without_seal(begun / "checkpoint.pt")
    content = (begun / "checkpoint.pt").read_bytes()
    (begun / "checkpoint.pt").write_bytes(damaged(content, Damage("flip", "anywhere", position, b"0")))
    run(small_config(), begun)
    assert re.search(r"checkpoint\.pt is damaged \(\w+/data/\d+ has a wrong checksum\); taking", caplog.text)
    assert_same(begun, undisturbed)


@pytest.mark.parametrize("content", [[1], {"model": torch.zeros(1)}, {"step": "4"}, torch.zeros(1)])
def test_a_file_of_another_kind(begun, undisturbed, caplog, content):
    """Somebody's weights, for instance, under the name of a checkpoint."""
    torch.save(content, begun / "checkpoint.pt")
    run(small_config(), begun)
    assert "checkpoint.pt is damaged (it holds no state of a run); taking the checkpoint before it" in caplog.text
    assert_same(begun, undisturbed)


def test_one_of_an_earlier_version_that_pytorch_refuses(begun, undisturbed, caplog):
    without_seal(begun / "checkpoint.pt")
    content = bytearray((begun / "checkpoint.pt").read_bytes())
    content[third_entry(content) + 34] ^= 4
    (begun / "checkpoint.pt").write_bytes(content)
    run(small_config(), begun)
    assert "checkpoint.pt is damaged (PytorchStreamReader failed" in caplog.text
    assert_same(begun, undisturbed)


# Of another run


def test_a_checkpoint_of_another_run(begun, undisturbed, tmp_path):
    other, stop = small_config(seed=7, hparams={"lr": 0.5}), threading.Event()
    stop.set()
    for _ in range(4):
        with pytest.raises(Stopped):
            run(other, tmp_path / "other", stop=stop)
    own = (begun / "checkpoint.pt").read_bytes()
    shutil.copy(tmp_path / "other" / "checkpoint.pt", begun)
    message = rf"checkpoint\.pt belongs to run {other.run_id}, and its folder to run {small_config().run_id}\. It may"
    with pytest.raises(UserError, match=message):
        run(small_config(), begun)
    (begun / "checkpoint.pt").write_bytes(own)
    assert_same(run(small_config(), begun), undisturbed)


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_records_of_another_run(begun, undisturbed, tmp_path, with_checkpoint):
    own = (begun / "results.jsonl").read_bytes()
    other = run(small_config(seed=7, hparams={"lr": 0.5}), tmp_path / "other")
    shutil.copy(other / "results.jsonl", begun)
    if not with_checkpoint:
        (begun / "checkpoint.pt").unlink()
        (begun / "checkpoint.previous.pt").unlink()
    message = r"results\.jsonl, record 1, belongs to another run; it differs in: (?=.*seed 7 → 0)(?=.*'lr': 0\.5)"
    with pytest.raises(UserError, match=message):
        run(small_config(), begun)
    assert (begun / "results.jsonl").read_bytes() == (other / "results.jsonl").read_bytes()
    (begun / "results.jsonl").write_bytes(own)
    assert_same(run(small_config(), begun), undisturbed)


def test_records_without_a_step_are_cut(begun, undisturbed):
    with (begun / "results.jsonl").open("a") as file:
        file.write('{"step": "three"}\n{"loss": 1}\n')
    assert_same(run(small_config(), begun), undisturbed)


def test_nothing_but_a_torn_record(tmp_path, undisturbed):
    """What was torn must not stand before the first record."""
    folder, config = tmp_path / "run", small_config()
    with RunFolder(folder).locked():
        RunFolder(folder).claim(config)
    (folder / "results.jsonl").write_text('{"step": 0, "los')
    assert_same(run(config, folder), undisturbed)


# Texts: descriptions, notes, locks


@FEW
@given(content=fuzz_files.DESCRIPTIONS)
def test_descriptions(content):
    fuzz_files.check_description(content)


@FEW
@given(content=fuzz_files.NOTES)
def test_notes(content):
    fuzz_files.check_note(content)


@FEW
@given(content=fuzz_files.LOCKS)
def test_locks(content):
    fuzz_files.check_lock(content)


def test_the_fuzz_sees_faults(stopped, states, monkeypatch):
    """Each check complains when its guard is gone."""
    whole = bytearray((stopped / "checkpoint.pt").read_bytes())
    whole[third_entry(whole) + 38] ^= 0x10
    nothing = Damage("flip", "anywhere", 0.0, b"")
    monkeypatch.setattr(fuzz_files, "damaged", lambda content, damage: content)
    monkeypatch.setattr(checkpoint, "_is_sealed", lambda path: True)
    with pytest.raises(AssertionError):
        fuzz_files.check_checkpoint(whole, states["checkpoint.pt"], nothing)
    monkeypatch.setattr(notes, "LARGEST_NUMBER", 1e300)
    with pytest.raises(AssertionError):
        fuzz_files.check_note(b'{"step": 1e200}')
    any_digits = re.compile(r"process (\d+) on (\S+) \(job (\S+), start (\d+)\) \[(\w+)\]")
    monkeypatch.setattr(ownership, "_LINE", any_digits)
    monkeypatch.setattr(ownership, "LONGEST", 10_000)
    with pytest.raises(ValueError, match="4300 digits"):
        fuzz_files.check_lock(b"process %s on a (job 7_1, start 1) [b]" % (b"7" * 5000))
