"""Sweeps that are killed, interrupted and starved: nothing lost, nothing doubled, the same bytes in the end.

Run with ``pytest -n 0 -s benchmarks/test_sweep_faults.py``; it takes some minutes.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Report
from simulator.sweep import export, load_sweep_file, run_sweep
from simulator.sweep.point import OK, Outcome

SCENARIOS = Path(__file__).parents[1] / "scenarios"
COMMAND = [sys.executable, "-c", "import sys; from simulator.cli import main; sys.exit(main())", "sweep"]
KILLS = 50
INTERRUPTIONS = 10
POINTS = 20_000
"""More than are done between the kills."""
SECTION = "Sweeps under attack"


def sweep_file(folder: Path, points: int) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(
        f"scenario: {SCENARIOS / 'mlp_adam.yaml'}\naxes:\n  cluster.accelerator.memory_bandwidth: "
        f"{{from: 1 TB/s, to: 16 TB/s, points: {points}}}\n",
        encoding="utf-8",
    )
    return path


def started(file: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, str(file), "--out", str(folder), "--no-charts", "--quiet", *options]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def processes(session: int) -> list[tuple[int, bool]]:
    """Living processes of a session, and whether each is a worker."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((int(entry.name), b"spawn_main" in (entry / "cmdline").read_bytes()))
    return found


def ledger(folder: Path) -> tuple[str, int, int]:
    """What SQLite says of the file, its points, and how many keys they have."""
    if not (folder / "sweep.sqlite").exists():
        return "ok", 0, 0
    with contextlib.closing(sqlite3.connect(folder / "sweep.sqlite")) as database:
        said = database.execute("PRAGMA integrity_check").fetchone()[0]
        with contextlib.suppress(sqlite3.OperationalError):  # killed before there was a table
            return said, *database.execute("SELECT count(*), count(DISTINCT key) FROM points").fetchone()
        return said, 0, 0


def kill(process: subprocess.Popen[bytes], whom: str, rng: random.Random) -> None:
    if whom == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif whom == "worker":
        workers = [number for number, worker in processes(process.pid) if worker]
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers or [process.pid]), signal.SIGKILL)
        time.sleep(rng.uniform(0.0, 1.0))
    process.kill()
    process.wait()


def test_killed_at_random_moments(tmp_path: Path, report: Report) -> None:
    file, folder, rng = sweep_file(tmp_path, POINTS), tmp_path / "out", random.Random(0)
    begun = time.monotonic()
    process = started(file, folder, "--workers", "2")
    while not ledger(folder)[1]:
        time.sleep(0.1)
    start = time.monotonic() - begun
    kill(process, "group", rng)
    before = 0
    for number in range(KILLS):
        process = started(file, folder, "--workers", "2")
        # A second beyond the start: with more, a busy machine is through before the last kill.
        time.sleep(rng.uniform(0.0, start + 1.0))
        kill(process, ("parent", "worker", "group")[number % 3], rng)
        end = time.monotonic() + 10
        while processes(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert not processes(process.pid), "a worker outlived its parent"
        said, points, keys = ledger(folder)
        assert (said, points) == ("ok", keys)
        assert points >= before, "a committed point is lost"
        before = points
    assert 0 < before < POINTS
    assert started(file, folder, "--workers", "2").wait() == 0
    assert ledger(folder) == ("ok", POINTS, POINTS)
    export(folder, tmp_path / "killed.csv")
    run_sweep(load_sweep_file(file), tmp_path / "whole", workers=2)
    export(tmp_path / "whole", tmp_path / "whole.csv")
    same = (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    told = f"{POINTS:,} points, {before:,} of them between {KILLS} kills: none lost, none doubled, sound"
    report.row(SECTION, "kill -9 of parent, worker, group; then resume", told, "the same", met=same)
    assert same


def test_the_same_bytes_however_the_points_come_about(tmp_path: Path, report: Report) -> None:
    file, exports = sweep_file(tmp_path, 400), []

    def finish(name: str, *options: str) -> None:
        assert started(file, tmp_path / name, *options).wait() == 0
        exports.append(tmp_path / f"{name}.csv")
        export(tmp_path / name, exports[-1])

    finish("one", "--workers", "1")
    finish("two", "--workers", "2")
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401

        finish("dask", "--cluster", "local", "--workers", "2")
    for number in range(INTERRUPTIONS):
        process = started(file, tmp_path / "often", "--workers", "1")
        while ledger(tmp_path / "often")[1] <= 10 * number and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        # The last of them: Python had not come to the command yet.
        assert process.wait(timeout=30) in (130, 0, -signal.SIGINT)
    finish("often", "--workers", "2")
    kinds = len({path.read_bytes() for path in exports})
    told = f"{len(exports)} exports, {kinds} kind of bytes"
    report.row(SECTION, "1 worker, 2, dask, interrupted 10 times", told, "identical", met=kinds == 1)
    assert kinds == 1


def test_a_full_disk(tmp_path: Path, report: Report) -> None:
    """On a small file system where the machine lets us have one, else under a limit for files."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], check=False, capture_output=True
    ).returncode
    if not mounted:
        pytest.skip("no file system can be mounted here; a unit test has a limit for files instead")
    try:
        file, folder = sweep_file(tmp_path, 2000), small / "out"
        code = started(file, folder, "--workers", "2").wait()
        said, kept, keys = ledger(folder)
        assert (said, kept) == ("ok", keys)
        shutil.copytree(folder, tmp_path / "out")
    finally:
        subprocess.run(["umount", str(small)], check=False)
    assert started(file, tmp_path / "out", "--workers", "2").wait() == 0
    assert ledger(tmp_path / "out") == ("ok", 2000, 2000)
    told = f"exit {code}, {kept:,} points kept, the rest run elsewhere"
    report.row(SECTION, "a file system of 512 KiB fills up", told, "exit 4, resumes", met=code == 4)
    assert code == 4 and kept > 0


def quick(*_: object) -> Outcome:
    return Outcome(OK, "", '{"step_time_s":1.0}', 0.0, "nobody")


def test_many_points(tmp_path: Path, report: Report) -> None:
    """A parent of 24,000 points: its memory, and how long it looks for what is left."""
    file = sweep_file(tmp_path, 24_000)
    program = (
        "import sys, time; from test_sweep_faults import quick; from measured import peak; "
        "from simulator.sweep import load_sweep_file, run_sweep; sweep = load_sweep_file(sys.argv[1]); "
        "begun = time.process_time(); run_sweep(sweep, sys.argv[2], workers=0, evaluate=quick); "
        "print(time.process_time() - begun, peak())"
    )
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", program, str(file), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        found.append([float(word) for word in done.stdout.split()])
    (_, memory), (scan, again) = found
    most = max(memory, again)
    report.row(SECTION, "24,000 points: memory of the parent", f"{most:.0f} MB", "500 MB", met=most < 500)
    report.row(SECTION, "24,000 points: resume scan", f"{scan:.1f} s", "2 s", met=scan < 2)
    assert most < 500 and scan < 2
