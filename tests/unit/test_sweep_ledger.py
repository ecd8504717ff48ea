"""The ledger and the workers: nothing is lost, nothing is doubled, whatever happens to whom."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator import load_sweep
from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.run import clustersim_version
from simulator.sweep import code_version, export, load_sweep_file, run_sweep
from simulator.sweep.point import OK, Outcome
from simulator.sweep.version import digest
from support.inputs import shipped

MANY = f"scenario: {shipped('mlp_adam')}\naxes: {{training.steps: {{from: 1, to: 60, step: 1}}}}\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text(MANY)
    return path


def double(base, overrides):
    steps = overrides["training.steps"]
    return Outcome(OK, "", f'{{"twice":{2 * steps}}}', 0.0, "nobody")


def unruly(base, overrides):
    steps = overrides["training.steps"]
    if steps == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    if steps == 11:
        time.sleep(60)
    if steps == 13:
        os._exit(3)
    return double(base, overrides)


def once(base, overrides):
    """Dies at its third point, the first time that it gets there."""
    mark = Path(os.environ["CLUSTERSIM_TEST_MARK"])
    if overrides["training.steps"] == 3 and not mark.exists():
        mark.touch()
        os._exit(1)
    return double(base, overrides)


def rows(folder):
    with sqlite3.connect(folder / "sweep.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return database.execute(
            "SELECT number, status, reason, result FROM current JOIN points USING (key) ORDER BY number"
        ).fetchall()


def test_a_ledger_has_a_row_a_point_and_resumes(tmp_path, file):
    sweep, calls = load_sweep_file(file), []

    def counted(base, overrides):
        calls.append(overrides["training.steps"])
        return double(base, overrides)

    first = run_sweep(sweep, tmp_path / "out", workers=0, evaluate=counted, limit=20)
    assert (first.total, first.reused, first.counts) == (20, 0, {"ok": 20})
    second = run_sweep(sweep, tmp_path / "out", workers=0, evaluate=counted)
    assert (second.total, second.reused) == (60, 20)
    assert calls == list(range(1, 61))
    assert [row[0] for row in rows(tmp_path / "out")] == list(range(60))
    assert load_sweep(tmp_path / "out")["twice"].tolist() == [2 * n for n in range(1, 61)]


def test_only_what_is_new_runs_when_an_axis_changes(tmp_path, file):
    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=double)
    file.write_text(MANY.replace("from: 1", "from: 31").replace("to: 60", "to: 90"))
    again = run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=double)
    assert (again.total, again.reused) == (60, 30)
    assert load_sweep(tmp_path / "out")["training.steps"].tolist() == list(range(31, 91))


def test_points_of_another_base_or_version_are_not_mixed_in(tmp_path, file, monkeypatch):
    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=double)
    other = run_sweep(
        load_sweep_file(file, {"training.micro_batch_size": 2}), tmp_path / "out", workers=0, evaluate=double
    )
    assert other.reused == 0
    monkeypatch.setattr("simulator.sweep.drive.code_version", lambda: "0.1.0+0123")
    newer = run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=double)
    assert (newer.reused, newer.others) == (0, 120)
    assert len(load_sweep(tmp_path / "out")) == 60


def test_the_version_is_that_of_the_code_and_the_catalogue(tmp_path):
    package = tmp_path / "simulator"
    (package / "catalog" / "data").mkdir(parents=True)
    for name, text in (("a.py", "1"), ("catalog/b.py", "2"), ("catalog/data/c.yaml", "3")):
        (package / name).write_text(text)
    before = digest(package)
    for name in ("report/chart.py", "cli/words.py", "__pycache__/a.pyc", "catalog/README.md"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("makes no result")
    assert digest(package) == before
    found = {before}
    for name, text in (("a.py", "4"), ("catalog/data/c.yaml", "5"), ("catalog/data/d.yaml", "3")):
        (package / name).write_text(text)
        found.add(digest(package))
    (package / "catalog" / "b.py").rename(package / "catalog" / "e.py")
    assert len(found | {digest(package)}) == 5
    assert code_version().startswith(f"{clustersim_version()}+")


def test_points_that_die_hang_or_exit_are_rows_and_the_rest_finishes(tmp_path, file):
    sweep = load_sweep_file(file)
    summary = run_sweep(sweep, tmp_path / "out", workers=2, timeout_s=2.0, evaluate=unruly)
    assert summary.counts == {"ok": 57, "failed": 3}
    reasons = {
        number + 1: reason for number, status, reason, _ in rows(tmp_path / "out") if status == "failed"
    }
    assert set(reasons) == {7, 11, 13}
    assert "SIGKILL" in reasons[7] and "longer than 2 s" in reasons[11] and "exit code 3" in reasons[13]
    # Failed points are tried again, the others are not.
    again = run_sweep(sweep, tmp_path / "out", workers=0, evaluate=double)
    assert (again.reused, again.counts) == (57, {"ok": 60})


def test_a_worker_that_dies_once_costs_nothing(tmp_path, file, monkeypatch):
    monkeypatch.setenv("CLUSTERSIM_TEST_MARK", str(tmp_path / "mark"))
    summary = run_sweep(load_sweep_file(file), tmp_path / "out", workers=1, evaluate=once)
    assert (tmp_path / "mark").exists() and summary.counts == {"ok": 60}


def test_a_bug_in_one_point_is_its_row(tmp_path, file, monkeypatch):
    import simulator.run

    def broken(scenario, **_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(simulator.run, "run", broken)
    summary = run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, limit=2)
    assert summary.counts == {"failed": 2}
    assert "ZeroDivisionError: planted" in rows(tmp_path / "out")[0][2]


def test_illegal_points_and_points_that_do_not_fit_say_why(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        f"scenario: {shipped('quickstart')}\n"
        "axes: {training.micro_batch_size: [1, 3, 4]}\n"
        "set: {training.recompute: none, training.global_batch_size: 16}\n"
    )
    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0)
    frame = load_sweep(tmp_path / "out")
    assert frame["status"].tolist() == ["ok", "illegal", "does_not_fit"]
    assert "is not a multiple of micro_batch_size 3" in frame["reason"][1]
    assert "GiB of 80.0 GiB" in frame["reason"][2] and frame["tokens_per_s"].isna().tolist() == [
        False,
        True,
        True,
    ]


def test_a_point_is_what_the_run_command_says(tmp_path):
    from simulator import load_scenario, simulate

    file = tmp_path / "s.yaml"
    key = "cluster.accelerator.memory_bandwidth"
    file.write_text(f"scenario: {shipped('quickstart')}\naxes: {{{key}: [2 TB/s]}}\n")
    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0)
    row = load_sweep(tmp_path / "out").iloc[0]
    result = simulate(load_scenario(shipped("quickstart"), {key: "2 TB/s"}))
    assert (row["step_time_s"], row["mfu"], row[key]) == (result.step_time_s, result.mfu, 2e12)
    assert row["bottleneck"] == result.bottlenecks[0].resource


def test_the_second_sweep_on_a_ledger_is_refused_with_the_first_ones_process(tmp_path, file):
    from simulator.sweep.lock import locked

    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(ClustersimError, match=f"process {os.getpid()}"):
        run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=double)


@pytest.mark.parametrize("kind", ["text", "damaged", "foreign", "newer", "read-only", "folder"])
def test_ledgers_that_are_not_ours_are_named_and_left_as_they_are(tmp_path, file, kind):
    sweep, folder = load_sweep_file(file), tmp_path / "out"
    ledger = folder / "sweep.sqlite"
    run_sweep(sweep, folder, workers=0, evaluate=double)
    if kind == "text":
        ledger.write_text("not a database at all\n")
    elif kind == "damaged":
        data = bytearray(ledger.read_bytes())
        data[4096:] = b"\xa5" * (len(data) - 4096)
        ledger.write_bytes(data)
    elif kind == "folder":
        ledger.unlink()
        ledger.mkdir()
    elif kind == "read-only":
        ledger.chmod(0o444)
    else:
        with sqlite3.connect(ledger) as database:
            database.execute("PRAGMA application_id = 5" if kind == "foreign" else "PRAGMA user_version = 99")
    before = None if kind == "folder" else ledger.read_bytes()
    with pytest.raises(ClustersimError, match=r"sweep\.sqlite") as error:
        run_sweep(sweep, folder, workers=0, evaluate=double)
    assert error.value.exit_code == (4 if kind in ("damaged", "read-only") else 2)
    assert before is None or ledger.read_bytes() == before


def test_a_full_disk_is_told_and_what_was_committed_stays(tmp_path, file, monkeypatch):
    from simulator.sweep.ledger import Ledger

    monkeypatch.setattr("simulator.sweep.drive._COMMIT_S", 0.0)
    adds, add = [], Ledger.add

    def limited(ledger, some, version):
        adds.append(len(adds))
        if len(adds) == 10:
            pages = ledger.database.execute("PRAGMA page_count").fetchone()[0]
            ledger.database.execute(f"PRAGMA max_page_count = {pages}")
        add(ledger, some, version)

    def long(base, overrides):
        return double(base, overrides)._replace(reason="x" * 4000)

    monkeypatch.setattr(Ledger, "add", limited)
    with pytest.raises(EnvironmentFailure, match="disk is full"):
        run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=long)
    kept = len(rows(tmp_path / "out"))
    assert 8 <= kept < 60
    monkeypatch.setattr(Ledger, "add", add)
    assert run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=double).reused == kept


def test_exports_are_the_same_however_the_points_came_about(tmp_path, file):
    sweep = load_sweep_file(file)
    for name, workers in (("one", 1), ("two", 2), ("none", 0)):
        run_sweep(sweep, tmp_path / name, workers=workers, limit=30)
        assert export(tmp_path / name, tmp_path / f"{name}.csv") == 30
    for limit in range(3, 31, 3):  # interrupted ten times
        run_sweep(sweep, tmp_path / "often", workers=0, limit=limit)
    export(tmp_path / "often", tmp_path / "often.csv")
    assert len({(tmp_path / f"{n}.csv").read_bytes() for n in ("one", "two", "none", "often")}) == 1


def test_export_as_parquet_holds_the_same(tmp_path, file):
    pytest.importorskip("pyarrow")
    import pandas as pd

    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, limit=5)
    export(tmp_path / "out", tmp_path / "x.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), load_sweep(tmp_path / "out"))
    with pytest.raises(ClustersimError, match=r"\.csv or \.parquet"):
        export(tmp_path / "out", tmp_path / "x.xlsx")


COMMAND = [sys.executable, "-c", "import sys; from simulator.cli import main; sys.exit(main())", "sweep"]


def started(file, folder):
    command = [*COMMAND, str(file), "--out", str(folder), "--workers", "1", "--no-charts", "--quiet"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)


def finished_points(folder):
    try:
        with sqlite3.connect(f"file:{folder / 'sweep.sqlite'}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM points").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def wait_for_points(process, folder, least):
    end = time.monotonic() + 60
    while finished_points(folder) < least and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_resumes_with_nothing_lost(tmp_path, how):
    file, folder = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text(
        f"scenario: {shipped('quickstart')}\naxes: {{training.steps: {{from: 1, to: 40, step: 1}}}}\n"
    )
    process = started(file, folder)
    wait_for_points(process, folder, 2)
    process.send_signal(how)
    errors = process.communicate(timeout=20)[1].decode()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    kept = len(rows(folder))
    assert 2 <= kept < 40
    assert run_sweep(load_sweep_file(file), folder, workers=0, evaluate=double).reused == kept
    assert [row[0] for row in rows(folder)] == list(range(40))


def command_line(*arguments):
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_a_cluster_gives_the_same_bytes(tmp_path, file):
    pytest.importorskip("distributed")
    found = command_line(
        file, "--out", tmp_path / "dask", "--cluster", "local", "--workers", "2", "--no-charts"
    )
    assert (found.returncode, "Traceback" in found.stderr) == (0, False)
    run_sweep(load_sweep_file(file), tmp_path / "here", workers=0)
    for name in ("dask", "here"):
        export(tmp_path / name, tmp_path / f"{name}.csv")
    assert (tmp_path / "dask.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_a_scheduler_that_does_not_answer_is_an_error_of_the_environment(tmp_path, file, monkeypatch):
    pytest.importorskip("distributed")
    from simulator.sweep import cluster

    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    backend = cluster.on_cluster("tcp://127.0.0.1:9", workers=None, timeout_s=10)
    with pytest.raises(EnvironmentFailure, match="no scheduler answers"):
        run_sweep(load_sweep_file(file), tmp_path / "out", backend=backend)


def test_the_exit_code_tells_of_failed_points_and_of_illegal_files(tmp_path, file):
    found = command_line(
        file, "--out", tmp_path / "out", "--timeout", "0.1", "--workers", "1", "--limit", "1"
    )
    assert found.returncode in (0, 3)  # a machine may be quick enough for a tenth of a second
    assert command_line(file, "--set", "nonsense=1").returncode == 2
    assert "60 points" in command_line(file, "--dry-run").stdout


def test_points_that_stand_there_twice_run_once_and_are_counted(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text(f"scenario: {shipped('quickstart')}\naxes: {{training.micro_batch_size: [1, 1, 2]}}\n")
    said = command_line(file, "--dry-run").stdout
    assert "2 points\n1 of 3 points stand there twice and run once" in said
    file.write_text(f"scenario: {shipped('quickstart')}\naxes: {{training.micro_batch_size: [1, 2]}}\n")
    assert "twice" not in command_line(file, "--dry-run").stdout


SCHEDULER = """
import asyncio
from distributed import Scheduler, Worker

async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        async with Worker(scheduler.address, nthreads=1, dashboard=False):
            print(scheduler.address, flush=True)
            await scheduler.finished()

asyncio.run(main())
"""


def test_a_scheduler_that_dies_is_told_and_what_had_finished_stays(tmp_path):
    pytest.importorskip("distributed")
    file, folder = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text(MANY.replace("to: 60", "to: 3000"))
    with subprocess.Popen(
        [sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as scheduler:
        address = scheduler.stdout.readline().strip()
        command = [*COMMAND, file, "--out", folder, "--cluster", address, "--no-charts", "--quiet"]
        with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
            wait_for_points(process, folder, 1)
            scheduler.kill()
            errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors.count("\n")) == (4, 1), errors
    assert "the scheduler is gone" in errors
    assert 1 <= len(rows(folder)) < 3000


def test_a_disk_that_is_full_costs_nothing_that_was_committed(tmp_path, file):
    resource = pytest.importorskip("resource")
    folder = tmp_path / "out"
    full = subprocess.run(
        [*COMMAND, str(file), "--out", str(folder), "--workers", "1", "--no-charts", "--quiet"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
    )
    assert (full.returncode, full.stderr.count("\n")) == (4, 1), full.stderr
    assert "sweep.sqlite" in full.stderr and "resumes" in full.stderr
    kept = len(rows(folder))
    assert kept < 60
    assert run_sweep(load_sweep_file(file), folder, workers=0, evaluate=double).reused == kept
    assert [row[0] for row in rows(folder)] == list(range(60))
