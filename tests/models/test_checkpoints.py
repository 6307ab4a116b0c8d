"""Weight files of three formats hold the same tensors; what is damaged or dangerous is refused."""

import hashlib

import pytest
import safetensors.torch
import torch
from clip_cases import TINY, random_state, write_archive, write_checkpoint

from domainbed_sage.core.errors import UserError
from domainbed_sage.models.checkpoints import check_tensors, is_archive, read, sha256_of

STATE = random_state(TINY)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """OpenAI's format."""
    return write_archive(STATE, tmp_path_factory.mktemp("archive") / "ViT-B-16.pt")


def test_all_formats_hold_the_same_tensors(archive, tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "a.safetensors")
    files = [
        archive,
        write_checkpoint(STATE, tmp_path / "a.pt"),
        write_checkpoint(STATE, tmp_path / "a.bin", wrap=True),
        tmp_path / "a.safetensors",
    ]
    for path in files:
        found = read(path)
        assert found.keys() == STATE.keys(), path
        assert all(torch.equal(found[name], value) for name, value in STATE.items()), path
        assert {value.dtype for value in found.values()} == {torch.float32}
    assert [is_archive(path) for path in files] == [True, False, False, False]


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")  # of recent versions of torch
def test_archive_is_stored_in_half_precision_with_constants(archive):
    stored = torch.jit.load(archive).state_dict()
    assert stored["visual.proj"].dtype == torch.float16
    assert stored["context_length"].item() == 77


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"a": torch.zeros(1), "b": Malicious()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt cannot be read: it holds print, which only running code could"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.bin"])
def test_a_damaged_file_is_explained(tmp_path, name):
    (tmp_path / name).write_bytes(b"half a page of HTML")
    with pytest.raises(UserError, match=r"cannot be read: .* Allowed: OpenAI's TorchScript archive \(\.pt\)"):
        read(tmp_path / name)


def test_a_file_without_tensors_is_explained(tmp_path):
    for content in ({}, {"epoch": 3}, [torch.zeros(1)]):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError, match="holds no table of tensors"):
            read(tmp_path / "a.pt")


def test_long_lists_of_mistakes_are_cut():
    expected = {f"t{i}": torch.Size([2, 3]) for i in range(20)}
    with pytest.raises(UserError) as caught:
        check_tensors({}, expected, "a.pt")
    assert "t11 (2×3) is missing." in str(caught.value)
    assert "t12" not in str(caught.value)
    assert "… and 8 more." in str(caught.value)
    check_tensors({name: torch.zeros(2, 3) for name in expected}, expected, "a.pt")


def test_checksums_follow_the_file(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()
