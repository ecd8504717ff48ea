"""What is too large is refused before it starts; damaged caches and Ctrl-C do no harm."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import simulator
from simulator.errors import EXIT_INTERRUPTED, EXIT_USER, ScenarioError
from simulator.run import simulate
from simulator.scenario import load_scenario
from support.inputs import shipped

QUICKSTART = shipped("quickstart")
COMMAND = str(Path(sys.executable).with_name("clustersim"))


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"simulation.max_memory": "500 kB"}, "simulation.max_memory is 488 KiB"),
        ({"training.global_batch_size": "1000000000"}, "the machine has room for"),
        (
            {
                "simulation.max_memory": "20 MB",
                "simulation.fold": "off",
                "cluster.nodes": "32",
                "training.global_batch_size": "512",
            },
            "simulation.max_memory is 19.1 MiB",
        ),
        (
            {"simulation.max_memory": "8 MB", "simulation.jitter.kernels.sigma": "1 %"},
            "max_memory is 7.63 MiB",
        ),
    ],
)
def test_what_does_not_fit_in_memory_is_refused_with_the_estimate(
    changes: dict[str, str], words: str
) -> None:
    scenario = load_scenario(QUICKSTART, changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    with pytest.raises(ScenarioError, match="would take about") as caught:
        simulate(scenario)
    assert words in str(caught.value)
    assert "activities" in str(caught.value)
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 * 1024


def test_the_command_says_so_in_one_line() -> None:
    done = run("run", str(QUICKSTART), "--json", "--set", "simulation.max_memory=500 kB")
    assert done.returncode == EXIT_USER
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_enough_memory_is_enough() -> None:
    assert simulate(load_scenario(QUICKSTART, {"simulation.max_memory": "1 GB"})).step_time_s > 0


@pytest.mark.parametrize("after", [0.2, 0.8, 1.4, 2.0])
def test_an_interrupted_run_leaves_a_whole_result_or_none(tmp_path: Path, after: float) -> None:
    folder = tmp_path / "result"
    process = subprocess.Popen(
        [COMMAND, "run", str(QUICKSTART), "--quiet", "--out", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    if process.returncode == 0:
        assert (folder / "result.json").is_file()
        return
    assert list(tmp_path.iterdir()) == []
    if after > 0.5:  # before that the interpreter is starting, and speaks for itself
        assert process.returncode == EXIT_INTERRUPTED
        assert "Traceback" not in told


CHILD = """
import numpy as np
from simulator.engine import ProgramBuilder, vectors
builder = ProgramBuilder()
link = builder.capacity("link", rate=1)
first = builder.activity(builder.lane("one"), {link: 1})
builder.activity(builder.lane("other"), {link: 2}, after=[first])
program = builder.build()
column = np.array([0, -1], np.int32)
ends = vectors.sweep_vectors(vectors.plan_vectors(program), np.array([3.0, 4.0]), np.array([[1.0, 2.0]]),
    row=column, meet=column, groups=np.zeros((1, 2), np.int32), mark=np.array([-1, 0], np.int32), marks=1)
print(ends.tolist(), vectors.contention(program, np.zeros(0, np.int64)) == "")
"""
EXPECTED = "[[7.0, 10.0]] True\n"


def copied_package(tmp_path: Path) -> Path:
    """The package with its cache, elsewhere; times of files are kept, so that the cache counts."""
    source = Path(simulator.__file__).parent
    shutil.copytree(source, tmp_path / "simulator", copy_function=shutil.copy2)
    return tmp_path / "simulator" / "engine" / "__pycache__"


def child(folder: Path, code: str = CHILD, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)} | environment
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=settings, cwd=folder
    )


def test_a_damaged_cache_is_survived(tmp_path: Path) -> None:
    """Of one function the index is no index, of the others the code is empty."""
    from simulator.engine import vectors

    vectors._load()  # so that there is a cache to copy
    cache = copied_package(tmp_path)
    indices, codes = (sorted(cache.glob(f"vector_kernel.*.{kind}")) for kind in ("nbi", "nbc"))
    one, _, _ = indices[0].name.partition("-")
    others = [path for path in codes if not path.name.startswith(f"{one}-")]
    assert others
    for path in indices:
        if path.name.startswith(f"{one}-"):
            path.write_bytes(b"not a pickle")
    for path in others:
        path.write_bytes(b"")
    done = child(tmp_path)
    assert (done.stdout, done.returncode) == (EXPECTED, 0), done.stderr[-2000:]


def test_without_a_folder_to_cache_in_code_is_compiled_all_the_same(tmp_path: Path) -> None:
    nowhere = "import numba.core.caching as c\nc.CacheImpl._locator_classes = []\n"
    done = child(tmp_path, nowhere + CHILD)
    assert (done.stdout, done.returncode) == (EXPECTED, 0), done.stderr[-2000:]
