"""TorchScript archives: the tensors that PyTorch's own reader finds, and no code of the archive is run."""

import io
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from fuzzing.damage import DAMAGES, TEXTS, Damage
from fuzzing.run_files import check_weights
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import archive
from domainbed_sage.models.archive import is_archive, read_archive
from domainbed_sage.models.checkpoints import read

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
FEW = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Part(nn.Module):
    """Parameters and buffers, and attributes that are neither."""

    sizes: list[int]

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 3).half())
        self.register_buffer("counts", torch.arange(3))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("brain", torch.randn(3).bfloat16())
        self.attribute = torch.ones(4)
        self.number, self.sizes, self.ratios, self.names = 3, [1, 2], [1.0, 2.5], {"a": torch.ones(1)}
        self.listed, self.several, self.device = [torch.ones(1)], (1, 2.5, True, "x", None), torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.w.float().sum() + self.attribute.sum() + self.counts.sum() + self.passing.sum()


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = Part(), Part(), nn.BatchNorm1d(3)
        self.second.w = self.first.w
        self.turned = nn.Parameter(torch.randn(4, 4).t()[1:])
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.first(x) + self.second(x) + self.turned.sum()


def saved(module, path, how=torch.jit.script):
    torch.jit.save(how(module), path)
    return path


def traced(module):
    return torch.jit.trace(module, torch.zeros(1, 3), check_trace=False)


@pytest.mark.parametrize("how", [torch.jit.script, traced])
def test_the_same_tensors_as_pytorch_reads(tmp_path, how):
    path = saved(Whole().eval(), tmp_path / "whole.pt", how)
    ours, theirs = read_archive(path), torch.jit.load(path).state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].stride() == tensor.stride(), name
        assert torch.equal(ours[name], tensor), name
    assert "first.attribute" not in ours
    assert is_archive(path)


class Evil(nn.Module):
    """Its __setstate__ writes to a file, by an operation that TorchScript has."""

    victim: str

    def __init__(self, victim):
        super().__init__()
        self.victim, self.w = victim, torch.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.victim, self.w, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.victim, self.w, self.training = state
        self.w = torch.from_file(self.victim, shared=True, size=4).fill_(1.0)


def test_code_of_an_archive_is_not_run(tmp_path, capsys):
    victim = tmp_path / "thesis.tex"
    victim.write_text("sixteen letters.")
    path = saved(Evil(str(victim)), tmp_path / "weights.pt")
    assert main(["weights", "check", str(path)]) == 2
    message = r"weights.pt cannot be read: only the code of __torch__.test_archive.Evil could restore its state."
    assert message in capsys.readouterr().err
    assert victim.read_text() == "sixteen letters."
    torch.jit.load(path)
    assert victim.read_bytes() != b"sixteen letters."  # otherwise this test could not fail


# Archives that PyTorch never writes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        return saved(Whole().eval(), tmp_path_factory.mktemp("whole") / "whole.pt")


def rewritten(source, target, changes=(), compression=zipfile.ZIP_STORED):
    """A copy of an archive with some entries in other words."""
    changes = dict(changes)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.partition("/")[2], old.read(name)))
    return target


def with_pickle(whole, tmp_path, content):
    return rewritten(whole, tmp_path / "other.pt", {"data.pkl": content})


class Runs:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Runs(), 2), r"it asks for (__builtin__|builtins)\.print, of which no tensor is made"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", r"it asks for os\.system, of which no tensor is made"),
        (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", r"it asks for torch\._utils\._rebuild_qtensor"),
        (b"\x80\x02]\x94.", r"it holds no module"),
        (
            b"\x80\x02c__torch__.test_archive\nWhole\n)\x81K\x01b.",
            r"only the code of \S+\.Whole could restore its state",
        ),
        (b"\x80\x02c__torch__.test_archive\nWhole\n)\x81}r\xff\xff\xff\xff.", r"it holds no module"),
        (b"", r"cannot be read: .*"),
    ],
)
def test_a_pickle_of_something_else(whole, tmp_path, content, message, capsys):
    """The last but one asks for a place in memory number 4,294,967,295."""
    with pytest.raises(UserError, match=message):
        read(with_pickle(whole, tmp_path, content))
    assert capsys.readouterr().out == ""


def tensor_pickle(numbers, size, stride, offset=0):
    """A module Whole with one parameter, `turned`, that claims to be made of so many numbers of data/0."""
    buffer = io.BytesIO()
    buffer.write(
        b"\x80\x02c__torch__.test_archive\nWhole\n)\x81}X\x06\x00\x00\x00turnedctorch._utils\n_rebuild_tensor_v2\n(("
    )
    for text in ("storage", None, "0", "cpu"):
        if text is None:
            buffer.write(b"ctorch\nFloatStorage\n")
        else:
            buffer.write(b"X" + len(text).to_bytes(4, "little") + text.encode())
    integers = [pickle.dumps(n, 2)[2:-1] for n in (numbers, offset)]
    shapes = [pickle.dumps(shape, 2)[2:-1] for shape in (size, stride)]
    buffer.write(integers[0] + b"tQ" + integers[1] + b"".join(shapes) + b"\x89ccollections\nOrderedDict\n)RtRsb.")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (tensor_pickle(17, (3, 4), (1, 4)), r"data/0 should hold 17 numbers\. Found 16"),
        (tensor_pickle(16, (17,), (1,)), r"a tensor of shape \(17,\) cannot be made of 16 numbers"),
        (tensor_pickle(16, (1 << 40,), (0,)), r"a tensor of shape \(1099511627776,\) cannot be made of 16"),
        (tensor_pickle(16, (8,), (2,), 3), r"out of bounds for storage"),
        (tensor_pickle(16, (4,), (-1,), 8), r"[Nn]egative strides"),
    ],
)
def test_a_tensor_beyond_its_numbers(whole, tmp_path, pickled, message):
    with pytest.raises(UserError, match=message):
        read(with_pickle(whole, tmp_path, pickled))


def test_the_pickles_above_can_be_read(whole, tmp_path):
    found = read(with_pickle(whole, tmp_path, tensor_pickle(16, (3, 4), (1, 4), 1)))
    assert list(found) == ["turned"]
    assert torch.equal(found["turned"], read(whole)["turned"])


def test_compressed_data_is_refused(whole, tmp_path):
    """A small file could fill the memory."""
    path = rewritten(whole, tmp_path / "small.pt", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"data\.pkl is compressed, as PyTorch never does it"):
        read(path)


def test_bytes_in_another_order(whole, tmp_path):
    with pytest.raises(UserError, match="its bytes are in an order"):
        read(rewritten(whole, tmp_path / "big.pt", {"byteorder": b"big"}))


def test_many_tensors_of_one(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_TENSORS", 3)
    with pytest.raises(UserError, match="it holds more than 3 tensors"):
        read(whole)


# Damage


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory):
    torch.manual_seed(0)
    state, folder = {"a.weight": torch.randn(5, 7), "a.bias": torch.randn(5).half()}, tmp_path_factory.mktemp("files")
    safetensors.torch.save_file(state, folder / "a.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, folder / "a.bin")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"archive.pt": whole.read_bytes()}


@pytest.mark.parametrize("name", ["a.safetensors", "archive.pt", "a.bin", "legacy.pth"])
def test_a_damaged_weight_file_is_read_or_explained(files, name):
    @FEW
    @given(damage=DAMAGES)
    def check(damage):
        check_weights(files[name], name, damage)

    check()


@FEW
@given(content=TEXTS)
def test_anything_is_read_or_explained(content):
    for name in ("a.pt", "a.safetensors"):
        check_weights(content, name, Damage("append", "anywhere", 0.0, b""))
