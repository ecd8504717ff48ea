"""Sweeps: a scenario, axes over any of its keys, workers, and a ledger that loses nothing."""

from simulator.sweep.definition import Grid, Sample, Sweep
from simulator.sweep.drive import Summary, default_workers, planned, run_sweep
from simulator.sweep.enumeration import MANY, Point
from simulator.sweep.file import load_sweep_file
from simulator.sweep.table import SweepTable, export, load_sweep, load_table
from simulator.sweep.version import code_version

__all__ = [
    "MANY",
    "Grid",
    "Point",
    "Sample",
    "Summary",
    "Sweep",
    "SweepTable",
    "code_version",
    "default_workers",
    "export",
    "load_sweep",
    "load_sweep_file",
    "load_table",
    "planned",
    "run_sweep",
]
