"""The command line: what each command prints where, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.cli import main
from simulator.cli._entry import guarded
from simulator.errors import (
    ClustersimError,
    EnvironmentFailure,
    Problem,
    ScenarioError,
    SimulationError,
)

PROGRAM = [sys.executable, "-c", "import sys; from simulator.cli import main; sys.exit(main())"]

SCENARIO = """\
name: small
cluster: {system: dgx-a100}
model: llama-3-8b
training: {sequence_length: 2048, micro_batch_size: 1, global_batch_size: 8}
parallelism: {tensor_parallel: 8}
"""


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("env", {**os.environ, "COLUMNS": "80"})
    return subprocess.run(
        [*PROGRAM, *arguments], check=False, capture_output=True, text=True, timeout=60, **options
    )


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


class Calls(list[tuple[str, Any]]):
    """What a command asked of the rooms below."""

    def names(self) -> list[str]:
        return [name for name, _ in self]


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A simulation and a report that only note that they were asked."""
    calls = Calls()

    def run(scenario: Any, *, progress: Any) -> Any:
        calls.append(("run", scenario))
        progress(0.5, "half way")
        return types.SimpleNamespace(result=types.SimpleNamespace(fits=True))

    def rank_bottlenecks(outcome: Any, *, progress: Any) -> str:
        calls.append(("rank_bottlenecks", outcome))
        progress(0.5, "nearly there")
        return "result"

    def note(name: str, answer: Any = None) -> Callable[..., Any]:
        return lambda *arguments, **named: (calls.append((name, (arguments, named))), answer)[1]

    monkeypatch.setitem(sys.modules, "simulator.run", types.SimpleNamespace(run=run))
    advise = types.SimpleNamespace(rank_bottlenecks=rank_bottlenecks, remedies=note("remedies"))
    monkeypatch.setitem(sys.modules, "simulator.advise", advise)
    report = types.SimpleNamespace(
        check_destination=note("check_destination"),
        print_report=note("print_report"),
        write_result_folder=note("write_result_folder"),
        result_json=note("result_json", '{"name": "sm\u00e4ll"}'),
        draw_charts=note("draw_charts"),
        load_result_folder=note("load_result_folder", "saved"),
    )
    monkeypatch.setitem(sys.modules, "simulator.report", report)
    return calls


def test_run_reports_and_writes_to_the_folder_of_its_name(scenario: Path, rooms: Calls) -> None:
    assert main(["run", str(scenario)]) == 0
    assert rooms.names() == [
        "check_destination",
        "run",
        "rank_bottlenecks",
        "write_result_folder",
        "print_report",
    ]
    written, named = rooms[3][1]
    assert (written[0], written[2]) == ("result", Path("results/small"))
    assert "sequence_length: 2048" in written[1]
    assert named == {"force": False, "charts": True}


def test_json_alone_writes_nothing_and_prints_only_json(
    scenario: Path, rooms: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(scenario), "--json"]) == 0
    assert rooms.names() == ["run", "rank_bottlenecks", "result_json"]
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"name": "sm\u00e4ll"}
    assert streams.out.isascii()
    assert streams.err == ""


def test_json_with_a_folder_writes_it_too(scenario: Path, rooms: Calls) -> None:
    assert main(["run", str(scenario), "--json", "--out", "here", "--force"]) == 0
    assert rooms.names() == [
        "check_destination",
        "run",
        "rank_bottlenecks",
        "write_result_folder",
        "result_json",
    ]
    assert rooms[0][1][0] == (Path("here"), True)


def test_quiet_says_nothing(scenario: Path, rooms: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(scenario), "--quiet"]) == 0
    assert "print_report" not in rooms.names()
    assert capsys.readouterr() == ("", "")


def test_set_changes_the_scenario_and_the_last_one_wins(scenario: Path, rooms: Calls) -> None:
    changes = [
        "--set",
        "training.micro_batch_size=2",
        "--set",
        "training.micro_batch_size = 4",
        "--set",
        "name=a=b",
    ]
    assert main(["run", str(scenario), *changes]) == 0
    loaded = rooms[1][1]
    assert (loaded.training.micro_batch_size, loaded.name) == (4, "a=b")
    assert rooms[3][1][0][2].name.startswith("a-b-")


@pytest.mark.parametrize("change", ["training.steps", "=4", " = 4"])
def test_set_without_a_key_or_value_is_refused(
    scenario: Path, rooms: Calls, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(scenario), "--set", change]) == 2
    assert "key=value" in capsys.readouterr().err
    assert rooms == []


def test_a_bad_scenario_ends_before_anything_is_done(
    scenario: Path, rooms: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(SCENARIO.replace("tensor_parallel", "tensor_paralel"))
    assert main(["run", str(scenario)]) == 2
    assert rooms == []
    error = capsys.readouterr().err
    assert error.startswith(f"{scenario}:5:15: ")
    assert 'did you mean "tensor_parallel"?' in error
    assert error.count("\n") == 1


def test_a_bad_plan_is_told_with_its_place_and_nothing_is_written(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(SCENARIO.replace("tensor_parallel: 8", "pipeline_parallel: 5"))
    assert main(["run", str(scenario)]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith(f"{scenario}:5:")
    assert not Path("results").exists()


def test_check_tells_right_files_on_stdout_and_wrong_ones_on_stderr(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = scenario.with_name("wrong.yaml")
    wrong.write_text(SCENARIO.replace("tensor_parallel: 8", "tensor_parallel: 16"))
    assert main(["check", str(scenario)]) == 0
    streams = capsys.readouterr()
    assert streams.out.startswith(f"{scenario}: ok (")
    assert "!" not in streams.out
    assert streams.err == ""
    assert main(["check", str(scenario), "--set", "parallelism.overlap_point_to_point=false"]) == 0
    assert "\n  ! overlap_point_to_point changes nothing" in capsys.readouterr().out
    assert main(["check", str(wrong), str(scenario), "none.yaml"]) == 2
    streams = capsys.readouterr()
    assert streams.out.count("\n") == 1
    assert [line.split(":")[0] for line in streams.err.splitlines()] == [str(wrong), "none.yaml"]
    assert "16" in streams.err


def test_check_simulates_nothing(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.run.play", None)
    assert main(["check", str(scenario)]) == 0


def test_plot_draws_each_folder(rooms: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "one", "two"]) == 0
    assert rooms.names() == ["load_result_folder", "draw_charts"] * 2
    assert rooms[3][1][0] == ("saved", Path("two"))
    assert capsys.readouterr().out == "one: charts drawn\ntwo: charts drawn\n"


def test_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"cluster", "model", "training"} <= set(schema["properties"])
    assert main(["schema", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert all(f"| `{key}` |" in page for key in ("micro_batch_size", "tensor_parallel", "memory_bandwidth"))


def test_catalog_goes_from_kinds_to_entries_to_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["catalog"]) == 0
    assert "accelerators" in capsys.readouterr().out
    assert main(["catalog", "accelerators"]) == 0
    listed = capsys.readouterr().out
    (line,) = [line for line in listed.splitlines() if line.startswith("H100-SXM5-80GB")]
    assert "80 GiB" in line
    assert "3.35 TB/s" in line
    assert main(["catalog", "accelerators", "h100"]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("memory_bandwidth")]
    source = line.split()[-1]
    assert "3.35 TB/s" in line
    assert "datasheet" in line
    assert any(line.startswith(f"{source} https://") for line in shown.splitlines())


def test_every_kind_and_entry_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from simulator.catalog import KINDS, names

    for kind in KINDS:
        assert main(["catalog", kind]) == 0
        assert main(["catalog", kind, names(kind)[0]]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["catalog", "gpus"], "accelerators"),
        (["catalog", "accelerators", "H1000"], "did you mean"),
        (["run"], "Missing argument"),
        (["run", "x.yaml", "--frobnicate"], "--frobnicate"),
        (["frobnicate"], "frobnicate"),
        (["validate", "m.csv", "--sample", "0"], "--sample"),
        (["validate", "m.csv", "--workers", "many"], "--workers"),
        (["validate", "none.csv"], "none.csv: no such file"),
        (["run", "none.yaml"], "none.yaml"),
        (["plot", "/none"], "/none"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert said in streams.err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["-h"], []):
        assert main(arguments) == 0
        assert "validate" in capsys.readouterr().out
    for command in (
        *("run", "check", "catalog", "schema", "plot", "sweep", "export"),
        *("compare", "sensitivity", "plan", "validate"),
    ):
        assert main([command, "--help"]) == 0
        assert "Usage: clustersim" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("clustersim 0.")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (
            ScenarioError([Problem("a.yaml", 1, 2, "one"), Problem("a.yaml", 3, 4, "two")]),
            2,
            "a.yaml:1:2: one\na.yaml:3:4: two\n",
        ),
        (SimulationError("at 1 s: stuck"), 2, "at 1 s: stuck\n"),
        (ClustersimError(), 2, "ClustersimError\n"),
        (EnvironmentFailure("disk full"), 4, "disk full\n"),
        (KeyboardInterrupt(), 130, "clustersim: interrupted\n"),
        (MemoryError(), 4, "clustersim: out of memory\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.json"),
            4,
            "clustersim: out.json: No space left on device\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out.json"),
            4,
            "clustersim: out.json: Permission denied\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(
    raised: BaseException,
    code: int,
    said: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simulator.cli._entry._silence", lambda stream: None)

    def fail() -> int:
        raise raised

    assert guarded(fail) == code
    assert capfd.readouterr().err == said


def test_anything_else_is_a_bug_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise KeyError("no such thing")

    assert guarded(fail) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].endswith("please report it with the lines above and the scenario")


def test_help_needs_no_heavy_library() -> None:
    heavy = "{'numpy', 'pandas', 'matplotlib', 'pydantic', 'numba', 'rich', 'simpy', 'ruamel.yaml'}"
    code = (
        "import sys; from simulator.cli import main; main(['--help']); "
        f"found = {heavy} & set(sys.modules); print(found, file=sys.stderr); sys.exit(len(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "set()\n")


def test_a_closed_stdout_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *PROGRAM, "catalog", "accelerators"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_is_no_error() -> None:
    # The schema is longer than a pipe holds, so the writer is certain to notice.
    with subprocess.Popen([*PROGRAM, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_the_environments_fault() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "schema"], check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (4, "clustersim: No space left on device\n")


@pytest.mark.parametrize(
    "arguments", [["catalog", "accelerators"], ["catalog", "accelerators", "H100"], ["--help"]]
)
def test_a_narrow_terminal_without_unicode_is_no_error(arguments: list[str]) -> None:
    env = {**os.environ, "COLUMNS": "40", "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "TERM": "dumb"}
    done = program(*arguments, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    # Sources stay whole, so that addresses can be followed.
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if not line.startswith("["))


def test_a_name_that_cannot_be_printed_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "check", os.fsencode(tmp_path) + b"/\xff\xfe.yaml"],
        check=False,
        capture_output=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_a_command_with_130(number: signal.Signals) -> None:
    code = (
        "import sys, time\n"
        "import simulator.cli._commands as commands, simulator.cli._output\n"
        "def wait(*_):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "import simulator.cli._catalog as catalog\n"
        "catalog.show_catalog = wait\n"
        "from simulator.cli import main\n"
        "sys.exit(main(['catalog']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.read() == "clustersim: interrupted\n"
    assert process.returncode == 130


def test_an_interruption_while_the_command_line_is_imported_ends_with_130(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("print('ready', flush=True)\nimport time\ntime.sleep(60)\n")
    process = subprocess.Popen(
        PROGRAM,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "clustersim: interrupted\n"
    assert process.returncode == 130


def test_an_interruption_that_a_library_turns_into_an_error_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    from simulator.cli import _entry

    def import_that_breaks(_arguments: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("multiarray failed to import") from None
        raise AssertionError("the signal interrupts")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(_entry, "_dispatch", import_that_breaks)
    assert _entry.main([]) == 130
    assert capsys.readouterr().err == "clustersim: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_without_an_interruption_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simulator.cli import _entry

    def broken(_arguments: list[str]) -> int:
        raise ImportError("multiarray failed to import")

    monkeypatch.setattr(_entry, "_dispatch", broken)
    assert _entry.main([]) == 1
    assert "Traceback" in capsys.readouterr().err
