"""What a simulation found, told to people: on the terminal, in files, in charts. Simulates nothing."""

from simulator.report.console import print_report
from simulator.report.document import result_json
from simulator.report.files import check_destination, draw_charts, write_result_folder
from simulator.report.saved import SavedResult, load_result_folder

__all__ = [
    "SavedResult",
    "check_destination",
    "draw_charts",
    "load_result_folder",
    "print_report",
    "result_json",
    "write_result_folder",
]
