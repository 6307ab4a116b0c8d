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


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {theirs[key]!r} → {value!r}"
        for key, value in ours.items()
        if strict_json.dumps(theirs[key], sort_keys=True) != strict_json.dumps(value, sort_keys=True)
    )
