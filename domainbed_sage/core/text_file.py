"""Text files written by users: always UTF-8, whatever the locale says."""

from pathlib import Path

from domainbed_sage.core.errors import UserError


def read_text(path: Path, what: str, largest: int, *, optional: bool = False) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: what it is, for messages: "Sweep file", …
        largest: its largest size, bytes.
        optional: treat a file that does not exist as an empty one.

    Raises:
        UserError: it is not a file, cannot be read, is larger, or is not UTF-8; then says where.
    """
    reason = ""
    try:
        if not path.exists():
            if optional:
                return ""
            raise UserError(f"{what} {path} does not exist.")
        if path.is_dir():
            reason = "it is a folder."
        elif not path.is_file():
            reason = "it is neither a file nor a link to one."
        else:
            with path.open("rb") as file:
                content = file.read(largest + 1)
            if len(content) <= largest:
                return _decode(content)
            reason = f"it is larger than {largest:,} bytes. Is it another file?"
    except OSError as error:
        reason = f"{error.strerror}."
    except UnicodeError as error:
        reason = str(error)
    raise UserError(f"{what} {path} cannot be read: {reason}")


def _decode(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnicodeError("it is UTF-16, as PowerShell's `>` writes it. Save it as UTF-8.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        before = content[content.rfind(b"\n", 0, error.start) + 1 : error.start]
        raise UnicodeError(
            f"line {line}, column {len(before.decode()) + 1}: byte 0x{content[error.start]:02x} is not UTF-8. Save the "
            "file as UTF-8, for instance with `iconv -f latin1 -t utf-8`."
        ) from None
