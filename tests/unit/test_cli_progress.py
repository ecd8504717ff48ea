"""Progress: nothing while nobody waits, a bar on a terminal, sparse lines in a log."""

from __future__ import annotations

import io
import sys

import pytest

from simulator.cli import _progress
from simulator.cli._progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the module sees; rich keeps its own."""
    now = [100.0]
    monkeypatch.setattr(_progress, "monotonic", lambda: now[0])
    return now


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_a_terminal_sees_a_bar_after_a_second(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stream = shown(monkeypatch, Terminal())
    with progress() as report:
        report(0.1, "playing")
        clock[0] += 0.9
        report(0.2, "playing")
        assert stream.getvalue() == ""
        clock[0] += 0.2
        report(0.5, "[red]analysing")
    assert "[red]analysing" in stream.getvalue()
    assert "50%" in stream.getvalue()


def test_a_log_sees_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stream = shown(monkeypatch, io.StringIO())
    with progress() as report:
        for tenth in range(250):
            clock[0] = 100.0 + tenth / 10
            report(tenth / 250, "playing")
    assert stream.getvalue() == "playing: 40%\nplaying: 80%\n"


def test_quiet_sees_nothing(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    stream = shown(monkeypatch, Terminal())
    with progress(quiet=True) as report:
        clock[0] += 100
        report(0.5, "playing")
    assert stream.getvalue() == ""
