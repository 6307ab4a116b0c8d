"""Which kind of recording a file is, and how it is verified."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.training import verify as trajectories
from domainbed_sage.training.recordings import load
from domainbed_sage.training.replays import delta, directions, loss_solvers, mtan, scenes
from domainbed_sage.training.replays.measured import Measured, report
from domainbed_sage.training.task_verify import is_of_tasks, replay_tasks, report_tasks


@dataclass(frozen=True)
class Kind:
    """A kind of recording beside trajectories.

    Attributes:
        what: what it is of, in words.
        mark: how the name of one of its arrays ends, and no other kind's.
        measure: compares ours with it, given its description and its arrays.
    """

    what: str
    mark: str
    measure: Callable[[Any, Any], list[Measured]]


KINDS = (
    Kind("directions of solvers", "/J", directions.measure),
    Kind("weights of solvers that see losses", "/epoch_losses", loss_solvers.measure),
    Kind("losses and metrics of scenes", "/seg_pred", scenes.measure_metrics),
    Kind("crops of scenes", "/draw0/draws", scenes.measure_crops),
    Kind("a pass of MTAN", "/gram_all", mtan.measure),
)
TRAJECTORIES = "trajectories of domain generalization"


def found_in(places: Sequence[Path]) -> list[Path]:
    """The recordings among files and folders: in these, every .npz and every .json that describes none.

    Raises:
        UserError: a place is not there, or a folder has no recording.
    """
    files = []
    for place in places:
        if not place.is_dir():
            files.append(place)
            continue
        there = sorted(p for p in place.rglob("*") if p.suffix == ".npz" or _alone(p))
        if not there:
            raise UserError(f"{place} has no recording: no file in it ends in .npz.")
        files += there
    return files


def _alone(path: Path) -> bool:
    return path.suffix == ".json" and not path.with_suffix(".npz").exists()


def verify(path: Path) -> tuple[str, bool]:
    """A table of the deviations of ours from a recording, and whether all are within their tolerances.

    Raises:
        UserError: a file is missing, or is no recording.
    """
    what, verified = _work(path)
    try:
        return verified()
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError, StopIteration) as error:
        if what == TRAJECTORIES:  # its reader looks at everything first
            raise
        raise UserError(f"{path} should be a recording of {what}. Found: {error!r}.") from error


def _work(path: Path) -> tuple[str, Callable[[], tuple[str, bool]]]:
    """What a file is a recording of, and the function that verifies it."""
    if path.suffix == ".json":
        return "Δm", lambda: report(delta.measure(_description(path)))
    info, arrays = load(path)
    kind = next((kind for kind in KINDS if any(name.endswith(kind.mark) for name in arrays)), None)
    if kind:
        return kind.what, lambda: report(kind.measure(info, arrays))
    if is_of_tasks(info):
        return "multi-task trajectories", lambda: report_tasks(replay_tasks(info, arrays), trajectories.TOLERANCE)
    return TRAJECTORIES, lambda: trajectories.report(trajectories.replay(path))


def _description(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    return strict_json.loads(path.read_bytes())
