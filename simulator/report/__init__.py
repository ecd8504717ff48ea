"""What a simulation found, told to people: on the terminal, in files, in charts. Simulates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "TornadoRow": "charts.tornado",
    "Comparison": "compare",
    "compare_folders": "compare",
    "print_report": "console",
    "result_json": "document",
    "check_destination": "files",
    "draw_charts": "files",
    "write_result_folder": "files",
    "SavedResult": "saved",
    "load_result_folder": "saved",
    "draw_comparison_chart": "sweep_files",
    "draw_sensitivity_chart": "sweep_files",
    "draw_sweep": "sweep_files",
    "SavedSweep": "sweeps",
    "write_validation_document": "validation",
}


def __getattr__(name: str) -> Any:
    """Each report is imported when it is first asked for: JSON needs no charts, a chart no console."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
