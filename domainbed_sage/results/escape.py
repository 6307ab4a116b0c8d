"""Names as plain text in every format: none becomes markup, a terminal command, or a line break."""

import hashlib
import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "→": r"$\to$",
    **{character: f"\\{character}" for character in "_%&#${}"},
}
_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside of a word means nothing


def printable(text: str) -> str:
    """Make line breaks, terminal escapes and other invisible characters visible, e.g. ``\\x1b``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def latex(text: str) -> str:
    """Escape the characters that LaTeX interprets or prints differently, and keep apart those that it would join."""
    return re.sub(
        r"([-'])(?=\1)|.", lambda found: _LATEX.get(found[0], found[0]) + "{}" * bool(found[1]), printable(text)
    )


def latex_label(text: str) -> str:
    """A LaTeX label; unsafe characters become ``-``, and a hash of the whole text is appended."""
    safe = re.sub(r"[^A-Za-z0-9_:.-]+", "-", text)
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}"


def markdown(text: str) -> str:
    """Escape the characters that are special in Markdown, in HTML within it, or in a pipe table."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))
