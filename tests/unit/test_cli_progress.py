"""Progress: nothing while nobody waits, a bar on a terminal, sparse lines in a log."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from simulator.cli import _progress
from simulator.cli._progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "PATIENCE_S", 0.2)
    monkeypatch.setattr(_progress, "LINES_S", 0.2)
    monkeypatch.setattr(_progress, "REFRESH_S", 0.01)


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def wait_for(stream: io.StringIO, text: str) -> str:
    """What the stream holds once it holds `text`; it fails after ten seconds."""
    until = time.monotonic() + 10.0
    while text not in stream.getvalue():
        assert time.monotonic() < until, stream.getvalue()
        time.sleep(0.01)
    return stream.getvalue()


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_nobody_is_told_of_what_takes_no_time(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    shown(monkeypatch, stream)
    with progress() as report:
        report(0.1, "playing")
        report(0.9, "playing")
    assert stream.getvalue() == ""


def test_a_terminal_sees_a_bar_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = shown(monkeypatch, Terminal())
    with progress() as report:
        report(0.1, "playing")
        assert "playing" in wait_for(stream, "10%")
        report(0.5, "[red]analysing")
        assert "[red]analysing" in wait_for(stream, "50%")


def test_a_log_sees_lines_even_while_nothing_more_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = shown(monkeypatch, io.StringIO())
    with progress() as report:
        report(0.4, "compiling")
        wait_for(stream, "compiling: 40%\ncompiling: 40%\n")
        report(0.8, "playing")
        wait_for(stream, "playing: 80%\n")


def test_quiet_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = shown(monkeypatch, Terminal())
    with progress(quiet=True) as report:
        report(0.5, "playing")
        time.sleep(0.3)
    assert stream.getvalue() == ""


def test_an_error_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, io.StringIO())
    with pytest.raises(ValueError, match="wrong"), progress():
        raise ValueError("wrong")
    assert "progress" not in {thread.name for thread in threading.enumerate()}
