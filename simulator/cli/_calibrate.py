"""`calibrate`: constants from measurements, or from this machine, as a table and a file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from simulator.cli._output import print_table, say
from simulator.cli._progress import Report, progress
from simulator.errors import EXIT_DONE, ClustersimError

if TYPE_CHECKING:
    from simulator.calibration import Calibrated, Measurements, Trial
    from simulator.specs import Calibration

_MOST_REASONS: Final = 10


def run_calibration(
    measurements: Path | None,
    *,
    out: Path | None,
    base: str,
    leave_one_out: bool,
    device: bool,
    accelerator: str | None,
    scale_up: str | None,
    quiet: bool,
) -> int:
    """Fit the constants, print them beside those of the base, and write the file.

    Raises:
        ClustersimError: Whatever is wrong with the measurements or the destination.
        EnvironmentFailure: Asked to measure this machine where there is no PyTorch or no GPU.
    """
    from simulator.calibration import check_calibration_path, write_calibration
    from simulator.specs import Calibration

    if device == (measurements is not None):
        raise ClustersimError("calibrate: one of --measurements DIR and --device is wanted")
    if out is not None:
        check_calibration_path(out)
    started = Calibration.load(base)
    with progress(quiet) as report:
        if measurements is not None:
            read, done = _from_folder(measurements, started, out, leave_one_out, report)
        else:
            read, done = _from_device(started, out, accelerator, scale_up, report)
    if out is not None:
        write_calibration(done.calibration, out)
    if not quiet:
        _print(read, done, started, out)
    return EXIT_DONE


def _from_folder(
    folder: Path, base: Calibration, out: Path | None, leave_one_out: bool, report: Report
) -> tuple[Measurements, Calibrated]:
    from simulator.calibration import calibrate, read_measurements
    from simulator.validation import fit_steps

    report(0.0, "reading measurements")
    read = read_measurements(folder)
    name = base.name if out is None else out.stem
    # The folder is another one wherever the command runs again, and no business of the file's readers.
    command = f"clustersim calibrate --measurements DIR{' --leave-one-out' * leave_one_out} --out {name}.yaml"
    done = calibrate(
        read, base=base, name=name, command=command, leave_one_out=leave_one_out, progress=report
    )
    # Steps are predicted with the constants of kernels, so theirs come last.
    whole = fit_steps(folder, done.calibration, command=command, leave_one_out=leave_one_out, progress=report)
    return read, replace(done, calibration=whole)


def _from_device(
    base: Calibration, out: Path | None, accelerator: str | None, scale_up: str | None, report: Report
) -> tuple[Measurements, Calibrated]:
    import tempfile

    from simulator.calibration import (
        calibrate,
        identify,
        measure,
        read_measurements,
        require_device,
        scale_up_of,
    )
    from simulator.catalog import entry

    torch = require_device()
    if out is None:
        raise ClustersimError("calibrate --device: --out FILE is wanted; what was measured would be lost")
    machine = identify(torch) if accelerator is None else str(entry("accelerators", accelerator)["name"])
    with tempfile.TemporaryDirectory() as folder:
        measure(
            Path(folder),
            accelerator=machine,
            scale_up=scale_up or scale_up_of(machine),
            progress=lambda part, what: report(part * 0.8, what),
        )
        read = read_measurements(Path(folder))
    command = f"clustersim calibrate --device --out {out.name}"
    done = calibrate(read, base=base, name=out.stem, command=command, machine=machine)
    return read, done


def _print(read: Measurements, done: Calibrated, base: Calibration, out: Path | None) -> None:
    for file, rows in read.files.items():
        say(f"{Path(file).name}: {rows:,} measurements")
    if read.unused:
        ranked = sorted(read.unused.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
        print_table(("rows", "not used because"), [(f"{rows:,}", reason) for reason, rows in ranked])
    say("")
    table = []
    for name, constant in done.calibration.constants.items():
        if constant.basis != "fitted" or not constant.command:
            continue
        before = base.constants[name].value
        change = f"{math.log(constant.value / before):+.0%}" if before > 0 else "-"
        told = (
            f"{before:.3g}",
            f"{constant.value:.3g}",
            constant.unit,
            f"{constant.uncertainty:.0%}",
            change,
        )
        table.append((name, *told))
    print_table(("constant", base.name, "fitted", "unit", "uncertain by", "change"), table, numeric=True)
    if done.kept:
        say(f"\nnot determined by these measurements, as in {base.name}: {', '.join(done.kept)}")
    say("")
    trials = [
        (f"{trial.fit}, without {trial.left_out}" if trial.left_out else trial.fit, *_trial(trial))
        for trial in done.trials
    ]
    print_table(("fit", "rows", "mean abs. error", "bias"), trials, numeric=True)
    if out is not None:
        say(f"\ncalibration: {out}")


def _trial(trial: Trial) -> tuple[str, str, str]:
    return f"{trial.rows:,}", f"{trial.mean:.1%}", f"{trial.bias:+.1%}"
