"""Pixels of more than 8 bits: 16 keep their picture, the rest is refused; all of 8 bits stay what Pillow makes them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import corrupt
from domainbed_sage.data.decode import Decoder, Undecodable

FULL = Decoder()
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def tiff(content, *, bits=16, order="<", kind=1, photometric=1, size=(256, 256)):
    """A TIFF file of one strip; `kind` 1: unsigned, 2: signed, 3: floating-point."""
    words = [(256, size[0]), (257, size[1]), (258, bits), (259, 1), (262, photometric), (273, 134), (277, 1)]
    words += [(278, size[1]), (279, len(content)), (339, kind)]
    fields = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in words)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(words))
    return head + fields + struct.pack(f"{order}I", 0) + content


def png16(colour, values):
    """A PNG file of one row with 16 bits in each channel."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = b"\0" + np.repeat(np.array(values, ">u2"), channels).tobytes()
    head = struct.pack(">IIBBBBB", len(values), 1, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pgm(values, white=65535):
    return f"P2\n{len(values)} 1\n{white}\n{' '.join(map(str, values))}\n".encode()


def saved(image, suffix):
    file = io.BytesIO()
    image.save(file, suffix)
    return file.getvalue()


def decoded(tmp_path, content, decoder=FULL):
    path = tmp_path / "image"
    path.write_bytes(content)
    return decoder(path).numpy()


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(RAMP), "PNG"),
        saved(Image.fromarray(RAMP), "TIFF"),
        saved(Image.fromarray(RAMP), "PPM"),
        tiff(RAMP.astype("<u2").tobytes()),
        tiff(RAMP.astype(">u2").tobytes(), order=">"),
        tiff((~RAMP).astype("<u2").tobytes(), photometric=0),
    ],
)
def test_grey_of_16_bits_is_its_high_byte(tmp_path, content):
    """White above 255, it was nearly all white."""
    image = decoded(tmp_path, content)
    assert image.shape == (3, 256, 256)
    assert (image == (RAMP >> 8)).all()


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_grey_and_colour_of_16_bits_agree(tmp_path, colour):
    """Grey, RGB, grey with and RGB with transparency: Pillow keeps the high byte of all but the first."""
    values = [0, 255, 256, 32767, 32768, 65535]
    assert decoded(tmp_path, png16(colour, values)).tolist() == [[[0, 0, 1, 127, 128, 255]]] * 3


@pytest.mark.parametrize("white", [1023, 4095, 65535])
def test_grey_whose_file_says_what_is_white(tmp_path, white):
    assert decoded(tmp_path, pgm([0, white], white)).tolist() == [[[0, 255]]] * 3


def test_reduced_decoding_scales_first(tmp_path):
    image = decoded(tmp_path, saved(Image.fromarray(RAMP), "PNG"), Decoder("resized", 64))
    assert image.shape == (3, 64, 64)
    assert abs(float(image.mean()) - 127.5) < 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "whole numbers, signed or of 32 bits"),
        (tiff(bytes(8), kind=2, size=(2, 2)), "whole numbers, signed or of 32 bits"),
        (tiff(bytes(16), bits=32, size=(2, 2)), "whole numbers, signed or of 32 bits"),
        (tiff(b"\xff" * 6, bits=12, size=(2, 2)), "whole numbers of 12 bits"),
        (saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "floating-point numbers"),
    ],
)
def test_pixels_without_a_known_white_are_refused(tmp_path, content, kind):
    with pytest.raises(Undecodable) as caught:
        decoded(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'image'} has pixels that are {kind}, and no rule is known")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_8_bits_stay_as_pillow_converts_them(tmp_path, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (10, 8, 3), np.uint8)).convert("RGB" if mode == "P" else mode)
    image = image.quantize(16) if mode == "P" else image
    content = saved(image, "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG")
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
    for decoder in (Decoder(), Decoder("draft", 5), Decoder("resized", 9)):
        np.testing.assert_array_equal(decoded(tmp_path, content, decoder), expected)


def test_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=0)
    assert Decoder()(tmp_path / "p.png").tolist() == [[[255, 0]], [[0, 255]], [[0, 0]]]


def test_too_large_to_be_an_image(tmp_path):
    """Pillow's error for it is of a kind of its own."""
    content = bytearray(png16(0, [0]))
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(Undecodable, match="exceeds limit"):
        decoded(tmp_path, bytes(content))


@pytest.mark.parametrize("error", [IndexError("x"), KeyError("x"), struct.error("x"), EOFError("x"), TypeError("x")])
def test_whatever_pillow_raises_on_damage(tmp_path, monkeypatch, error):
    monkeypatch.setattr(Image, "open", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(Undecodable, match="cannot be decoded as an image"):
        decoded(tmp_path, b"")


def test_a_file_that_cannot_be_read_is_not_called_corrupt(tmp_path, monkeypatch):
    """Leaving it out would leave a good image out; memory that runs out is no fault of an image either."""
    with pytest.raises(UserError, match=r"nowhere cannot be read \(No such file or directory\)\. Restore it") as caught:
        Decoder()(tmp_path / "nowhere")
    assert not isinstance(caught.value, Undecodable)
    (tmp_path / "a.png").write_bytes(b"")
    assert corrupt.find(tmp_path, ["a.png"]) == ["a.png"]
    with pytest.raises(UserError, match="cannot be read"):
        corrupt.find(tmp_path, ["a.png", "nowhere"])
    monkeypatch.setattr(Image, "open", lambda _: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        decoded(tmp_path, b"")
