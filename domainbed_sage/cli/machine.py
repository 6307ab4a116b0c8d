"""Options for where a run is executed, shared by several subcommands."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.cli.numbers import whole
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.plugins import load_installed, load_plugin

if TYPE_CHECKING:
    from domainbed_sage.config import Machine

MOST_PROCESSES = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of commands that train."""
    add_place_arguments(parser)
    parser.add_argument("--skip_model_save", action="store_true", help="write no model.pkl")
    parser.add_argument(
        "--keep_correctness",
        action="store_true",
        help="keep in correct.npz which held-out images are classified correctly, for `domainbed-sage compare`",
    )
    parser.add_argument(
        "--log_alignment",
        action="store_true",
        help="add to records the cosine between the gradients of source and held-out domains; two more passes a step",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard event files in every run's folder"
    )
    parser.add_argument("--callback", action="append", default=[], help="listener of a plugin; repeatable")
    parser.add_argument("--keep_checkpoint", action="store_true", help="keep the last checkpoints of a finished run")


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options for data folder and device, of commands that run a model."""
    add_data_argument(parser)
    parser.add_argument("--device", default=None, help="torch device; by default the GPU if there is one")
    parser.add_argument(
        "--num_workers",
        type=whole(0, MOST_PROCESSES),
        default=0,
        help="loader processes per run (default: %(default)s)",
    )
    add_plugin_argument(parser)


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--data_dir``."""
    parser.add_argument("--data_dir", type=Path, help="folder of the datasets; the embedded ones need none")


def data_dir(args: argparse.Namespace) -> Path | None:
    """The folder of the datasets: as given, or as the environment says."""
    named = os.environ.get("DOMAINBED_DATA_DIR")
    return args.data_dir or (Path(named) if named else None)


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--plugin``, for commands that train nothing."""
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        help="Python file that registers algorithms, datasets or models; repeatable",
    )


def load_plugins(args: argparse.Namespace) -> None:
    """Load the plugins of installed packages, and those named on the command line.

    Raises:
        UserError: one fails.
    """
    load_installed()
    for plugin in args.plugin:
        load_plugin(plugin)


def from_arguments(args: argparse.Namespace, output_dir: Path, *, progress: bool = False) -> "Machine":
    """Load the plugins and describe the machine, for a command that trains.

    Raises:
        UserError: a plugin fails, or the device does not exist.
    """
    return replace(
        place_from_arguments(args, output_dir),
        skip_model_save=args.skip_model_save,
        keep_correctness=args.keep_correctness,
        log_alignment=args.log_alignment,
        keep_checkpoint=args.keep_checkpoint,
        progress=progress,
        callbacks=tuple(dict.fromkeys([*args.callback, *(["tensorboard"] if args.tensorboard else [])])),
    )


def place_from_arguments(args: argparse.Namespace, output_dir: Path) -> "Machine":
    """Load the plugins and describe the machine, for a command that runs a model.

    Raises:
        UserError: a plugin fails, or the device does not exist.
    """
    from domainbed_sage.config import Machine

    load_plugins(args)
    machine = Machine(output_dir=output_dir, data_dir=data_dir(args), num_workers=args.num_workers)
    return machine if args.device is None else _on(machine, args.device)


def _on(machine: "Machine", name: str) -> "Machine":
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return replace(machine, device=device)
