"""Data sheets by name: accelerators, interconnects, hosts, storage, systems and models.

Every entry is one small file under ``data/<kind>/<name>.yaml``; every figure in it names its
source and its basis. Names are found whatever their case, hyphens, underscores and spaces.
"""

from simulator.catalog._files import KINDS, Kind, UnknownEntry, entry, figure, names, path

__all__ = ["KINDS", "Kind", "UnknownEntry", "entry", "figure", "names", "path"]
