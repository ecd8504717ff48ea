"""The commands and their arguments; each hands on to the room that does the work.

Nothing heavy is imported here: `clustersim --help` must answer at once, so the rooms come in inside the
functions that use them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.errors import EXIT_DONE

app = typer.Typer(
    name="clustersim",
    help="Simulates clusters that train large models: what a step takes, and what holds it up.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the scenario; may be repeated."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No report and no progress; errors only.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"clustersim {version('clustersim')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML or JSON).", show_default=False)],
    changes: _Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the result; results/<name> if not given.")
    ] = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    force: _Force = False,
) -> int:
    """Simulate a scenario, print the report and write its result folder."""
    from simulator.cli._run import run_scenario

    return run_scenario(scenario, changes or [], out=out, as_json=as_json, quiet=quiet, force=force)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Scenario files.", show_default=False)
    ],
    changes: _Set = None,
) -> int:
    """Read, validate and plan scenarios without simulating them."""
    from simulator.cli._run import check_scenarios

    return check_scenarios(files, changes or [])


@app.command()
def catalog(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="Such as accelerators.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One entry, with sources.")] = None,
) -> int:
    """Show what can be named in a scenario: kinds, the entries of a kind, or all figures of one entry."""
    from simulator.cli._catalog import show_catalog

    show_catalog(kind, name)
    return EXIT_DONE


@app.command()
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page for people: every key, its default, its meaning.")
    ] = False,
) -> int:
    """Print the JSON Schema of scenarios, for editors, or a reference of all keys."""
    import json

    from simulator.scenario import json_schema, write_reference

    typer.echo(write_reference() if markdown else json.dumps(json_schema(), indent=2))
    return EXIT_DONE


@app.command()
def plot(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders of results or sweeps.", show_default=False),
    ],
    x: Annotated[str | None, typer.Option(metavar="KEY", help="Of a sweep: along x.")] = None,
    y: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Of a sweep: the figure, a column of `export`.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="KEY", help="Of a sweep: a line each.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="line, bar, heatmap, bottleneck, stack, scatter, pareto, scaling or influence."),
    ] = None,
    quiet: _Quiet = False,
) -> int:
    """Draw the charts of saved results or sweeps again, or another chart of a sweep."""
    from simulator.cli._run import redraw

    wanted = {"x": x, "y": y, "by": by, "kind": kind}
    return redraw(folders, wanted={key: value for key, value in wanted.items() if value}, quiet=quiet)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).", show_default=False)],
    changes: _Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the sweep; results/<name> if not given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1024, help="Processes; one a core if not given.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A dask scheduler to give the points to; local starts one."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N points.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run more than 24,000 points.")] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long a point may take.")
    ] = 600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the points and simulate none.")] = False,
    charts: Annotated[bool, typer.Option(help="Draw charts when the points are done.")] = True,
    quiet: _Quiet = False,
) -> int:
    """Simulate many points; the same command goes on where an earlier one was stopped."""
    from simulator.cli._sweep import run_sweep_file

    return run_sweep_file(
        file,
        changes or [],
        out=out,
        workers=workers,
        cluster=cluster,
        limit=limit,
        many=yes,
        timeout_s=timeout,
        dry_run=dry_run,
        charts=charts,
        quiet=quiet,
    )


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="SWEEP_DIR", help="Folder of a sweep.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="FILE.csv or FILE.parquet; points.csv if not given."
        ),
    ] = None,
    quiet: _Quiet = False,
) -> int:
    """Write the points of a sweep as CSV or Parquet."""
    from simulator.cli._sweep import export_sweep

    return export_sweep(folder, to, quiet=quiet)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RESULT_DIR...", help="Result folders.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a chart; none if not given.")
    ] = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> int:
    """Show results side by side: what changed in the scenario, and what that did."""
    from simulator.cli._advise import run_compare

    return run_compare(folders, out=out, as_json=as_json, quiet=quiet)


@app.command()
def sensitivity(
    scenario: Annotated[Path, typer.Argument(help="Scenario file.", show_default=False)],
    changes: _Set = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the chart; results/<name>-sensitivity if not given."),
    ] = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> int:
    """Show what every figure of the hardware is worth, and what limits next."""
    from simulator.cli._advise import run_sensitivity

    return run_sensitivity(scenario, changes or [], out=out, as_json=as_json, quiet=quiet)


@app.command()
def plan(
    scenario: Annotated[Path, typer.Argument(help="Scenario file.", show_default=False)],
    changes: _Set = None,
    max_gpus: Annotated[
        int | None,
        typer.Option(
            "--max-gpus",
            metavar="N",
            min=1,
            help="GPUs at most; those of the scenario if not given.",
            show_default=False,
        ),
    ] = None,
    objective: Annotated[str, typer.Option(help="throughput, or throughput_per_gpu.")] = "throughput",
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> int:
    """Search all parallel plans of a job for the best ten that fit."""
    from simulator.cli._advise import run_plan

    return run_plan(scenario, changes or [], max_gpus, objective=objective, as_json=as_json, quiet=quiet)


@app.command()
def validate(
    measurements: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="Measurements: a file or a folder.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE|DIR", help="Where predictions go; a folder for a folder."),
    ] = None,
    as_json: _Json = False,
    only: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Rows whose id or group matches.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N rows, always the same, from all groups.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Processes.")] = 1,
    calibration: Annotated[str, typer.Option(metavar="NAME|PATH", help="Constants that predict.")] = "shared",
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write the errors as a document with a chart."),
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Write cross-validated error bands, for a folder."),
    ] = None,
    quiet: _Quiet = False,
    force: _Force = False,
) -> int:
    """Predict measured runs, kernels and collectives, and print how far off the predictions are."""
    from simulator.cli._validate import run_validation

    return run_validation(
        measurements,
        out=out,
        as_json=as_json,
        only=only,
        sample=sample,
        workers=workers,
        calibration=calibration,
        document=report,
        evidence=evidence,
        quiet=quiet,
        force=force,
    )


@app.command()
def calibrate(
    measurements: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with files of measurements.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.yaml", help="Where the calibration goes.")
    ] = None,
    base: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Where constants come from that are not fitted.")
    ] = "shared",
    leave_one_out: Annotated[
        bool,
        typer.Option("--leave-one-out", help="Fit again without each accelerator and each source."),
    ] = False,
    device: Annotated[
        bool, typer.Option("--device", help="Measure this machine (needs PyTorch and a GPU).")
    ] = False,
    accelerator: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --device: the catalogue's name of the GPU.")
    ] = None,
    scale_up: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --device: what joins the GPUs.")
    ] = None,
    quiet: _Quiet = False,
) -> int:
    """Fit the constants of the cost models to measurements, or to this machine."""
    from simulator.cli._calibrate import run_calibration

    return run_calibration(
        measurements,
        out=out,
        base=base,
        leave_one_out=leave_one_out,
        device=device,
        accelerator=accelerator,
        scale_up=scale_up,
        quiet=quiet,
    )
