"""`domainbed-sage weights`: list, fetch and verify pretrained weights."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    names = "a name that `weights list` shows, or timm:BACKBONE"
    for action, help_text, operand in (
        ("list", "CLIP ViT-B/16 weights, and what is stored", None),
        ("download", "fetch and verify weights, on a machine with internet", ("name", names)),
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


def main(args: argparse.Namespace) -> int:
    """List, download or check.

    Raises:
        UserError: unknown names, missing or damaged files, no internet.
    """
    from domainbed_sage.models.weights import FOLDER_VARIABLE, download, weights_dir

    if args.action == "list":
        return _list(weights_dir(args.weights_dir))
    if args.action == "download":
        download(args.name, args.weights_dir)
    print("\n".join(_report(args.name, args.weights_dir)))
    if args.action == "download" and args.weights_dir and args.weights_dir != weights_dir():
        print(f"Runs look in {weights_dir()} unless {FOLDER_VARIABLE} is set to {args.weights_dir.absolute()}.")
    return 0


def _list(folder: Path) -> int:
    from domainbed_sage.models.checkpoints import SUFFIXES
    from domainbed_sage.models.weights import clip_names, published, published_sha256, stored_file

    print(f"folder: {folder}")
    for name in clip_names():
        activation = "quickgelu" if published(name).get("quick_gelu") else "gelu"
        state = "stored" if stored_file(name, folder) else "not stored"
        print(f"{name}: {activation}; sha256 {published_sha256(name) or 'not published'}; {state}")
    print("timm:BACKBONE: weights of any timm backbone, e.g. timm:resnet50")
    files = [path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}") if path.stem not in clip_names()]
    print("\n".join(f"also stored: {path.name}" for path in sorted(files)), end="\n" if files else "")
    return 0


def _report(name: str, folder: Path | None) -> list[str]:
    """Check a stored or given file and describe it."""
    from domainbed_sage.models import clip, timm_backbone
    from domainbed_sage.models.checkpoints import check_tensors, read, sha256_of
    from domainbed_sage.models.weights import TIMM, find

    path = find(name, folder)
    state = read(path)
    lines = [f"{path}", f"sha256 {sha256_of(path)}"]
    if name.startswith(TIMM):
        check_tensors(state, timm_backbone.expected_tensors(name.removeprefix(TIMM)), str(path))
        return [*lines, f"{name}: {_count(state)}"]
    check_tensors(state, clip.expected_tensors(), f"{path}, read as CLIP ViT-B/16")
    tower = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
    activation = clip.trained_activation(name, path) or "not known; runs have to state it"
    return [
        *lines,
        f"CLIP ViT-B/16: {_count(state)}",
        f"image tower: {_count(tower)}",
        f"activation: {activation}",
    ]


def _count(tensors: "Mapping[str, Tensor]") -> str:
    values = sum(t.numel() for t in tensors.values())
    matrices = sum(t.ndim >= 2 for t in tensors.values())
    return f"{values:,} values, {len(tensors)} tensors, {matrices} of them matrices"
