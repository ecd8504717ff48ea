"""What all charts share: type, sizes, measured text, and the bytes of a picture."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from simulator.report.palette import FAINT, INK, QUIET
from simulator.report.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

WIDTH: Final = 9.0
"""Width of every chart [in]."""
DPI: Final = 150
"""Resolution of the PNGs."""
MARGIN: Final = 0.2
"""White around the content [in]."""
BODY: Final = 10
SMALL: Final = 9
TITLE: Final = 13

_SETTINGS: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": BODY,
    "text.color": INK,
    # A name may hold a dollar sign; none of our own texts needs formulas.
    "text.parse_math": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "svg.fonttype": "path",
    # Element ids of an SVG are salted hashes; without a salt of ours they differ from run to run.
    "svg.hashsalt": "clustersim",
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """The settings of all charts; those of the user's matplotlibrc are set aside and come back."""
    import matplotlib as mpl

    settings: Any = {
        key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")
    }
    settings |= _SETTINGS
    with mpl.rc_context(), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box, which is harmless and says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcParams.update(settings)
        yield


def new_figure(height: float, title: str, subtitle: str) -> Figure:
    """A figure `WIDTH` inches wide with a title and a line below it.

    Args:
        height: Height [in], titles included.
        title: What the chart says.
        subtitle: Of what it says it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for text, size, down, hue in ((title, TITLE, 0.36, INK), (subtitle, SMALL, 0.60, QUIET)):
        words = fitted(figure, shown(text, 300), WIDTH - 2 * MARGIN, size)
        weight = "bold" if size == TITLE else "normal"
        figure.text(MARGIN / WIDTH, 1 - down / height, words, fontsize=size, color=hue, fontweight=weight)
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes whose place is given in inches from the lower left corner."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    )


def text_width(figure: Figure, text: str, size: float = SMALL) -> float:
    """Width of a text as it will be drawn [in]."""
    from matplotlib.font_manager import FontProperties

    canvas: Any = figure.canvas
    font = FontProperties(family="DejaVu Sans", size=size)
    width, _, _ = canvas.get_renderer().get_text_width_height_descent(text, font, False)
    return float(width) / DPI


def widest(figure: Figure, texts: list[str], size: float = SMALL) -> float:
    """Width of the widest of some texts [in]."""
    return max((text_width(figure, text, size) for text in texts), default=0.0)


def fitted(figure: Figure, text: str, width: float, size: float = SMALL) -> str:
    """A text, cut in the middle until it is at most `width` inches wide."""
    # The bold title is at most a seventh wider than the same words in normal type.
    room = width / 1.14 if size == TITLE else width
    length = len(text)
    while length > 4 and text_width(figure, text, size) > room:
        length = min(length - 1, int(length * room / text_width(figure, text, size)) + 1)
        text = shown(text, length)
    return text


def wrapped(figure: Figure, text: str, width: float, most: int = 3) -> list[str]:
    """A text on at most so many lines of a width [in], broken at spaces and hyphens, cut where it must be."""
    pieces = re.findall(r"[^\s-]*-|[^\s-]+\s*|\s+", text)
    lines = [""]
    for number, piece in enumerate(pieces):
        if lines[-1] and text_width(figure, (lines[-1] + piece).rstrip()) > width:
            if len(lines) == most:
                lines[-1] += "".join(pieces[number:])
                break
            lines.append("")
        lines[-1] += piece
    return [fitted(figure, line.strip(), width) for line in lines]


def pictures(figure: Figure, name: str) -> Iterator[tuple[str, bytes]]:
    """A figure as PNG and as SVG, without dates, the same bytes every time."""
    nothing: dict[str, dict[str, str | None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    }
    for kind, metadata in nothing.items():
        buffer = io.BytesIO()
        # Level 3 takes half the time of the default and a tenth more bytes.
        options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if kind == "png" else {}
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata, **options)
        yield f"{name}.{kind}", buffer.getvalue()


def quiet_frame(axes: Axes) -> None:
    """Grid lines along x, no ticks and no line on the left."""
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def time_unit(span: float) -> tuple[str, float]:
    """The unit in which a span of seconds is a readable number, and units per second."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if span * scale >= 2:
            return unit, scale
    return "us", 1e6


def beside(axes: Axes, text: str, x: float, y: float) -> None:
    """Write a figure to the right of the end of a bar, legible on grid lines."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    axes.annotate(
        text, (x, y), (5, 0), textcoords="offset points", va="center_baseline", fontsize=SMALL, bbox=ground
    )


def texts_of(figure: Figure) -> list[Text]:
    """Every visible text of a figure, tick labels included."""
    from matplotlib.text import Text

    found = figure.findobj(Text)
    return [item for item in found if isinstance(item, Text) and item.get_visible() and item.get_text()]
