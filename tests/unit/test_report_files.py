from __future__ import annotations

import dataclasses
import errno
import gzip
import io
import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_report_sample import make_result

from simulator.analysis.result import Result
from simulator.errors import EXIT_ENVIRONMENT, EXIT_USER, ClustersimError, EnvironmentFailure
from simulator.report import (
    check_destination,
    draw_charts,
    load_result_folder,
    result_json,
    write_result_folder,
)
from simulator.report import files as files_module
from simulator.report import tables as tables_module
from simulator.report.saved import as_saved
from simulator.report.tables import chosen, from_csv, measured_window, to_csv
from simulator.report.timeline import timeline_gz

SCENARIO = "name: sample\n"
RUN_FIELDS = {"wall_s", "player", "num_events"}


@pytest.fixture(scope="module")
def result() -> Result:
    return make_result()


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_result_json_has_every_field_and_reads_back_equal(result: Result) -> None:
    values = json.loads(result_json(result))
    fields = [item.name for item in dataclasses.fields(result) if not item.name.startswith("_")]
    assert list(values) == fields
    for name in fields:
        assert values[name] == json.loads(json.dumps(getattr(result, name), default=dataclasses.asdict)), name


def test_equal_results_give_equal_bytes_whatever_the_order_of_their_parts(result: Result) -> None:
    turned = dict(reversed(result.breakdown.items()))
    whole = dataclasses.replace(result, breakdown=turned, step_time_s=np.float64(result.step_time_s))
    assert whole == result
    assert result_json(whole) == result_json(result)


def test_equal_numbers_of_another_type_give_equal_bytes(result: Result) -> None:
    one = dataclasses.replace(result, mfu=0.0, breakdown={"a": 1.0}, num_gpus=8)
    other = dataclasses.replace(result, mfu=-0.0, breakdown={"a": 1}, num_gpus=np.int64(8))
    assert one == other
    assert result_json(one) == result_json(other)


def test_two_runs_differ_in_nothing_but_how_they_ran(result: Result) -> None:
    again = dataclasses.replace(result, wall_s=9.0, player="compiled", num_events=1)
    one, other = json.loads(result_json(result)), json.loads(result_json(again))
    assert {key for key in one if one[key] != other[key]} == RUN_FIELDS


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_figures_that_are_no_numbers_never_reach_a_file(result: Result, tmp_path: Path, bad: float) -> None:
    broken = dataclasses.replace(result, breakdown={"compute.matmul": bad})
    with pytest.raises(ValueError, match=r"breakdown\.compute\.matmul"):
        result_json(broken)
    with pytest.raises(ValueError, match="breakdown"):
        write_result_folder(broken, SCENARIO, tmp_path / "r", charts=False)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_holds_what_it_promises_and_reads_back_the_same(result: Result, tmp_path: Path) -> None:
    folder = write_result_folder(result, SCENARIO, tmp_path / "results" / "sample", charts=False)
    assert sorted(everything(folder)) == [
        "activities.csv", "memory.csv", "operators.csv", "result.json", "scenario.resolved.yaml",
        "timeline.json.gz", "utilization.csv",
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["sample"]
    assert (folder / "result.json").read_text() == result_json(result)
    assert (folder / "scenario.resolved.yaml").read_text() == SCENARIO
    saved = load_result_folder(folder)
    pd.testing.assert_frame_equal(saved.activities, result.activities)
    pd.testing.assert_frame_equal(saved.operators, result.operators, check_dtype=False)
    pd.testing.assert_frame_equal(saved.utilization, result.utilization_timeline)
    pd.testing.assert_frame_equal(saved.memory, result.memory_timeline, check_dtype=False)


def test_equal_results_give_equal_folders(result: Result, tmp_path: Path) -> None:
    one = write_result_folder(result, SCENARIO, tmp_path / "one", charts=False)
    other = write_result_folder(make_result(), SCENARIO, tmp_path / "other", charts=False)
    assert everything(one) == everything(other)


def test_a_result_is_not_overwritten_without_force(result: Result, tmp_path: Path) -> None:
    folder = write_result_folder(result, SCENARIO, tmp_path / "r", charts=False)
    before = everything(folder)
    with pytest.raises(ClustersimError, match="--force") as raised:
        write_result_folder(dataclasses.replace(result, seed=2), SCENARIO, folder, charts=False)
    assert raised.value.exit_code == EXIT_USER
    assert everything(folder) == before
    write_result_folder(dataclasses.replace(result, seed=2), SCENARIO, folder, force=True, charts=False)
    assert json.loads((folder / "result.json").read_text())["seed"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_force_never_removes_what_others_wrote(result: Result, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ClustersimError, match=r"thesis\.tex"):
        write_result_folder(result, SCENARIO, tmp_path, force=True, charts=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ClustersimError, match="not a folder"):
        check_destination(tmp_path / "file", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ClustersimError, match="broken link"):
        check_destination(tmp_path / "link", force=True)


def test_an_empty_folder_and_a_link_to_one_are_good_destinations(result: Result, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    write_result_folder(result, SCENARIO, tmp_path / "link", charts=False)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "result.json").is_file()


class Failing:
    """Lets so many operations on the disk pass, then fails once."""

    def __init__(self, patch: pytest.MonkeyPatch, passes: int, number: int) -> None:
        self.left, self.failed, self.number = passes, False, number
        for name in ("mkdir", "rename"):
            patch.setattr(Path, name, self.guard(getattr(Path, name)))
        patch.setattr(files_module, "_write", self.guard(files_module._write))

    def guard(self, operation: Any) -> Any:
        def guarded(*args: Any, **options: Any) -> Any:
            if self.left == 0 and not self.failed:
                self.failed = True
                raise OSError(self.number, "No space left on device")
            self.left -= not self.failed
            return operation(*args, **options)

        return guarded


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_whatever_fails_nothing_is_half_written(
    result: Result, tmp_path: Path, force: bool, number: int
) -> None:
    target = tmp_path / "deep" / "r"
    if force:
        write_result_folder(dataclasses.replace(result, seed=7), SCENARIO, target, charts=False)
    before = everything(tmp_path)
    for passes in range(200):
        with pytest.MonkeyPatch.context() as patch:
            disk = Failing(patch, passes, number)
            try:
                write_result_folder(result, SCENARIO, target, force=force, charts=False)
            except EnvironmentFailure as failure:
                assert failure.exit_code == EXIT_ENVIRONMENT
                assert "No space left" in str(failure)
            assert disk.failed or passes >= 10
        if not disk.failed:
            break
        assert everything(tmp_path) == before, passes
        assert list(tmp_path.iterdir()) == ([tmp_path / "deep"] if force else []), passes
    else:
        pytest.fail("never passed")
    assert json.loads((target / "result.json").read_text())["seed"] == 0
    assert [path.name for path in target.parent.iterdir()] == ["r"]


def test_an_interrupt_leaves_nothing_behind(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(files_module, "timeline_gz", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_result_folder(result, SCENARIO, tmp_path / "a" / "b", charts=False)
    assert list(tmp_path.iterdir()) == []


def test_charts_that_cannot_be_written_are_a_failure_of_the_environment(
    result: Result, tmp_path: Path
) -> None:
    (tmp_path / "charts").write_text("a file stands in the way")
    with pytest.raises(EnvironmentFailure):
        draw_charts(result, tmp_path / "charts")


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|x", "-2", "@SUM(A1)", "\t=1", "\r=1", "'=x", "''@", "'quoted'", 'a,b\n"c"', ""]
)
def test_no_cell_is_a_formula_and_every_cell_reads_back(result: Result, cell: str) -> None:
    frame = result.operators.assign(name=cell)
    data = to_csv(frame)
    assert not pd.read_csv(io.BytesIO(data), keep_default_na=False)["name"].str.match(r"[=+\-@\t\r]").any()
    assert set(from_csv("operators.csv", data)["name"]) == {cell}


def test_of_a_long_run_the_measured_steps_come_first(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, end = measured_window(result.utilization_timeline)
    frame = result.activities
    measured = frame[(frame.end_s > begin) & (frame.start_s < end)]
    kept = chosen(frame, begin, end, len(measured) + 10)
    assert set(measured.id) < set(kept.id)
    assert len(kept) == len(measured) + 10
    assert kept.id.is_monotonic_increasing
    monkeypatch.setattr(files_module, "MAX_ROWS", 100)
    folder = write_result_folder(result, SCENARIO, tmp_path / "r", charts=False)
    saved = load_result_folder(folder)
    assert len(saved.activities) == 100
    assert saved.values["files"]["activities.csv"].startswith(f"100 of {len(frame)} activities")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("result.json", None, "no result.json"),
        ("result.json", b"{", "damaged"),
        ("result.json", b"\xff\xfe", "damaged"),
        ("result.json", b"[1]", "not a result of clustersim"),
        ("result.json", b'{"name": "x"}', "not a result of clustersim"),
        ("activities.csv", None, "no activities.csv"),
        ("activities.csv", b"", "damaged"),
        ("activities.csv", b"id,name\n1,a\n", "column"),
        ("memory.csv", b"time_s,stage,bytes\nx,0,1\n", "damaged"),
    ],
)
def test_damaged_and_foreign_folders_say_what_is_wrong(
    result: Result, tmp_path: Path, file: str, content: bytes | None, said: str
) -> None:
    folder = write_result_folder(result, SCENARIO, tmp_path / "r", charts=False)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ClustersimError, match=said) as raised:
        load_result_folder(folder)
    assert "\n" not in str(raised.value)
    with pytest.raises(ClustersimError, match="no such result folder"):
        load_result_folder(tmp_path / "missing")


def trace(result: Result) -> list[dict[str, Any]]:
    events = json.loads(gzip.decompress(timeline_gz(as_saved(result), result.link_timeline)))["traceEvents"]
    assert isinstance(events, list)
    return events


def test_every_activity_is_one_slice_on_the_track_of_its_lane(result: Result) -> None:
    events = trace(result)
    owner = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    lane = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(result.activities)
    for event, row in zip(slices, result.activities.itertuples(), strict=True):
        assert f"{owner[event['pid']]}.{lane[event['pid'], event['tid']]}" == row.lane
        assert (event["name"], event["cat"], event["args"]["step"]) == (row.name, row.cause, row.step)
        assert event["ts"] == pytest.approx(row.start_s * 1e6, abs=1e-3)
        assert event["ts"] + event["dur"] == pytest.approx(row.end_s * 1e6, abs=2e-3)


def test_slices_of_one_track_never_overlap(result: Result) -> None:
    tracks = defaultdict(list)
    for event in trace(result):
        if event["ph"] == "X":
            start = round(event["ts"] * 1000)
            tracks[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1000)))
    assert len(tracks) == 7
    for spans in tracks.values():
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_counters_tell_utilisation_and_memory(result: Result) -> None:
    counts = [event for event in trace(result) if event["ph"] == "C"]
    assert {event["name"] for event in counts} >= {"use of tensor", "memory of stage 0", "memory of stage 1"}
    peak = max(event["args"]["GiB"] for event in counts if "GiB" in event["args"])
    assert peak == pytest.approx(result.memory_timeline.bytes.max() / 2**30, abs=1e-3)


def test_every_link_and_storage_server_has_a_track_beside_its_owner(result: Result) -> None:
    events = trace(result)
    process = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    counted = [event for event in events if event["ph"] == "C" and "%" in event["args"]]
    shown = [
        event["args"]["%"]
        for event in counted
        if (event["pid"], event["name"]) == (process["storage"], "use of storage_read")
    ]
    table = result.link_timeline
    assert shown == pytest.approx(
        list(table[table.link == "storage.storage_read"].utilization * 100), abs=1e-3
    )
    assert any(event["name"].endswith("scale_up.send") for event in counted)


def test_the_timeline_is_the_same_bytes_every_time_and_carries_no_date(result: Result) -> None:
    data = timeline_gz(as_saved(result), result.link_timeline)
    assert data == timeline_gz(as_saved(make_result()), make_result().link_timeline)
    assert data[4:8] == b"\0\0\0\0"


def test_names_of_any_kind_are_legal_json(result: Result) -> None:
    nasty = '</script>"\\\x00\u202e\ud800'
    tables = result._tables
    column = pd.Series([nasty] * len(result.activities), dtype=object)
    frames = tables.frames | {"activities": result.activities.assign(name=column, owner=column)}
    events = trace(dataclasses.replace(result, _tables=dataclasses.replace(tables, frames=frames)))
    assert {event["name"] for event in events if event["ph"] == "X"} == {nasty}


def test_a_row_limit_is_a_round_number_that_tools_open() -> None:
    assert tables_module.MAX_ROWS <= 2**20
