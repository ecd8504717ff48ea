"""`run`, `check` and `plot`: a scenario in, a report and a folder out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.cli._output import RESULTS, complain, console, overrides_of, say, write_json
from simulator.cli._progress import Report, progress
from simulator.errors import EXIT_DONE, ClustersimError

if TYPE_CHECKING:
    from simulator.analysis.result import Result
    from simulator.scenario import Scenario


def run_scenario(
    path: Path, changes: list[str], *, out: Path | None, as_json: bool, quiet: bool, force: bool
) -> int:
    """Simulate one scenario, print its report and write its folder.

    Args:
        path: Scenario file.
        changes: ``key=value`` each.
        out: Folder of the result; `RESULTS` and the scenario's name if not given, and nothing is written
            where only JSON was asked for.
        as_json: Print the JSON of the result instead of the report.
        quiet: Print nothing but errors (and the JSON, if asked for).
        force: Replace an existing folder.

    Raises:
        ClustersimError: Whatever is wrong with the scenario, the plan or the folder.
    """
    from simulator.scenario import load_scenario, resolved_yaml, slug

    scenario = load_scenario(path, overrides_of(changes))
    folder = out if out is not None else None if as_json else RESULTS / slug(scenario.name)
    if folder is not None:
        from simulator.report import check_destination, write_result_folder

        check_destination(folder, force)
    with progress(quiet) as report:
        result = _simulate(scenario, report)
        if folder is not None:
            write_result_folder(result, resolved_yaml(scenario), folder, force=force, charts=True)
    if as_json:
        from simulator.report import result_json

        write_json(result_json(result))
    elif not quiet:
        from simulator.report import print_report

        print_report(result, folder, console())
    return EXIT_DONE


def check_scenarios(paths: list[Path], changes: list[str]) -> int:
    """Validate and plan every file: right ones and warnings on stdout, a line on stderr for each mistake.

    Returns:
        0 if all are right, else the exit code of the first that is not.
    """
    overrides = overrides_of(changes)
    code = EXIT_DONE
    for path in paths:
        try:
            summary, warnings = _checked(path, overrides)
        except ClustersimError as error:
            complain(str(error))
            code = code or error.exit_code
        else:
            say(f"{path}: ok ({summary})")
            for warning in warnings:
                say(f"  ! {warning}")
    return code


def redraw(folders: list[Path], *, wanted: dict[str, str], quiet: bool) -> int:
    """Draw the charts of saved results and sweeps again, beside them.

    Args:
        folders: Of results or sweeps.
        wanted: Of sweeps, any of ``x``, ``y``, ``by`` and ``kind``.
        quiet: Print nothing but errors.

    Raises:
        ClustersimError: Not such a folder, or a chart that cannot be drawn from it.
    """
    from simulator.cli._sweep import draw, is_sweep
    from simulator.report import draw_charts, load_result_folder

    for number, folder in enumerate(folders):
        with progress(quiet) as report:
            report(number / len(folders), f"drawing {folder}")
            if is_sweep(folder):
                drawn, nothing = draw(folder, wanted)
                if nothing:
                    raise ClustersimError(f"{folder}: no charts: {nothing}")
                told = f"{folder / 'charts'}: {', '.join(drawn)}"
            elif wanted:
                raise ClustersimError(f"{folder}: --x, --y, --by and --kind are for sweeps")
            else:
                draw_charts(load_result_folder(folder), folder)
                told = f"{folder}: charts drawn"
        if not quiet:
            say(told)
    return EXIT_DONE


def _simulate(scenario: Scenario, report: Report) -> Result:
    from simulator.advise import rank_bottlenecks, remedies
    from simulator.run import run

    outcome = run(scenario, progress=lambda part, what: report(part / 2, what))
    if outcome.result.fits:
        return rank_bottlenecks(outcome, progress=lambda part, what: report((1 + part) / 2, what))
    result = rank_bottlenecks(outcome, progress=lambda part, what: report((2 + part) / 4, what))
    found = remedies(outcome, progress=lambda part, what: report((3 + part) / 4, what))
    return replace(result, remedies=found)


def _checked(path: Path, overrides: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    from simulator.run import check
    from simulator.scenario import load_scenario

    scenario = load_scenario(path, overrides)
    lowered = check(scenario)
    said = f"{scenario.model.name} on {scenario.cluster.num_gpus:,} GPUs"
    return said, (*scenario.warnings, *lowered.warnings)
