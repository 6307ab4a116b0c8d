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
from domainbed_sage.algorithms import fish  # isort: skip
from domainbed_sage.algorithms import sam  # isort: skip
from domainbed_sage.algorithms import gsam  # isort: skip
from domainbed_sage.algorithms import gam  # isort: skip
from domainbed_sage.algorithms import sagm  # isort: skip
from domainbed_sage.algorithms import gga  # isort: skip
from domainbed_sage.algorithms import disam  # isort: skip
from domainbed_sage.algorithms import boa  # isort: skip
from domainbed_sage.algorithms import sage  # isort: skip

# Methods that are not in that table.
from domainbed_sage.algorithms import vrex  # isort: skip
from domainbed_sage.algorithms import groupdro  # isort: skip
from domainbed_sage.algorithms import sd  # isort: skip
from domainbed_sage.algorithms import mixup  # isort: skip
from domainbed_sage.algorithms import mldg  # isort: skip
from domainbed_sage.algorithms import selfreg  # isort: skip
from domainbed_sage.algorithms import fishr  # isort: skip
from domainbed_sage.algorithms import asam  # isort: skip
from domainbed_sage.algorithms import friendly_sam  # isort: skip
from domainbed_sage.algorithms import swad  # isort: skip
from domainbed_sage.algorithms import clipood  # isort: skip
from domainbed_sage.algorithms import beta_average  # isort: skip
from domainbed_sage.algorithms import zero_shot  # isort: skip

# Methods for several tasks, in the order of the paper's Table 2.
from domainbed_sage.algorithms import fmtl  # isort: skip
from domainbed_sage.algorithms import samo  # isort: skip

__all__ = [
    "Algorithm",
    "Metrics",
    "Problem",
    "algorithms",
    "asam",
    "beta_average",
    "boa",
    "clipood",
    "dann",
    "disam",
    "erm",
    "fish",
    "fishr",
    "fmtl",
    "friendly_sam",
    "gam",
    "gga",
    "groupdro",
    "gsam",
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
    "samo",
    "sd",
    "selfreg",
    "swad",
    "vrex",
    "zero_shot",
]
