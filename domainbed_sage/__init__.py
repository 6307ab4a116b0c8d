"""A DomainBed-style benchmark suite for domain generalization around SAGE.

The public names are few: a run is described by a `RunConfig`, executed by `train.run`, and read back with `records`.
An algorithm of your own derives from `Algorithm` and enters the registry `algorithms`.
"""

__version__ = "0.1.0"
