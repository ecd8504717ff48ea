"""The history of a run as a Chrome trace, which Perfetto and chrome://tracing open.

A process an owner (the GPU of a stage, a node, the storage), a thread a lane, a slice an activity from
its start to its end, and counters: a track for the use of every link and storage capacity beside its
owner's lanes, others for every kind of capacity and for the memory of every stage. Times are
microseconds with three decimals: both ends of a slice are rounded to whole nanoseconds, so that slices
that touch still do and none overlap.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from simulator.report.saved import SavedResult
from simulator.report.tables import chosen, measured_window

if TYPE_CHECKING:
    import pandas as pd

MAX_SLICES: Final = 250_000
MAX_COUNTS: Final = 20_000
"""Bounds on the events of each kind: viewers grow slow beyond 300,000 together."""


def timeline_gz(saved: SavedResult, links: pd.DataFrame) -> bytes:
    """The Chrome trace of a result as gzipped JSON; equal results give equal bytes.

    Args:
        saved: The result.
        links: Table of `Result.link_timeline`.
    """
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as stream:
        text = io.TextIOWrapper(stream, encoding="ascii", newline="")
        text.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        text.write(",\n".join(_events(saved, links)))
        text.write("\n]}\n")
        text.close()
    return buffer.getvalue()


def _events(saved: SavedResult, links: pd.DataFrame) -> Iterator[str]:
    begin, end = measured_window(saved.utilization)
    frame = chosen(saved.activities, begin, end, MAX_SLICES)
    owners, lanes = _tracks(frame["owner"].tolist(), frame["lane"].tolist())
    yield from _names(owners, lanes)
    yield from _slices(frame, lanes)
    counters = len(owners) + 1
    yield _meta("process_name", counters, 0, {"name": "counters"})
    yield from _counts(saved, counters)
    yield from _link_counts(links, owners, counters)


def _tracks(
    owners: list[str], lanes: list[str]
) -> tuple[dict[str, int], dict[tuple[str, str], tuple[int, int]]]:
    """Process of each owner and (process, thread) of each lane, in natural order (stage2 before stage10)."""
    pairs = sorted(
        set(zip(owners, lanes, strict=True)), key=lambda pair: (_natural(pair[0]), _natural(pair[1]))
    )
    process: dict[str, int] = {}
    thread: dict[tuple[str, str], tuple[int, int]] = {}
    for owner, lane in pairs:
        pid = process.setdefault(owner, len(process) + 1)
        thread[owner, lane] = (pid, len(thread) + 1)
    return process, thread


def _names(owners: dict[str, int], lanes: dict[tuple[str, str], tuple[int, int]]) -> Iterator[str]:
    for owner, pid in owners.items():
        yield _meta("process_name", pid, 0, {"name": owner or "cluster"})
        yield _meta("process_sort_index", pid, 0, {"sort_index": pid})
    for (owner, lane), (pid, tid) in lanes.items():
        yield _meta("thread_name", pid, tid, {"name": lane.removeprefix(f"{owner}.")})
        yield _meta("thread_sort_index", pid, tid, {"sort_index": tid})


def _slices(frame: Any, lanes: dict[tuple[str, str], tuple[int, int]]) -> Iterator[str]:
    starts = (frame["start_s"].to_numpy() * 1e9).round().astype("int64").tolist()
    ends = (frame["end_s"].to_numpy() * 1e9).round().astype("int64").tolist()
    columns = (
        "name",
        "cause",
        "phase",
        "owner",
        "lane",
        "step",
        "micro_batch",
        "layer",
        "limited_by",
        "awaited",
    )
    quoted: dict[Any, str] = {}
    rows = zip(starts, ends, *(frame[column].tolist() for column in columns), strict=True)
    for start, end, name, cause, phase, owner, lane, step, micro_batch, layer, limited_by, awaited in rows:
        pid, tid = lanes[owner, lane]
        args = []
        for key, value in (
            ("phase", phase), ("step", step), ("micro_batch", micro_batch), ("layer", layer),
            ("limited_by", limited_by), ("awaited", awaited),
        ):  # fmt: skip
            if value != "" and value != -1 and value is not None and value == value:
                args.append(f'"{key}":{_quote(value, quoted)}')
        yield (
            f'{{"ph":"X","name":{_quote(name, quoted)},"cat":{_quote(cause, quoted)},"pid":{pid},"tid":{tid},'
            f'"ts":{_us(start)},"dur":{_us(end - start)},"args":{{{",".join(args)}}}}}'
        )


def _counts(saved: SavedResult, pid: int) -> Iterator[str]:
    use, memory = saved.utilization, saved.memory
    yield from _counter(pid, "use of", "%", use["kind"], use["time_s"], use["utilization"] * 100)
    yield from _counter(
        pid, "memory of stage", "GiB", memory["stage"], memory["time_s"], memory["bytes"] / 2**30
    )


def _link_counts(links: pd.DataFrame, owners: dict[str, int], elsewhere: int) -> Iterator[str]:
    """A track a link and storage capacity, with the owner whose name it begins with."""
    for link in dict.fromkeys(links["link"].tolist()):
        rows = links[links["link"] == link]
        owner, _, name = str(link).partition(".")
        label = f"use of {name}" if owner in owners else f"use of {link}"
        pid = owners.get(owner, elsewhere)
        for time, value in zip(rows["time_s"].tolist(), rows["utilization"].tolist(), strict=True):
            yield _count(pid, label, time, "%", value * 100)


def _counter(pid: int, label: str, unit: str, keys: Any, times: Any, values: Any) -> Iterator[str]:
    every = max(1, -(-len(keys) // MAX_COUNTS))
    seen: dict[Any, int] = {}
    for key, time, value in zip(keys.tolist(), times.tolist(), values.tolist(), strict=True):
        seen[key] = seen.get(key, -1) + 1
        if seen[key] % every == 0:
            yield _count(pid, f"{label} {key}", time, unit, value)


def _count(pid: int, name: str, time: float, unit: str, value: float) -> str:
    moment, amount = _us(round(time * 1e9)), f'"args":{{"{unit}":{round(value, 3)!r}}}'
    return f'{{"ph":"C","name":{json.dumps(name)},"pid":{pid},"ts":{moment},{amount}}}'


def _meta(kind: str, pid: int, tid: int, args: dict[str, Any]) -> str:
    return json.dumps({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}, separators=(",", ":"))


def _quote(value: Any, known: dict[Any, str]) -> str:
    if value not in known:
        known[value] = json.dumps(int(value) if isinstance(value, float) and value == int(value) else value)
    return known[value]


def _us(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


def _natural(name: str) -> list[tuple[int, int, str]]:
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(piece), "") if piece.isascii() and piece.isdigit() else (1, 0, piece) for piece in pieces]
