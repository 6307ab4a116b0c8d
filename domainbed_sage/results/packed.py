"""The records of a results folder in one file, `runs.zip`: to commit, to send, to publish with a paper.

It holds what tables are made of and nothing else: `plan.json`, and of every finished run `<run>/results.jsonl` and
`<run>/done`. Paths of the machine are left out of the records. Unpacked with any program, it is a results folder.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, described, shown
from domainbed_sage.core.files import readable, regular
from domainbed_sage.results import planned
from domainbed_sage.results.records import RESULTS, read_run

FILE = "runs.zip"
DONE = "done"
PATHS = ("data_dir", "output_dir")  # of `args`
LARGEST = 4 * 2**30  # bytes unpacked
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the date of every member: equal records make equal bytes


def pack(results: Path) -> tuple[bytes, int]:
    """The packed finished runs of a folder, and how many there are.

    Raises:
        UserError: there is no such folder, no finished run in it, or one that cannot be read.
    """
    if not results.is_dir():
        raise UserError(f"There is no results folder {results}. Give the folder that holds the run directories.")
    runs = sorted(entry for entry in results.iterdir() if regular(entry / DONE) and regular(entry / RESULTS))
    if not runs:
        raise UserError(f"No run in {results} is finished (has the files '{DONE}' and {RESULTS}): nothing is packed.")
    plan = results / planned.FILE
    members = {planned.FILE: plan.read_text()} if regular(plan) else {}
    for run in runs:
        members |= {f"{run.name}/{RESULTS}": _portable(run / RESULTS), f"{run.name}/{DONE}": ""}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in members.items():
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.external_attr = 0o644 << 16
            file.writestr(info, text, zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue(), len(runs)


def _portable(path: Path) -> str:
    """The records of a run without the paths of the machine."""
    lines = []
    for record in read_run(path):
        args = record.get("args")
        kept = {name: value for name, value in args.items() if name not in PATHS} if isinstance(args, dict) else args
        lines.append(strict_json.dumps(record if args is None else {**record, "args": kept}) + "\n")
    return "".join(lines)


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """A temporary results folder with the packed runs of `folder`, named as it is.

    Raises:
        UserError: the file is damaged, too large, or holds something else.
    """
    path = folder / FILE
    with TemporaryDirectory(prefix="runs-") as parent:
        into = Path(parent) / (folder.resolve().name or FILE)
        try:
            with zipfile.ZipFile(path) as file:
                _check(path, file.infolist())
                file.extractall(into)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes the library raise whatever it meets first
            raise UserError(
                f"{path} cannot be unpacked ({described(error)}). Restore it from a copy, or pack the runs again: "
                "`domainbed-sage pack RESULTS_DIR`."
            ) from error
        yield into


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        run, _, name = member.filename.partition("/")
        if member.filename != planned.FILE and (name not in (RESULTS, DONE) or run in ("", ".", "..")):
            raise UserError(
                f"{path} should hold {planned.FILE}, <run>/{RESULTS} and <run>/{DONE}. Found {shown(member.filename)}."
            )
    if (size := sum(member.file_size for member in members)) > LARGEST:
        raise UserError(f"{path} would take {readable(size)} unpacked; at most {readable(LARGEST)} are.")
