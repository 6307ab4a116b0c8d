"""Slurm's commands as programs on PATH that keep a queue in files and run nothing."""

import json
import os
import sys
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sacct", "srun")
PROGRAM = Path(__file__)


class FakeSlurm:
    """A queue that is looked at and disturbed from outside.

    Args:
        folder: where it keeps its files, and its programs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in COMMANDS:
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {PROGRAM} {folder} {name} "$@"\n')
            program.chmod(0o755)
        self.say("config", "MaxArraySize            = 1001\n")

    @property
    def path(self) -> str:
        """PATH with these programs and no others: there may be a real Slurm."""
        return str(self.folder / "bin")

    def say(self, name: str, text: str) -> None:
        """Set an answer: ``config``, ``accounts``; or ``COMMAND.refuses``, ``COMMAND.fails``: its complaint, before it
        does what it is asked for, or after.
        """
        (self.folder / name).write_text(text)

    def calls(self, command: str) -> list[dict]:
        """Calls of a command: its `words`, its `environ`, and the `script` it was given."""
        try:
            lines = (self.folder / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [call for call in map(json.loads, lines) if call["words"][0] == command]

    def scripts(self) -> list[str]:
        """What was submitted."""
        return [call["script"] for call in self.calls("sbatch") if "--test-only" not in call["words"]]

    @property
    def queue(self) -> dict[str, list[str]]:
        """Id to state, name and reason."""
        return read_queue(self.folder)

    def set(self, job: str, state: str, reason: str = "None") -> None:
        """Change a job's state."""
        queue = self.queue
        queue[job] = [state, queue[job][1], reason]
        write_queue(self.folder, queue)

    def end(self, job: str) -> None:
        """Take a job out of the queue."""
        queue = self.queue
        del queue[job]
        write_queue(self.folder, queue)


def read_queue(folder: Path) -> dict[str, list[str]]:
    try:
        return json.loads((folder / "queue").read_text())
    except FileNotFoundError:
        return {}


def write_queue(folder: Path, queue: dict[str, list[str]]) -> None:
    (folder / "queue").write_text(json.dumps(queue))


def sbatch(folder: Path, *words: str) -> str:
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in Path(words[-1]).read_text().splitlines()
        if line.startswith("#SBATCH --")
    )
    if "--test-only" in words:
        return ""
    number = 100 + sum(1 for line in (folder / "calls").read_text().splitlines() if '"sbatch"' in line)
    last = options.get("array", "").partition("%")[0].partition("-")[2]
    jobs = [f"{number}_{i}" for i in range(int(last) + 1)] if last else [str(number)]
    write_queue(folder, read_queue(folder) | {job: ["PENDING", options["job-name"], "(Priority)"] for job in jobs})
    return f"Submitted batch job {number}"


def squeue(folder: Path, *words: str) -> str:
    names = next(word for word in words if word.startswith("--name=")).removeprefix("--name=").split(",")
    listed = [(job, entry) for job, entry in read_queue(folder).items() if entry[1] in names]
    return "\n".join(f"{job}|{state}|{name}|{reason}" for job, (state, name, reason) in listed)


def scancel(folder: Path, *jobs: str) -> str:
    write_queue(folder, {job: entry for job, entry in read_queue(folder).items() if job not in jobs})
    return ""


def scontrol(folder: Path, *_: str) -> str:
    return (folder / "config").read_text()


def sacct(folder: Path, *_: str) -> str:
    return (folder / "accounts").read_text()


def main(folder: Path, name: str, *words: str) -> None:
    script = Path(words[-1]).read_text() if name == "sbatch" else ""
    with (folder / "calls").open("a") as file:
        print(json.dumps({"words": [name, *words], "environ": dict(os.environ), "script": script}), file=file)
    refusal, failure = folder / f"{name}.refuses", folder / f"{name}.fails"
    if refusal.exists():
        sys.exit(refusal.read_text())
    answer = globals()[name](folder, *words)
    if failure.exists():
        sys.exit(failure.read_text())
    print(answer, end="\n" if answer else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
