"""`catalog`: the kinds, the entries of a kind, and every figure of one entry with its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from simulator.cli._output import print_table, say
from simulator.errors import ClustersimError

if TYPE_CHECKING:
    from simulator.catalog import Kind

_FIGURES: Final = "figures"
_WORDS: Final = ("name", "vendor")
"""What is no figure and has no source."""

_MAIN: Final[dict[str, tuple[str, ...]]] = {
    "accelerators": ("peak_flops.bf16", "peak_flops.fp16", "memory_capacity", "memory_bandwidth", "tdp"),
    "interconnects": ("bandwidth", "latency", "topology"),
    "hosts": ("cpu_cores", "memory_capacity", "pcie_bandwidth", "storage_bandwidth"),
    "storage": ("kind", "servers", "read_bandwidth", "write_bandwidth", "latency"),
    "systems": ("nodes", "gpus_per_node", "accelerator", "scale_up", "scale_out"),
    "models": ("family", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"),
    "software": ("attention", "norm", "fused_gradient_accumulation", "blocking_sends", "launcher"),
}
"""What the table of a kind shows; the rest stands with the entry itself."""


def show_catalog(kind: str | None, name: str | None) -> None:
    """Print a table of kinds, of the entries of one kind, or of the figures of one entry.

    Raises:
        ClustersimError: No such kind, or no such entry.
    """
    from simulator.catalog import KINDS, names

    if kind is None:
        print_table(("kind", "entries"), [(each, str(len(names(each)))) for each in KINDS])
        return
    known: Kind | None = next((each for each in KINDS if each == kind), None)
    if known is None:
        raise ClustersimError(f'catalog: no kind "{kind}"; there are {", ".join(KINDS)}')
    if name is None:
        _show_entries(known)
    else:
        _show_entry(known, name)


def _show_entries(kind: Kind) -> None:
    from simulator.catalog import entry, names

    wanted = _MAIN.get(kind, ())
    rows = [(name, *(_main_figure(entry(kind, name), key) for key in wanted)) for name in names(kind)]
    heads = ("name", *(key.rpartition(".")[2].replace("_", " ") for key in wanted))
    print_table(heads, rows)


def _show_entry(kind: Kind, name: str) -> None:
    from simulator.catalog import entry, figure

    block = entry(kind, name)
    sources: dict[str, int] = {}
    rows = []
    for key, value in _leaves(block):
        if key in _WORDS:
            continue
        ground = figure(block, key) or {}
        source = str(ground.get("source", ""))
        number = f"[{sources.setdefault(source, len(sources) + 1)}]" if source else ""
        rows.append((key, _shown(value), str(ground.get("basis", "")), number))
    say(" - ".join(str(block[key]) for key in _WORDS if key in block))
    print_table(("figure", "value", "basis", "source"), rows)
    for source, place in sources.items():
        say(f"[{place}] {' '.join(source.split())}")


def _leaves(block: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in block.items():
        if not prefix and key == _FIGURES:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _main_figure(block: Mapping[str, object], key: str) -> str:
    value: object = block
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("base")
    return "-" if value is None else _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
