"""The published methods, one file each; importing a file registers its method.

CONTRIBUTING.md says what adding one takes.
"""

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import algorithms, register

# One line a method, in the order of the paper's Table 1.
from domainbed_sage.algorithms import erm  # isort: skip
from domainbed_sage.algorithms import irm  # isort: skip
from domainbed_sage.algorithms import dann  # isort: skip
from domainbed_sage.algorithms import mmd  # isort: skip
from domainbed_sage.algorithms import rsc  # isort: skip
from domainbed_sage.algorithms import iib  # isort: skip
from domainbed_sage.algorithms import sam  # isort: skip
from domainbed_sage.algorithms import sagm  # isort: skip
from domainbed_sage.algorithms import gga  # isort: skip
from domainbed_sage.algorithms import disam  # isort: skip
from domainbed_sage.algorithms import sage  # isort: skip

# Methods that are not in that table.
from domainbed_sage.algorithms import vrex  # isort: skip
from domainbed_sage.algorithms import groupdro  # isort: skip
from domainbed_sage.algorithms import sd  # isort: skip
from domainbed_sage.algorithms import mixup  # isort: skip
from domainbed_sage.algorithms import mldg  # isort: skip
from domainbed_sage.algorithms import selfreg  # isort: skip
from domainbed_sage.algorithms import fishr  # isort: skip

__all__ = [
    "Algorithm",
    "Metrics",
    "Problem",
    "algorithms",
    "dann",
    "disam",
    "erm",
    "fishr",
    "gga",
    "groupdro",
    "iib",
    "irm",
    "mixup",
    "mldg",
    "mmd",
    "register",
    "rsc",
    "sage",
    "sagm",
    "sam",
    "sd",
    "selfreg",
    "vrex",
]
