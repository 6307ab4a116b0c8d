"""Dataset repositories of Hugging Face: what is in them, and where each file is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from domainbed_sage.core import network
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.sources import Hub


@dataclass(frozen=True)
class HubFile:
    """One file of a repository: path, address at a fixed revision, size, and sha256 if it is known before."""

    path: str
    url: str
    size: int
    sha256: str | None


def find(source: Hub) -> tuple[str, list[HubFile]]:
    """The repository's current revision, and those of its files that the source asks for.

    The environment variable HF_ENDPOINT names another server than Hugging Face's own.

    Raises:
        UserError: the repository cannot be listed, or has no such files.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.hf_api import RepoFile

    endpoint = network.hub()
    network.check_reachable(endpoint)
    api = HfApi(endpoint=endpoint, token=False)
    try:
        revision = api.dataset_info(source.repo).sha or "main"
        tree = api.list_repo_tree(source.repo, repo_type="dataset", revision=revision, recursive=True)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    except Exception as error:  # its versions use requests, httpx or httpx2, each with its own errors
        words = " ".join(str(error).split()).partition(" For more information")[0]
        told = network.advice(endpoint) + f" {network.UNVERIFIED}" * network.unverified(error)
        raise UserError(
            f"{source.repo} cannot be listed ({type(error).__name__}: {words[:300]}){told and '.' + told}"
        ) from None
    chosen = _choose(source, sorted(files))
    return revision, [
        HubFile(
            path,
            hf_hub_url(source.repo, path, repo_type="dataset", revision=revision, endpoint=endpoint),
            files[path].size,
            lfs.sha256 if (lfs := files[path].lfs) else None,
        )
        for path in chosen
    ]


def _choose(source: Hub, paths: Sequence[str]) -> list[str]:
    for patterns in source.choices:
        hits = [[path for path in paths if re.search(pattern, path)] for pattern in patterns]
        if all(hits):
            return [path for group in hits for path in group]
    wanted = " or ".join(" with ".join(patterns) for patterns in source.choices)
    shown = ", ".join(paths[:20]) + (" …" if len(paths) > 20 else "")
    raise UserError(f"{source.repo} should hold files named like {wanted}. Found {shown or 'nothing'}.")
