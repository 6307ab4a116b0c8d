"""The file of the images that a run classifies correctly."""

import numpy as np
import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import correctness
from domainbed_sage.results.correctness import Correct


def environment(size, seed, steps=(0, 7)):
    rng = np.random.default_rng(seed)
    tested = rng.random(size) < 0.8
    tested[0] = True
    at = {step: tested & (rng.random(size) < 0.7) for step in steps}
    return Correct(correctness.identity(f"dog/{i}.jpg" for i in range(size)), tested, at)


def test_is_read_as_it_was_written(tmp_path):
    envs = {0: environment(8, 1), 5: environment(21, 2, steps=(3,))}
    path = correctness.write(tmp_path, envs)
    assert path == tmp_path / "correct.npz"
    found = correctness.read(path)
    assert list(found) == [0, 5]
    for env, correct in envs.items():
        assert found[env].images == correct.images
        np.testing.assert_array_equal(found[env].tested, correct.tested)
        assert found[env].at.keys() == correct.at.keys()
        for step, own in correct.at.items():
            np.testing.assert_array_equal(found[env].at[step], own)
            assert found[env].accuracy(step) == own.sum() / correct.tested.sum()


def test_equal_contents_are_equal_bytes_whatever_the_order_of_steps(tmp_path):
    one, other = environment(30, 1, steps=(0, 7)), environment(30, 1, steps=(0, 7))
    turned = Correct(other.images, other.tested, dict(reversed(other.at.items())))
    first, second = (correctness.write(tmp_path / name, {1: c}) for name, c in (("a", one), ("b", turned)))
    assert first.read_bytes() == second.read_bytes()


def test_is_small(tmp_path):
    """The largest environment of DomainNet: three bits an image."""
    assert correctness.write(tmp_path, {0: environment(172_500, 1)}).stat().st_size < 67_000


def test_identity_is_of_names_and_their_order():
    names = ["dog/1.jpg", "dog/2.jpg"]
    assert correctness.identity(names) == correctness.identity(tuple(names))
    assert correctness.identity(names) != correctness.identity(reversed(names))
    assert correctness.identity(["a\nb"]) != correctness.identity(["a", "c"])


def break_bits(arrays):
    arrays["0_tested"] = arrays["0_tested"][:-1]


def break_type(arrays):
    arrays["0_correct_7"] = arrays["0_correct_7"].astype(np.int64)


def break_size(arrays):
    arrays["0_size"] = np.array(10**12)


def lose(arrays):
    del arrays["0_correct_7"]


def claim_untested(arrays):
    arrays["0_correct_7"] = ~arrays["0_tested"]


def claim_nothing(arrays):
    for name in ("tested", "correct_0", "correct_7"):
        arrays[f"0_{name}"] = np.zeros_like(arrays[f"0_{name}"])


@pytest.mark.parametrize("damage", [break_bits, break_type, break_size, lose, claim_untested, claim_nothing])
def test_inconsistent_files_are_refused(tmp_path, damage):
    path = correctness.write(tmp_path, {0: environment(30, 1)})
    with np.load(path) as file:
        arrays = dict(file)
    damage(arrays)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"correct\.npz cannot be read as the correct images of a run"):
        correctness.read(path)


@pytest.mark.parametrize("at", range(0, 2000, 97))
def test_damaged_files_are_refused_or_whole(tmp_path, at):
    envs = {0: environment(300, 1)}
    path = correctness.write(tmp_path, envs)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0x10
    path.write_bytes(content)
    try:
        found = correctness.read(path)
    except UserError:
        return
    np.testing.assert_array_equal(found[0].at[7], envs[0].at[7])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "correct.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        correctness.read(tmp_path / "correct.npz")
    with pytest.raises(UserError, match="cannot be read"):
        correctness.read(tmp_path / "nothing.npz")
