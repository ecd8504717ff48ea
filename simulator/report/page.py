"""A page of the terminal: paragraphs, titles, rows with bars, at any width and in any encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from simulator.report.text import shown

_WIDEST: Final = 120
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"

Row = tuple[str, str, str, float, str]
"""Label, figure, second figure, length of the bar (0 to 1), colour."""


class Page:
    """A console that never raises for a character that it cannot show."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = max(20, min(console.width - 1, _WIDEST))
        self.plain = console.options.ascii_only

    def line(self, text: str | Text = "", style: str = "", indent: int = 0) -> None:
        """Print one paragraph, wrapped at the width of the page."""
        content = text if isinstance(text, Text) else Text(text, style=style)
        content.plain = self._encodable(content.plain)
        for part in content.wrap(self.console, self.width - indent):
            part.rstrip()
            self.console.print(Text(" " * indent) + part, soft_wrap=True, highlight=False)

    def title(self, text: str) -> None:
        """Print a heading."""
        self.line()
        self.line(text, style="bold")

    def rows(self, rows: Sequence[Row]) -> None:
        """Print labels, figures and bars in columns; the bar goes where there is no room for it."""
        if not rows:
            return
        figure, second = max(len(row[1]) for row in rows), max(len(row[2]) for row in rows)
        label = min(max(len(row[0]) for row in rows), max(10, self.width - figure - second - 6))
        room = min(40, self.width - label - figure - second - 8)
        for name, first, other, length, hue in rows:
            text = Text(f"  {shown(name, label):<{label}}  {first:>{figure}}  {other:>{second}}")
            if room >= 6 and length > 0:
                text.append("  ")
                text.append(self._bar(length, room), style=hue)
            self.line(text)

    def _bar(self, length: float, room: int) -> str:
        if self.plain:
            return "#" * max(1, round(length * room))
        eighths = max(1, round(length * room * 8))
        return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()

    def _encodable(self, text: str) -> str:
        encoding = self.console.encoding or "ascii"
        return text.encode(encoding, "replace").decode(encoding, "replace")
