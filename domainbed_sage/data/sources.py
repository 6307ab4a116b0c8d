"""Where to get a dataset, as plain data: one small class for each kind of source.

None of the hosts was reachable when this was written: the addresses come from DomainBed's download script, from its
issue 165, and from pages of Hugging Face. What a repository really holds is therefore found out at run time, and
whatever comes is checked against the published counts before it may be called the dataset.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ARCHIVE = r"\.(tar|tar\.gz|tgz|zip)$"


@dataclass(frozen=True)
class Urls:
    """Archives at plain addresses.

    Attributes:
        key: short name, for ``--source``.
        title: for messages.
        urls: one address for each archive; together they hold the dataset.
    """

    key: str
    title: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Drive:
    """One archive on Google Drive, which needs the package gdown.

    Attributes:
        key: short name, for ``--source``.
        title: for messages.
        file_id: Google's id of the file.
        name: name to save it under.
    """

    key: str
    title: str
    file_id: str
    name: str


@dataclass(frozen=True)
class Hub:
    """Archives in a dataset repository of Hugging Face, found by name when they are fetched.

    Attributes:
        key: short name, for ``--source``.
        repo: name of the repository.
        choices: patterns of file paths; the first group of which every pattern fits some file is taken.
    """

    key: str
    repo: str
    choices: tuple[tuple[str, ...], ...]

    @property
    def title(self) -> str:
        """Title for messages."""
        return f"Hugging Face {self.repo}"


@dataclass(frozen=True)
class Rows(Hub):
    """Parquet tables in a dataset repository of Hugging Face, one image in a row.

    Attributes:
        domain: column of the environment's folder name.
        label: column of the class, as a name or as an index into the sorted class names.
        path: column of the path ``environment/class/file``; empty where the tables have none, so that DomainBed's
            sample order, and with it its splits, is lost.
    """

    domain: str = "domain"
    label: str = "label"
    path: str = ""


@dataclass(frozen=True)
class CameraTraps(Urls):
    """The images and annotations from which TerraIncognita is selected."""


@dataclass(frozen=True)
class Own:
    """The user's own archives, or a folder with the environment folders in it.

    Attributes:
        paths: archives that together hold the dataset, or one folder.
    """

    paths: tuple[Path, ...]
    key: str = "own"

    @property
    def title(self) -> str:
        """Title for messages and notes: names without their folders, which mean nothing on another machine."""
        return "own copy " + ", ".join(path.name for path in self.paths)


Source: TypeAlias = Urls | Drive | Hub | Own


def domainbed_hub(folder: str) -> Hub:
    """The tarballs of one of DomainBed's authors, in DomainBed's layout: all in one, or an easy and a hard part."""
    name = f"/{folder}{ARCHIVE}"
    return Hub("hub", "PTeterwak/DomainBed_OOP", ((f"^all{name}",), (f"^easy{name}", f"^hard{name}")))


def parquet(repo: str, label: str = "label", path: str = "") -> Rows:
    """All parquet files of a repository."""
    return Rows("parquet", repo, ((r"\.parquet$",),), label=label, path=path)


_M3SDA = "http://csr.bu.edu/ftp/visda/2019/multi-source/"
_LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps/"
_ORIGINAL, _COPY = "Google Drive, DomainBed's link", "Google Drive, a user's copy (DomainBed issue 165)"

VLCS: tuple[Source, ...] = (
    domainbed_hub("VLCS"),
    Drive("original", _ORIGINAL, "1skwblH1_okBwxWxmRsp9_qi15hyPpxg8", "VLCS.tar.gz"),
    Drive("copy", _COPY, "1yDuLrJdPSvMbTmpq-7XmwG0HnJengD-T", "VLCS_copy"),
)
PACS: tuple[Source, ...] = (
    domainbed_hub("PACS"),
    Drive("original", _ORIGINAL, "1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd", "PACS.zip"),
    Drive("copy", _COPY, "1WWi9tuUNFmUiw7Eirq_JT_hxYZv3J-Vv", "PACS_copy"),
    parquet("flwrlabs/pacs"),
)
OFFICE_HOME: tuple[Source, ...] = (
    domainbed_hub("office_home"),
    Drive("original", _ORIGINAL, "1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC", "office_home.zip"),
    Drive("copy", _COPY, "1USXqK4nCvOAR5Ty4iwKcuCOrRJoRuDyU", "office_home_copy"),
    parquet("flwrlabs/office-home"),
)
TERRA_INCOGNITA: tuple[Source, ...] = (
    domainbed_hub("terra_incognita"),
    CameraTraps(
        "original",
        "LILA, the images and annotations of Caltech Camera Traps",
        (f"{_LILA}eccv_18_all_images_sm.tar.gz", f"{_LILA}eccv_18_annotations.tar.gz"),
    ),
)
DOMAIN_NET: tuple[Source, ...] = (
    domainbed_hub("domain_net"),
    Urls(
        "original",
        "Boston University, the archives of M3SDA (cleaned clipart and painting)",
        tuple(
            f"{_M3SDA}{part}.zip"
            for part in ("groundtruth/clipart", "infograph", "groundtruth/painting", "quickdraw", "real", "sketch")
        ),
    ),
    parquet("wltjr1007/DomainNet", label="category", path="image_path"),
)
