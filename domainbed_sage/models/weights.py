"""Pretrained weights by name: which exist, where their files are stored, and how to fetch them.

Only `download` uses the network; the command ``domainbed-sage weights download`` calls it on a machine
with internet. A run only reads files, so compute nodes can be offline.
"""

import os
import re
import shutil
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import timm
from open_clip import pretrained as open_clip_pretrained

from domainbed_sage.core import network
from domainbed_sage.core.errors import UserError, known
from domainbed_sage.core.files import expanded, explained, explained_reading, regular, write_atomically
from domainbed_sage.models.checkpoints import FORMATS, SUFFIXES, first_line, read, sha256_of

FOLDER_VARIABLE = "DOMAINBED_WEIGHTS_DIR"
CLIP = "ViT-B-16"
TIMM = "timm:"

Fetch = Callable[[Path], tuple[Path, str]]
"""Fetches into a folder; returns the file and the sha256 that its source promises, or as much of it as is known."""


def weights_dir(given: Path | None = None) -> Path:
    """Folder of the weight files: the one given, else ``DOMAINBED_WEIGHTS_DIR``, else one in the user's cache.

    Raises:
        UserError: it is in the user's home, and there is none.
    """
    folder = given or Path(os.environ.get(FOLDER_VARIABLE) or "~/.cache/domainbed_sage/weights")
    return expanded(folder, f"{FOLDER_VARIABLE} to the folder of the weights")


def clip_names() -> tuple[str, ...]:
    """Names of the published CLIP ViT-B/16 weights, as open_clip tags them."""
    return tuple(open_clip.list_pretrained_tags_by_model(CLIP))


def published(name: str) -> dict[str, Any]:
    """What open_clip knows of CLIP weights (``url``, ``hf_hub``, ``quick_gelu``, …); empty for other names."""
    return dict(open_clip.get_pretrained_cfg(CLIP, name)) if name in clip_names() else {}


def published_sha256(name: str) -> str:
    """Sha256, or its first 8 digits, of the file at the published address; empty where the address holds none.

    OpenAI's address has the whole sum as a folder name, those of LAION-400M have 8 digits in the file's name.
    """
    found = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.pt$", published(name).get("url", ""))
    return found[1] or found[2] if found else ""


def timm_config(backbone: str) -> Any:
    """timm's description of a backbone and its weights.

    Raises:
        UserError: timm does not know it.
    """
    try:
        return timm.get_pretrained_cfg(backbone, allow_unregistered=False)
    except RuntimeError as error:
        architecture = backbone.partition(".")[0]
        similar = timm.list_models(f"{architecture}.*", pretrained=True) or timm.list_models()
        raise UserError(
            f"timm {timm.__version__} does not know the backbone {backbone!r}: {first_line(error)}. "
            f"Nearest: {', '.join(get_close_matches(backbone, similar, 8, cutoff=0.5)) or 'none'}."
        ) from None


def canonical(name: str) -> str:
    """`name` with the tag of timm's weights filled in: ``timm:resnet50`` -> ``timm:resnet50.a1_in1k``.

    Raises:
        UserError: timm has no such backbone, or no weights for it.
    """
    if not name.startswith(TIMM):
        return name
    config = timm_config(name.removeprefix(TIMM))
    if not config.has_weights:
        raise UserError(
            f"timm publishes no weights for {name.removeprefix(TIMM)!r}. Choose another backbone, or set the "
            f'hyperparameter {{"checkpoint": "/path/to/file.safetensors"}} or {{"pretrained": false}}.'
        )
    return TIMM + ".".join(filter(None, (config.architecture, config.tag)))


def stored_file(name: str, where: Path) -> Path | None:
    """The file of that name in the folder, whatever its format; None if there is none."""
    return next((path for suffix in SUFFIXES if (path := _stored(where, name, suffix)).is_file()), None)


def find(name: str, given: Path | None = None) -> Path:
    """Path of a weight file on this machine, its checksum verified where one is known.

    That is the published one, or else the one in a file ``<name>.sha256`` beside it.

    Args:
        name: one of `clip_names`, ``timm:BACKBONE``, the name (without ending) of any file in the weights' folder, or
            the path of a file. A path enters the identity of a run; a name in the folder is the same on all machines.
        given: see `weights_dir`.

    Raises:
        UserError: the file is missing (the message names the command to get it), or not the one that was published.
    """
    if not name.startswith(TIMM) and ("/" in name or Path(name).suffix in SUFFIXES):
        path = expanded(Path(name), "give the path without ~")
        if not path.is_file():
            raise UserError(f"There is no weight file {path}. Give the path of {FORMATS}; or a name. {_names()}")
    else:
        name, where = canonical(name), weights_dir(given)
        present = stored_file(name, where)
        if present is None:
            raise UserError(_missing(name, where))
        path = present
    _verify(path, name)
    return path


def download(name: str, given: Path | None = None) -> Path:
    """Fetch a weight file once, verify it, and put it into the folder; the only function that needs internet.

    CLIP's weights come from their published address or else from the model hub, through open_clip; timm's through
    timm, stored under timm's names for the tensors. A file is put in place once its checksum is right, as far as one
    is published, and its tensors could be read; its sha256 is put beside it, as ``sha256sum -c`` reads it. Of a broken
    download only what the hub's client can resume is kept.

    Raises:
        UserError: unknown name, nothing could be fetched, wrong checksum, full disk.
    """
    name, where = canonical(name), weights_dir(given)
    if not published(name) and not name.startswith(TIMM):
        raise UserError(f"The weights {name!r} cannot be downloaded. {_names()}")
    if stored_file(name, where):
        return find(name, where)
    network.check_variables()
    into, reasons = _stored(where, f".download-{name}"), []
    with explained(where):
        for source, url, fetch in _sources(name):
            into.mkdir(parents=True, exist_ok=True)
            try:
                network.check_reachable(url)
                path, expected = fetch(into)
                _compare(sha256_of(path), expected, "the file")
                read(path)
            except Exception as error:  # whatever the libraries raise: the next source may do
                told = f" {network.UNVERIFIED}" * network.unverified(error)
                reasons.append(f"  - {source}: {first_line(error)}.{told}")
            else:
                return _keep(path, _stored(where, name, path.suffix), into)
    if not any(into.rglob("*.incomplete")):
        shutil.rmtree(into)
    raise UserError(
        f"The weights {name!r} could not be downloaded:\n"
        + "\n".join(reasons)
        + "\n"
        + f"{network.advice(published(name).get('url') or network.hub())}\n".lstrip()
        + f"Run this on a machine with internet, and give the runs the same folder ({where}) with {FOLDER_VARIABLE}."
    )


def _missing(name: str, where: Path) -> str:
    if published(name) or name.startswith(TIMM):
        return (
            f"The weights {name!r} are not in {where}. On a machine with internet, run:\n"
            f"    domainbed-sage weights download {name}\n"
            f"{FOLDER_VARIABLE} chooses the folder; the nodes that train need to see the same one."
        )
    return f"Unknown weights {name!r}: neither a known name nor a file {name}{SUFFIXES[0]} in {where}. {_names()}"


def _names() -> str:
    return f"{known([*clip_names(), 'none', 'timm:BACKBONE'])}."


def _stored(where: Path, name: str, suffix: str = "") -> Path:
    return where / (name.replace(":", "-") + suffix)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _verify(path: Path, name: str) -> None:
    """Compare a file with the published checksum, and where there is none, or a part of one, with the one beside it.

    Whoever can write a file beside the weights can write the weights: it never overrides the published checksum.
    """
    advice = "Delete the file and copy or download it again."
    same_kind = path.suffix == Path(published(name).get("url", "")).suffix
    expected = published_sha256(name) if same_kind else ""
    if expected:
        _compare(sha256_of(path), expected, str(path), advice)
    if len(expected) < 64 and (recorded := _recorded(_sidecar(path))):
        _compare(sha256_of(path), recorded, str(path), f"{advice} ({_sidecar(path).name} beside it says so.)")


def _recorded(sidecar: Path) -> str:
    """The checksum in a file beside the weights, as ``sha256sum`` writes it; empty if there is no such file."""
    if not regular(sidecar):
        return ""
    with explained_reading(sidecar):
        content = sidecar.read_bytes()
    found = re.match(rb"\\?([0-9a-f]{64})(?:\s|$)", content)
    if not found:
        raise UserError(
            f"{sidecar} should begin with a sha256, 64 hexadecimal digits. Found {content[:20]!r}. Remove it, or write "
            f"it again with: sha256sum FILE > FILE.sha256"
        )
    return found[1].decode()


def _compare(found: str, expected: str, what: str, advice: str = "") -> None:
    if not found.startswith(expected):
        raise UserError(f"{what} should have sha256 {expected}. Found {found}. {advice}".rstrip())


def _keep(path: Path, target: Path, into: Path) -> Path:
    digest = sha256_of(path)
    path.replace(target)
    write_atomically(_sidecar(target), f"{digest}  {target.name}\n")
    shutil.rmtree(into)
    return target


def _sources(name: str) -> list[tuple[str, str, Fetch]]:
    """What delivers these weights: its name for messages, its address, and how to fetch them."""
    if name.startswith(TIMM):
        return [("timm", network.hub(), lambda into: _fetch_timm(name.removeprefix(TIMM), into))]
    entry = published(name)
    url = entry.get("url", "")
    sources: list[tuple[str, str, Fetch]] = [
        ("the published address", url, lambda into: _fetch_url(url, published_sha256(name), into)),
        ("the model hub", network.hub(), lambda into: _fetch_hub(entry["hf_hub"], into)),
    ]
    return [source for source, key in zip(sources, ("url", "hf_hub"), strict=True) if entry.get(key)]


def _fetch_url(url: str, sha256: str, into: Path) -> tuple[Path, str]:
    (into / url.rpartition("/")[2]).unlink(missing_ok=True)  # open_clip would take a partial file for a complete one
    return Path(open_clip_pretrained.download_pretrained_from_url(url, cache_dir=str(into))), sha256


def _fetch_hub(address: str, into: Path) -> tuple[Path, str]:
    model, _, filename = address.rpartition("/")
    link = Path(open_clip_pretrained.download_pretrained_from_hf(model, filename or None, cache_dir=str(into)))
    stored = link.resolve()  # the hub's cache names a large file by its sha256
    return stored.rename(into / link.name), stored.name if re.fullmatch("[0-9a-f]{64}", stored.name) else ""


def _fetch_timm(backbone: str, into: Path) -> tuple[Path, str]:
    model = timm.create_model(backbone, pretrained=True, cache_dir=str(into))
    path = into / "model.safetensors"
    safetensors.torch.save_file({name: t.clone().contiguous() for name, t in model.state_dict().items()}, path)
    return path, ""
