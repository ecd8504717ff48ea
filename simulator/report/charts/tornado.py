"""Tornado: what throughput gains or loses when each figure of the hardware is better or worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, beside, fitted, new_figure, place, widest
from simulator.report.palette import INK, QUIET
from simulator.report.sweeps import key_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ROW: Final = 0.46
_MOST: Final = 14
_LEAST: Final = 0.0005
_BETTER: Final = ("#0072B2", "#A6CEE8")
_WORSE: Final = ("#D55E00", "#F5C9A8")


class TornadoRow(NamedTuple):
    """One figure: its key, its value in words, whether less is better, and factor -> change of throughput."""

    key: str
    value: str
    less_is_better: bool
    change: dict[float, float | None]


def draw_tornado(rows: Sequence[TornadoRow], subject: str) -> tuple[Figure, pd.DataFrame]:
    """Bars of the change of throughput for 10 % and for twice as good or bad a figure, the largest first."""
    import pandas as pd

    told = [row for row in rows if _reach(row) >= _LEAST][:_MOST]
    left_out = len(rows) - len(told)
    note = f"; {left_out} figures change less than 0.05 %" if left_out else ""
    height = 0.8 + _ROW * max(1, len(told)) + 1.0
    figure = new_figure(height, "What each figure of the hardware is worth", subject + note)
    labels = [fitted(figure, f"{key_words(row.key)}  {row.value}", 3.4) for row in told]
    left = MARGIN + widest(figure, labels) + 0.12
    right = 0.75
    axes = place(figure, left, 1.0, WIDTH - left - MARGIN - right, _ROW * max(1, len(told)))
    for place_in, row in enumerate(told):
        for shade, thickness, factors in ((1, 0.72, (0.5, 2.0)), (0, 0.36, (0.9, 1.1))):
            for factor in factors:
                change = row.change.get(factor)
                better = (factor > 1) != row.less_is_better
                hue = (_BETTER if better else _WORSE)[shade]
                if change is not None:
                    axes.barh(place_in, change * 100, thickness, color=hue)
                elif shade and factor in row.change:
                    beside(axes, f"{row.value} x {factor:g} does not fit", 0.0, place_in)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(told)), labels)
    axes.set_ylim(max(1, len(told)) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("change of throughput [%]")
    _key(figure)
    data = [(r.key, r.value, f, c) for r in rows for f, c in r.change.items()]
    return figure, pd.DataFrame(data, columns=["figure", "value", "factor", "change_of_throughput"])


def _reach(row: TornadoRow) -> float:
    return max((abs(c) if c is not None else 1.0 for c in row.change.values()), default=0.0)


def _key(figure: Figure) -> None:
    """What the four shades mean, in one line at the foot."""
    at, height = MARGIN, figure.get_size_inches()[1]
    for words, hue in (
        ("10 % better", _BETTER[0]),
        ("twice as good", _BETTER[1]),
        ("10 % worse", _WORSE[0]),
        ("half as good", _WORSE[1]),
    ):
        spot = place(figure, at, 0.2, 0.24, 0.14)
        spot.set_facecolor(hue)
        spot.set_xticks([])
        spot.set_yticks([])
        for spine in spot.spines.values():
            spine.set_visible(False)
        figure.text((at + 0.32) / WIDTH, 0.27 / height, words, fontsize=SMALL, va="center", color=QUIET)
        at += 1.75
