"""Whether the files in a run's folder belong to this run; a backup may have been restored into the wrong one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domainbed_sage.config import RunConfig
from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError

_RESTORED = "It may have been restored into the wrong folder: put the right one in its place, or remove it."


def check_description(found: RunConfig, config: RunConfig, folder: Path) -> None:
    """Compare the description in a folder with that of the run.

    Raises:
        UserError: it is another run's; names what differs.
    """
    if found != config:
        raise UserError(
            f"{folder} holds another run; it differs in: {_differing(found.model_dump(), config.model_dump())}. Choose "
            f"another --output_dir, or remove that folder if you no longer need it."
        )


def check_checkpoint(run_id: str | None, config: RunConfig, path: Path) -> None:
    """Compare the run that a checkpoint names, as those of earlier versions do not, with the run.

    Raises:
        UserError: it is another one.
    """
    if run_id not in (None, config.run_id):
        raise UserError(f"{path} belongs to run {run_id}, and its folder to run {config.run_id}. {_RESTORED}")


def check_records(records: Iterable[Mapping[str, Any]], config: RunConfig, path: Path) -> None:
    """Compare what records say of their run with the run; fields that earlier versions did not have may be missing.

    Raises:
        UserError: a record is another run's; names what differs.
    """
    ours = config.model_dump(mode="json")
    for number, record in enumerate(records, 1):
        args = record.get("args")
        theirs = {**args, "hparams": record.get("hparams", ours["hparams"])} if isinstance(args, dict) else {}
        if differing := _differing(theirs, {key: value for key, value in ours.items() if key in theirs}):
            raise UserError(f"{path}, record {number}, belongs to another run; it differs in: {differing}. {_RESTORED}")


def check_data(recorded: Mapping[str, Any], found: Mapping[str, Any], config: RunConfig, folder: Path) -> None:
    """Compare the data that a run was trained on with those that were read now.

    On other images, the out split of a source environment would hold images that were trained on.

    Args:
        recorded: a record of the run; what it does not say, as those of earlier versions, agrees with everything.
        found: what the next record would say.
        config: the run.
        folder: of the run.

    Raises:
        UserError: other environments, or another population of images.
    """
    theirs, ours = recorded.get("data") or found["data"], found["data"]
    pairs = {
        "population": (theirs.get("variant", ""), ours["variant"]),
        "environments": (recorded.get("environments", found["environments"]), found["environments"]),
    }
    for what, (before, now) in pairs.items():
        if before != now:
            raise UserError(
                f"{folder} was trained on {what} {before!r} of {config.dataset}. Found {now!r}. Splits of other images "
                "mix those that were trained on with the others: give the run's own data with --data_dir or "
                "folder:PATH, or train in another folder."
            )


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {theirs[key]!r} → {value!r}"
        for key, value in ours.items()
        if strict_json.dumps(theirs[key], sort_keys=True) != strict_json.dumps(value, sort_keys=True)
    )
