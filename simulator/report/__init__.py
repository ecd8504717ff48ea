"""What a simulation found, told to people: on the terminal, in files, in charts. Simulates nothing."""

from simulator.report.console import print_report
from simulator.report.document import result_json
from simulator.report.files import check_destination, draw_charts, write_result_folder
from simulator.report.saved import SavedResult, load_result_folder
from simulator.report.sweep_files import draw_sweep
from simulator.report.sweeps import SavedSweep

__all__ = [
    "SavedResult",
    "SavedSweep",
    "check_destination",
    "draw_charts",
    "draw_sweep",
    "load_result_folder",
    "print_report",
    "result_json",
    "write_result_folder",
]
