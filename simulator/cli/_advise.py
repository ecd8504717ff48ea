"""`sensitivity`, `plan` and `compare`: what would help, what would be best, what a change did."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.cli._output import RESULTS, overrides_of, print_table, say, write_json
from simulator.cli._progress import progress
from simulator.errors import EXIT_DONE

if TYPE_CHECKING:
    from simulator.advise import Effect, PlanSearch, Sensitivity
    from simulator.report import Comparison

_SHORT = {
    "cluster.nodes": "nodes",
    "parallelism.tensor_parallel": "TP",
    "parallelism.pipeline_parallel": "PP",
    "parallelism.virtual_pipeline": "VP",
    "training.micro_batch_size": "micro",
    "training.recompute": "recompute",
}
"""Heads of a table that must fit a terminal."""
_MANY_TIMES = 5
"""Times a figure from which on they are told instead of percents."""


def run_sensitivity(path: Path, changes: list[str], *, out: Path | None, as_json: bool, quiet: bool) -> int:
    """Try every figure of the hardware, print what each is worth, and draw the tornado chart.

    Raises:
        ClustersimError: Whatever is wrong with the scenario or the plan.
    """
    from simulator.advise import sensitivity
    from simulator.scenario import load_scenario, slug

    scenario = load_scenario(path, overrides_of(changes))
    folder = out if out is not None else None if as_json else RESULTS / f"{slug(scenario.name)}-sensitivity"
    with progress(quiet) as report:
        found = sensitivity(scenario, progress=report)
    if folder is not None:
        _draw(found, folder)
    if as_json:
        write_json(_as_json(found))
    elif not quiet:
        _print(found)
        say(f"chart: {folder / 'sensitivity.png'}" if folder is not None else "")
    return EXIT_DONE


def run_plan(
    path: Path, changes: list[str], max_gpus: int | None, *, objective: str, as_json: bool, quiet: bool
) -> int:
    """Search the plans of a job and print the best ten, with what limits each.

    Raises:
        ClustersimError: Whatever is wrong with the scenario, or no plan is legal.
    """
    from simulator.advise import search_plans
    from simulator.errors import ClustersimError
    from simulator.scenario import load_scenario

    if objective not in ("throughput", "throughput_per_gpu"):
        raise ClustersimError(f'plan: objective "{objective}" is neither throughput nor throughput_per_gpu')
    scenario = load_scenario(path, overrides_of(changes))
    with progress(quiet) as report:
        found = search_plans(
            scenario,
            max_gpus or scenario.cluster.num_gpus,
            objective="throughput" if objective == "throughput" else "throughput_per_gpu",
            progress=report,
        )
    if as_json:
        write_json(_plans_as_json(found))
    elif not quiet:
        _print_plans(found, path)
    return EXIT_DONE


def _print_plans(found: PlanSearch, path: Path) -> None:
    from simulator.units import human

    rate = f" ({found.simulated / found.simulating_s:,.0f} a second)" if found.simulated else ""
    say(
        f"{found.enumerated:,} plans: {found.illegal:,} illegal, {found.without_memory:,} without room "
        f"in memory, {found.bounded:,} that cannot be among the best, {found.simulated:,} simulated{rate}, "
        f"{found.too_large:,} of them too large; all in {human(found.wall_s, 'time')}"
    )
    if not found.best:
        least = (
            "" if found.least_bytes is None else f": a GPU needs {human(found.least_bytes, 'bytes')} or more"
        )
        say(f"no plan fits{least}; `clustersim run {path}` tells what would make it fit")
        return
    keys = list(found.best[0].overrides)
    heads = tuple(_SHORT.get(key, key) for key in keys)
    rows = [
        (
            *(str(plan.overrides[key]) for key in keys),
            _figure(plan.result.samples_per_s, None, 0),
            f"{plan.result.mfu:.1%}" if plan.result.mfu is not None else "-",
            f"{plan.result.peak_memory_bytes / 2**30:.1f}",
            plan.result.bottlenecks[0].resource if plan.result.bottlenecks else "-",
        )
        for plan in found.best
    ]
    print_table((*heads, "samples/s", "MFU", "GiB", "limited by"), rows)
    if found.own is not None:
        say(f"the scenario's own plan: {_figure(found.own.samples_per_s, None, 0)} samples/s")
    settings = " ".join(
        f"--set {key}={'null' if value is None else value}" for key, value in found.best[0].settings.items()
    )
    step = human(found.best[0].result.step_time_s, "time", 4)
    say(f"the best, {step} a step: clustersim run {shlex.quote(str(path))} {settings}")


def _plans_as_json(found: PlanSearch) -> dict[str, object]:
    counts = ("enumerated", "illegal", "without_memory", "bounded", "simulated", "too_large")
    figures = ("least_bytes", "simulating_s", "wall_s")
    return {
        **{name: getattr(found, name) for name in (*counts, *figures)},
        "own_samples_per_s": found.own.samples_per_s if found.own is not None else None,
        "best": [
            {
                "overrides": dict(plan.settings),
                "num_gpus": plan.result.num_gpus,
                "step_time_s": plan.result.step_time_s,
                "samples_per_s": plan.result.samples_per_s,
                "tokens_per_s": plan.result.tokens_per_s,
                "mfu": plan.result.mfu,
                "peak_memory_bytes": plan.result.peak_memory_bytes,
                "limited_by": plan.result.bottlenecks[0].resource if plan.result.bottlenecks else None,
            }
            for plan in found.best
        ],
    }


def run_compare(folders: list[Path], *, out: Path | None, as_json: bool, quiet: bool) -> int:
    """Print results side by side, what changed in the scenario first, and draw their steps.

    Raises:
        ClustersimError: Not two results or more.
    """
    from simulator.report import compare_folders, draw_comparison_chart

    found = compare_folders(folders)
    if out is not None:
        draw_comparison_chart(found, out)
    if as_json:
        write_json(
            {
                "names": found.names,
                "changes": found.changes,
                "figures": found.figures,
                "breakdown": found.breakdown,
            }
        )
    elif not quiet:
        _print_comparison(found)
        if out is not None:
            say(f"chart: {out / 'comparison.png'}")
    return EXIT_DONE


def _draw(found: Sensitivity, folder: Path) -> None:
    from simulator.report import TornadoRow, draw_sensitivity_chart

    result = found.result
    rows = [TornadoRow(e.key, e.value, e.less_is_better, e.change) for e in found.effects]
    subject = f"{result.model} on {result.num_gpus:,} x {result.accelerator}  ({result.name})"
    draw_sensitivity_chart(rows, subject, folder)


def _print(found: Sensitivity) -> None:
    from simulator.advise.sensitivity import FACTORS
    from simulator.report.text import resource_label

    heads = ("figure", "value", "half", "-10 %", "+10 %", "double")
    told = [effect for effect in found.effects if effect.reach >= 0.0005]
    rows = [(e.key, e.value, *(_percent(e, factor) for factor in FACTORS)) for e in told]
    say(f"{found.result.name}: change of throughput with each figure of the hardware")
    print_table(heads, rows, numeric=True)
    left = len(found.effects) - len(told)
    if left:
        say(f"{left} other figures change it by less than 0.05 %")
    if any(len(effect.change) < len(FACTORS) for effect in told):
        say("-: a whole number, which the change would leave as it is")
    turning = found.turning
    if turning is None:
        say("no single figure helps")
        return
    now = f"most of the critical path is limited by {resource_label(turning.limits)}"
    if turning.next is None:
        say(f"{now}; at {turning.factor:.0f} times {turning.key} it still is")
    else:
        say(
            f"{now}, until {turning.key} is {turning.factor:.2f} times as good ({turning.value}); "
            f"then by {resource_label(turning.next)}, at {turning.speedup:.2f} times the throughput"
        )


def _percent(effect: Effect, factor: float) -> str:
    if factor not in effect.change:
        return "-"
    change = effect.change[factor]
    return "does not fit" if change is None else f"{change:+.1%}".replace("%", " %")


def _as_json(found: Sensitivity) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "name": found.result.name,
        "step_time_s": found.result.step_time_s,
        "figures": [
            {
                "key": effect.key,
                "value": effect.value,
                "elasticity": effect.elasticity,
                "change": {f"{factor:g}": change for factor, change in effect.change.items()},
            }
            for effect in found.effects
        ],
        "turning": asdict(found.turning) if found.turning is not None else None,
    }


def _print_comparison(found: Comparison) -> None:
    changes, left_out = found.told()
    if changes:
        rows = [(key, *values) for key, values in changes.items()]
        print_table(("changed in the scenario", *found.names), rows, split=True)
    else:
        say("the scenarios are the same")
    if left_out:
        more = ", ".join(f"{count} of {part}" for part, count in left_out.items())
        say(f"and what belongs to these parts, which --json lists: {more}")
    say("")
    rows = []
    for words, figures in found.figures.items():
        rows.append((words, *(_figure(figure, figures[0], place) for place, figure in enumerate(figures))))
    print_table(("figure", *found.names), rows, numeric=True, split=True)
    say("")
    causes = sorted(found.breakdown.items(), key=lambda item: -max(item[1]))
    rows = [
        (cause, *(_figure(s * 1e3, values[0] * 1e3, place) for place, s in enumerate(values)))
        for cause, values in causes
        if max(values) >= 0.0005 * sum(max(v) for v in found.breakdown.values())
    ]
    print_table(("part of a step [ms]", *found.names), rows, numeric=True, split=True)


def _figure(value: float | None, first: float | None, place: int) -> str:
    if value is None:
        return "does not fit"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if place == 0 or not first:
        return text
    ratio = value / first
    return f"{text} (x {ratio:.3g})" if ratio > _MANY_TIMES else f"{text} ({round(ratio - 1, 3) + 0.0:+.1%})"
