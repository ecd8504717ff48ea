"""What a simulation found, told to people: on the terminal, in files, in charts. Simulates nothing."""

from simulator.report.charts.tornado import TornadoRow
from simulator.report.compare import Comparison, compare_folders
from simulator.report.console import print_report
from simulator.report.document import result_json
from simulator.report.files import check_destination, draw_charts, write_result_folder
from simulator.report.saved import SavedResult, load_result_folder
from simulator.report.sweep_files import draw_comparison_chart, draw_sensitivity_chart, draw_sweep
from simulator.report.sweeps import SavedSweep
from simulator.report.validation import write_validation_document

__all__ = [
    "Comparison",
    "SavedResult",
    "SavedSweep",
    "TornadoRow",
    "check_destination",
    "compare_folders",
    "draw_charts",
    "draw_comparison_chart",
    "draw_sensitivity_chart",
    "draw_sweep",
    "load_result_folder",
    "print_report",
    "result_json",
    "write_result_folder",
    "write_validation_document",
]
