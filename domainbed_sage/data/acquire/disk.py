"""Disk space for datasets: checked before a large write, and explained if it still runs out."""

from functools import partial

from domainbed_sage.core import files
from domainbed_sage.core.files import readable

explained = partial(files.explained, elsewhere="--data_dir")
require = partial(files.require_space, advice="Free some space, or choose another --data_dir. Nothing was written.")

__all__ = ["explained", "readable", "require"]
