"""The report on the terminal: what a newcomer understands, at any width, in any encoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from simulator.analysis.result import Bottleneck, Evidence, Result
from simulator.report.campaign import print_campaign
from simulator.report.page import Page
from simulator.report.palette import colour
from simulator.report.text import (
    NEGLIGIBLE,
    cause_label,
    family,
    gib,
    grouped,
    largest_first,
    part_label,
    percent,
    quantity,
    resource_label,
    seconds,
    shown,
    step_time,
    told,
)

STARVING: Final = 0.05
"""Part of the step spent waiting for data from which the report says that the job starves."""

_MAX_CAUSES: Final = 14
_PASSING: Final = ("activations", "transient", "parameter_buffers")
"""Parts of the memory that come and go within a step."""
_LIMIT: Final = 120


def print_report(result: Result, folder: Path | None, console: Console) -> None:
    """Tell a person what the simulation found.

    Args:
        result: What was found.
        folder: Where its files are; None if none were written.
        console: Where to print; its width, encoding and colours are respected.
    """
    page = Page(console)
    _headline(page, result)
    _throughput(page, result)
    _spread(page, result)
    _where_the_time_went(page, result)
    _memory(page, result)
    _bottlenecks(page, result)
    print_campaign(page, result)
    _basis(page, result)
    _footer(page, result, folder)


def _headline(page: Page, result: Result) -> None:
    machine = f"{result.num_gpus:,} x {shown(result.accelerator, _LIMIT)}"
    model = shown(result.model, _LIMIT)
    if not result.fits:
        needs = f"needs {gib(result.peak_memory_bytes)} a GPU, has {gib(result.memory_capacity_bytes)}"
        if result.peak_memory_bytes <= result.memory_capacity_bytes:
            needs = "; ".join(_host_needs(result)) or needs
        page.line(f"{model} does not fit on {machine}: {needs}.", style="bold red")
        return
    verb = "trains" if result.num_gpus == 1 else "train"
    speed = ""
    if result.tokens_per_s_per_gpu is not None:
        speed = f" at {quantity(result.tokens_per_s_per_gpu)} {_unit(result)}/s per GPU"
    elif result.samples_per_s is not None:
        speed = f" at {quantity(result.samples_per_s)} samples/s"
    used = f" (MFU {percent(result.mfu)})" if result.mfu is not None else ""
    step = step_time(result.step_time_s)
    page.line(f"{machine} {verb} {model}{speed}{used}; a step takes {step}.", style="bold")
    stall = sum(value for cause, value in result.breakdown.items() if family(cause) == "data")
    if result.step_time_s > 0 and stall >= STARVING * result.step_time_s:
        share = percent(stall / result.step_time_s)
        page.line(
            f"The job starves on {_culprit(result)}: the GPUs wait for data during {share} of the step.",
            "red",
        )


def _unit(result: Result) -> str:
    """What is counted: samples of a single token, such as images, are none."""
    single = result.tokens_per_s is not None and result.tokens_per_s == result.samples_per_s
    return "samples" if single else "tokens"


def _culprit(result: Result) -> str:
    for bottleneck in result.bottlenecks:
        name = bottleneck.resource
        if name.startswith("storage"):
            return f"storage ({resource_label(name)})"
        if "cpu" in name:
            return "the CPUs that load and decode samples"
    return "storage"


def _throughput(page: Page, result: Result) -> None:
    page.title("Throughput")
    figures = [
        ("step time", step_time(result.step_time_s)),
        *((("tokens/s", _maybe(result.tokens_per_s)),) if _unit(result) == "tokens" else ()),
        (f"{_unit(result)}/s per GPU", _maybe(result.tokens_per_s_per_gpu)),
        ("samples/s", _maybe(result.samples_per_s)),
        ("TFLOP/s per GPU", _maybe(result.model_tflops_per_gpu)),
        ("MFU", "-" if result.mfu is None else percent(result.mfu)),
        ("HFU", "-" if result.hfu is None else percent(result.hfu)),
    ]
    page.rows([(name, figure, "", 0.0, "") for name, figure in figures])
    degrees = ", ".join(f"{shown(key)} {size:,}" for key, size in result.parallelism.items() if size != 1)
    if degrees:
        page.line(f"plan: {degrees}", indent=2)
    meaning = (
        "MFU: arithmetic that the model needs / peak of the training precision; HFU counts recomputation too."
    )
    page.line(meaning, style="dim", indent=2)
    if not result.fits:
        page.line("No throughput: the step time is what a step would take if the memory sufficed.", indent=2)


def _spread(page: Page, result: Result) -> None:
    times = result.step_times
    if times is None:
        return
    page.title("How the step time spreads")
    waiting = percent(times.slowest_replica_s / times.mean_s)
    figures = [
        ("p50", step_time(times.p50_s), ""),
        ("p95", step_time(times.p95_s), ""),
        ("p99", step_time(times.p99_s), ""),
        ("mean", step_time(times.mean_s), ""),
        ("undisturbed", step_time(times.undisturbed_s), ""),
        ("waiting for the slowest replica", seconds(times.slowest_replica_s), waiting),
    ]
    page.rows([(name, figure, second, 0.0, "") for name, figure, second in figures])
    draws = "draw" if times.seeds == 1 else "draws"
    page.line(f"{times.seeds:,} {draws}; {shown(times.method, 200)}.", style="dim", indent=2)


def _maybe(value: float | None) -> str:
    return "-" if value is None else quantity(value)


def _where_the_time_went(page: Page, result: Result) -> None:
    page.title("Where the time of a step went")
    causes = grouped(result.breakdown, _MAX_CAUSES)
    longest = max((value for _, value in causes), default=1.0)
    rows = [
        (cause_label(cause), part, share, value / longest, colour(cause))
        for (cause, value), (part, share) in zip(causes, told(causes, result.step_time_s), strict=True)
    ]
    page.rows([*rows, ("step", step_time(result.step_time_s), "100.0 %", 0.0, "")])


def _memory(page: Page, result: Result) -> None:
    page.title("Memory at the peak, per GPU")
    peak, capacity = result.peak_memory_bytes, result.memory_capacity_bytes
    whole = max(peak, capacity, 1)
    rows = [
        (
            part_label(part),
            gib(size),
            percent(size / capacity) if capacity else "",
            size / whole,
            colour(part),
        )
        for part, size in grouped(result.memory_by_part, _MAX_CAUSES)
    ]
    rows.append(("peak", gib(peak), percent(peak / capacity) if capacity else "", peak / whole, "#6B6B6B"))
    rows.append(("capacity", gib(capacity), "", capacity / whole, "#B8B8B8"))
    page.rows(rows)
    if peak <= capacity:
        page.line(f"fits: {gib(capacity - peak)} free", style="green", indent=2)
    else:
        for line in _shortfall(result):
            page.line(line, style="bold red", indent=2)
        _remedies(page, result)
    _host_memory(page, result)


def _host_memory(page: Page, result: Result) -> None:
    """What is offloaded, to a node's memory and to its drives."""
    if not result.host_memory_capacity_bytes:
        return
    page.title("Offloaded, per node")
    needs, capacity = result.host_memory_bytes, result.host_memory_capacity_bytes
    whole = max(needs, capacity, 1)
    rows = [
        (f"{part_label(part)}{where}", gib(size), percent(size / capacity), size / whole, colour(part))
        for where, parts in (("", result.host_memory_by_part), (" on drives", result.drives_by_part))
        for part, size in largest_first(parts)
    ]
    page.rows([*rows, ("host memory", gib(capacity), "", capacity / whole, "#B8B8B8")])
    short = _host_needs(result)
    if not short:
        page.line(f"fits: {gib(capacity - needs)} free", style="green", indent=2)
    for line in short:
        page.line(f"does not fit: {line}", style="bold red", indent=2)
    drives = sum(result.drives_by_part.values())
    if drives and result.drives_capacity_bytes is None:
        page.line(f"drives: {gib(drives)}; how much they hold is not given (capacity)", indent=2)
    elif drives and result.drives_capacity_bytes is not None:
        page.line(f"drives: {gib(drives)} of {gib(result.drives_capacity_bytes)}", indent=2)


def _host_needs(result: Result) -> list[str]:
    """What a node lacks, of memory and of drives."""
    drives = sum(result.drives_by_part.values())
    pairs = (
        ("a host's memory", result.host_memory_bytes, result.host_memory_capacity_bytes),
        (
            "a node's drives",
            drives,
            drives if result.drives_capacity_bytes is None else result.drives_capacity_bytes,
        ),
    )
    return [
        f"needs {gib(needs)} of {what}, has {gib(capacity)}: {gib(needs - capacity)} short"
        for what, needs, capacity in pairs
        if needs > capacity
    ]


def _shortfall(result: Result) -> Iterator[str]:
    """By how much, where, when, and what holds it."""
    peak, capacity = result.peak_memory_bytes, result.memory_capacity_bytes
    yield f"does not fit: needs {gib(peak)}, has {gib(capacity)}: {gib(peak - capacity)} short"
    stages = [number for number, needs in enumerate(result.memory_by_stage) if needs > capacity]
    moment = result.peak_moment
    if moment is not None and len(result.memory_by_stage) > 1:
        also = f"; too full are {len(stages)} of {len(result.memory_by_stage)} stages"
        yield f"where: stage {moment.stage} needs most{also}"
    resident = peak - sum(result.memory_by_part.get(part, 0) for part in _PASSING)
    when = [f"from {step_time(moment.over_s)} on"] if moment is not None and moment.over_s else []
    if resident > capacity:
        when = [f"from the start, for what stays between steps is {gib(resident - capacity)} too much"]
    if moment is not None and moment.running:
        running = shown(moment.running[0], _LIMIT)
        when.append(f"most after {step_time(moment.time_s)}, while {running} runs")
    if when:
        yield f"when: {'; '.join(when)}"
    yield f"what holds it: {', '.join(_holding(result))}"


def _holding(result: Result) -> Iterator[str]:
    """The parts that together are nine tenths of the peak, and whose the activations mostly are."""
    covered = 0.0
    for part, size in largest_first(result.memory_by_part):
        if covered >= 0.9 * result.peak_memory_bytes:
            return
        covered += size
        whose = largest_first(result.memory_by_operator) if part == "activations" else []
        mostly = f" (most of {shown(whose[0][0], _LIMIT)}, {gib(whose[0][1])})" if whose else ""
        yield f"{part_label(part)} {gib(size)}{mostly}"


def _remedies(page: Page, result: Result) -> None:
    """The changes with which it would fit: what each needs, and what it costs."""
    if not result.remedies:
        return
    page.line("It would fit with (throughput against what it would be if the memory sufficed)")
    for remedy in result.remedies:
        said = ", ".join(
            f"{shown(key, _LIMIT)}={shown(_told(value), _LIMIT)}"
            for key, value in remedy.change.items()
            if value is not None
        )
        percents = round(100 * remedy.throughput_change)
        speed = f"{percents:+,d} % throughput" if percents else "as fast"
        if remedy.num_gpus != result.num_gpus:
            each = (1 + remedy.throughput_change) * result.num_gpus / remedy.num_gpus - 1
            speed = f"{remedy.num_gpus:,} GPUs, {speed}, {100 * each:+.0f} % a GPU"
        page.line(f"{said}: needs {gib(remedy.peak_memory_bytes)}, {speed}", indent=2)


def _bottlenecks(page: Page, result: Result) -> None:
    matter = [item for item in result.bottlenecks if item.share >= NEGLIGIBLE or _worth(item) >= NEGLIGIBLE]
    if not matter:
        return
    page.title("Bottlenecks: share of the critical path, and what 10 % more is worth")
    name = min(max(len(resource_label(item.resource)) for item in matter), max(10, page.width - 25))
    for rank, item in enumerate(matter, start=1):
        label = shown(resource_label(item.resource), name)
        text = Text(f"  {rank:>2}  {label:<{name}}  {percent(item.share):>7}")
        if item.elasticity is not None:
            more = f"{10 * item.elasticity:+.1f} %"
            full = f"   +10 % {label:<{name}} -> {more} throughput"
            short = f"   +10 % -> {more} throughput"
            fitting = [form for form in (full, short, f"  {more}") if len(text.plain + form) <= page.width]
            text.append(fitting[0] if fitting else "")
        page.line(text)
    others = [resource_label(item.resource) for item in result.bottlenecks if item not in matter]
    if others:
        page.line(f"of no account: {', '.join(others)}", style="dim", indent=2)


def _worth(item: Bottleneck) -> float:
    """Part by which throughput grows with a tenth more of it."""
    return abs(item.elasticity or 0.0) / 10


def _basis(page: Page, result: Result) -> None:
    if result.basis:
        page.title("What the figures rest on")
    _evidence(page, result.evidence)
    width = max((len(shown(note.basis)) for note in result.basis), default=0)
    for note in result.basis:
        detail = f" ({shown(note.detail)})" if note.detail else ""
        text = Text(f"{shown(note.basis):<{width}}", style="yellow" if note.basis == "assumed" else "")
        page.line(text.append(f"  {shown(note.item, _LIMIT)}{detail}", style="default"), indent=2)
    if result.warnings:
        page.title("Warnings")
    for warning in result.warnings:
        page.line(f"! {shown(warning, 500)}", style="yellow", indent=2)


def _evidence(page: Page, evidence: Evidence | None) -> None:
    """Grade, error band and what lies outside of what was measured."""
    if evidence is None:
        return
    band = evidence.error_band
    told = ""
    if band is not None:
        told = f": step times were {band.low:+.0%} to {band.high:+.0%} off in 8 of 10 cases ({band.source})"
    page.line(f"{evidence.grade}{told}", style="yellow" if evidence.outside else "", indent=2)
    for item in evidence.outside:
        page.line(f"outside what was measured: {shown(item, 300)}", style="yellow", indent=4)


def _footer(page: Page, result: Result, folder: Path | None) -> None:
    page.line()
    page.line(
        f"{result.num_activities:,} activities in {seconds(result.wall_s)} by the {shown(result.player)} "
        f"player; seed {result.seed}, clustersim {shown(result.version)}",
        style="dim",
    )
    if folder is not None:
        page.line(f"Files: {shown(folder, 1000)}")
        page.line(
            "result.json, charts/, timeline.json.gz (open in ui.perfetto.dev), tables as .csv", indent=2
        )


def _told(value: object) -> str:
    """A value of a scenario as its file says it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
