"""Files that are published as npm packages: fetched by npm itself, checked by hash."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.files import digest


@dataclass(frozen=True)
class Package:
    """A pinned npm package: name and version as npm's command line takes them, and the sha256 of its file."""

    spec: str
    sha256: str

    @property
    def archive(self) -> str:
        """The file that ``npm pack`` writes, e.g. ``iconify-json-noto-1.2.9.tgz``."""
        return f"{self.spec.removeprefix('@').replace('/', '-').replace('@', '-')}.tgz"


def check(packages: Iterable[Package], folder: Path, what: str) -> None:
    """Check that a folder has the files of all packages.

    Raises:
        UserError: one is missing, or is another file; lists all of them. `what` says what they are.
    """
    mistakes = []
    for package in packages:
        archive = folder / package.archive
        found = digest(archive) if archive.is_file() else "no such file"
        if found != package.sha256:
            advice = f"Get it with `npm pack {package.spec}`."
            mistakes.append(f"{package.archive}: its sha256 should be {package.sha256}. Found {found}. {advice}")
    raise_all(mistakes, f"{what} in {folder}")


def pack(packages: Sequence[Package], folder: Path, what: str, size: str, advice: str = "") -> None:
    """Download the files of packages into a folder; they are not checked yet.

    Args:
        packages: what to download.
        folder: where to.
        what: what they are, for messages, e.g. "drawings of EmojiStylesLarge".
        size: of all of them, for messages.
        advice: what else could be done, for messages.

    Raises:
        UserError: npm is not installed, or fails; shows its last words.
    """
    specs = [package.spec for package in packages]
    another = f"Or run `npm pack {' '.join(specs)}` on another machine and give the folder with the .tgz files."
    advice = f"{another} {advice}".rstrip()
    if not (npm := shutil.which("npm")):
        raise UserError(
            f"The {what} come from npm ({size}), and npm was not found. Install Node.js (https://nodejs.org), of which "
            f"npm is a part, and try again. {advice}"
        )
    done = subprocess.run([npm, "pack", "--fetch-retries=1", *specs], cwd=folder, capture_output=True)
    if done.returncode:
        words = "\n".join(f"  {line}" for line in done.stderr.decode(errors="replace").strip().splitlines()[-20:])
        raise UserError(
            f"npm could not download the {what} (exit status {done.returncode}). Its last words:\n"
            f"{words}\nCheck the network connection and try again. {advice}"
        )
