"""`domainbed-sage weights`: list, fetch and verify pretrained weights."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json
from domainbed_sage.cli.terminal import folded

if TYPE_CHECKING:
    from torch import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    names = "a name that `weights list` shows, or timm:BACKBONE"
    for action, help_text, operand in (
        ("list", "CLIP ViT-B/16 weights, and what is stored", None),
        ("download", "download and verify weights, on a machine with internet", ("name", names)),
        ("check", "verify a file: checksum, names and shapes of its tensors", ("name", f"{names}, or a file")),
    ):
        command = actions.add_parser(action, help=help_text, description=help_text)
        if operand:
            command.add_argument(operand[0], metavar="NAME", help=operand[1])
        command.add_argument(
            "--weights_dir",
            type=Path,
            help="folder of the files; default: DOMAINBED_WEIGHTS_DIR, else in the user's cache",
        )
        if action != "download":
            as_json.add_argument(command)


def main(args: argparse.Namespace) -> int:
    """List, download or check.

    Raises:
        UserError: unknown names, missing or damaged files, no internet.
    """
    from domainbed_sage.models.weights import FOLDER_VARIABLE, download, weights_dir

    if args.action == "list":
        folder = weights_dir(args.weights_dir)
        if args.json:
            as_json.show(as_object(folder))
        else:
            print("\n".join(folded(line) for line in _listed(folder)))
        return 0
    if args.action == "download":
        download(args.name, args.weights_dir)
    found = checked(args.name, args.weights_dir)
    if args.action == "check" and args.json:
        as_json.show(found)
        return 0
    print("\n".join(folded(line) for line in _told(found)))
    if args.action == "download" and args.weights_dir and args.weights_dir != weights_dir():
        print(f"Runs look in {weights_dir()} unless {FOLDER_VARIABLE} is set to {args.weights_dir.absolute()}.")
    return 0


def as_object(folder: Path) -> list[dict[str, Any]]:
    """Published CLIP weights, stored in `folder` or not (`file`), and what else is stored there."""
    from domainbed_sage.models.checkpoints import SUFFIXES
    from domainbed_sage.models.weights import clip_names, published, published_sha256, stored_file

    clip = [
        {
            "name": name,
            "activation": "quickgelu" if published(name).get("quick_gelu") else "gelu",
            "sha256": published_sha256(name) or None,
            "file": stored_file(name, folder),
        }
        for name in clip_names()
    ]
    files = sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}") if path.stem not in clip_names())
    return clip + [{"name": path.stem, "activation": None, "sha256": None, "file": path} for path in files]


def _listed(folder: Path) -> list[str]:
    """The lines of `weights list`."""
    known = as_object(folder)
    clip = [
        f"{weights['name']}: {weights['activation']}; {'stored' if weights['file'] else 'not stored'}; "
        f"sha256 {weights['sha256'] or 'not published'}"
        for weights in known
        if weights["activation"]
    ]
    others = [f"also stored: {weights['file'].name}" for weights in known if not weights["activation"]]
    return [f"folder: {folder}", *clip, "timm:BACKBONE: weights of any timm backbone, e.g. timm:resnet50", *others]


def checked(name: str, folder: Path | None) -> dict[str, Any]:
    """What a stored or given file of weights is: of what model, and how many values, tensors and matrices it has.

    Of CLIP also the image tower alone, and the activation that it was trained with, None if that is not known.

    Raises:
        UserError: there is no such file, or it is not what it should be.
    """
    from domainbed_sage.models import clip, timm_backbone
    from domainbed_sage.models.checkpoints import check_tensors, read, sha256_of
    from domainbed_sage.models.weights import TIMM, find

    path = find(name, folder)
    state = read(path)
    found = {"name": name, "file": path, "sha256": sha256_of(path)}
    if name.startswith(TIMM):
        check_tensors(state, timm_backbone.expected_tensors(name.removeprefix(TIMM)), str(path))
        return {**found, "model": name, **_counts(state)}
    check_tensors(state, clip.expected_tensors(), f"{path}, read as CLIP ViT-B/16")
    tower = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
    activation = clip.trained_activation(name, path) or None
    return {
        **found,
        "model": "CLIP ViT-B/16",
        **_counts(state),
        "image_tower": _counts(tower),
        "activation": activation,
    }


def _counts(tensors: "Mapping[str, Tensor]") -> dict[str, int]:
    values = sum(t.numel() for t in tensors.values())
    return {"values": values, "tensors": len(tensors), "matrices": sum(t.ndim >= 2 for t in tensors.values())}


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of `weights check`."""
    yield str(found["file"])
    yield f"sha256 {found['sha256']}"
    yield f"{found['model']}: {_size(found)}"
    if "image_tower" in found:
        yield f"image tower: {_size(found['image_tower'])}"
        yield f"activation: {found['activation'] or 'not known; runs have to state it'}"


def _size(counts: Mapping[str, int]) -> str:
    return f"{counts['values']:,} values, {counts['tensors']} tensors, {counts['matrices']} of them matrices"
