"""Collectives as nccl-tests prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, get_args

from simulator.cost import RankGroup
from simulator.errors import Problem, UnsupportedError
from simulator.measurements._benchmark import Benchmark, Cells
from simulator.measurements._cells import Fault, fault_of_count, fault_of_rate
from simulator.measurements._hardware import device, has_early_library, scale_out_link, scale_up_link
from simulator.measurements._table import Row
from simulator.measurements._work import CollectiveWork
from simulator.workload.kernels import Collective

_LARGEST_MESSAGE: Final = 2**50

_SAME_TIME: Final = {"alltoall": "all_to_all", "reduce": "broadcast"}
"""Other names; a reduction to one rank is a broadcast run backwards: the same links, the same bytes."""


class NodeCollectives(Benchmark):
    """Collectives on the GPUs of one node.

    Protocol: `bytes` is the full buffer, as nccl-tests prints it; the time is that of one operation, out
    of place, in a loop.
    """

    name = "collectives of one node"
    library_of_its_day: ClassVar[bool] = False
    required: ClassVar[tuple[str, ...]] = (
        "id",
        "gpu",
        "gpus_per_node",
        "scale_up",
        "n_ranks",
        "n_nodes",
        "collective",
        "bytes",
    )
    faults: ClassVar[Mapping[str, Fault]] = {
        "n_ranks": fault_of_count,
        "n_nodes": fault_of_count,
        "gpus_per_node": fault_of_count,
        "bytes": lambda text: fault_of_count(text, 1, _LARGEST_MESSAGE),
        "scale_out_gbps_per_gpu": fault_of_rate,
    }

    def problems(self, row: Row) -> list[Problem]:
        """As every benchmark, and ranks that do not fill their nodes."""
        found = list(super().problems(row))
        if not found:
            ranks, nodes = int(float(row.cells["n_ranks"])), int(float(row.cells["n_nodes"]))
            if ranks % nodes or ranks // nodes > int(float(row.cells["gpus_per_node"])):
                message = (
                    f"{ranks} ranks do not spread over {nodes} nodes of {row.cells['gpus_per_node']} GPUs"
                )
                found.append(row.problem("n_ranks", message))
        return found

    def work(self, cells: Cells) -> CollectiveWork:
        """The collective."""
        ranks, nodes = int(float(cells["n_ranks"])), int(float(cells["n_nodes"]))
        if ranks == 1:
            raise UnsupportedError(("n_ranks",), "a collective of one rank moves nothing; not modelled")
        per_node = int(float(cells["gpus_per_node"]))
        gpu = device(cells["gpu"], cells["scale_up"])
        group = RankGroup(
            num_ranks=ranks,
            ranks_per_domain=ranks // nodes,
            accelerator=gpu,
            scale_up=scale_up_link(cells["scale_up"], per_node, gpu.name),
            scale_out=scale_out_link(
                cells.get("scale_out_gbps_per_gpu", ""),
                cells.get("hardware", ""),
                cells.get("in_network") == "sharp",
            ),
            domain_size=per_node,
            early_library=self.library_of_its_day and has_early_library(gpu),
        )
        return CollectiveWork(_collective(cells["collective"]), int(float(cells["bytes"])), group)

    def group(self, cells: Cells) -> str:
        """Collective, ranks and accelerator."""
        nodes = int(float(cells["n_nodes"]))
        where = f" on {nodes} nodes" if nodes > 1 else ""
        return f"{cells['collective']} x {cells['n_ranks']} {cells['gpu']}{where}"

    def size(self, cells: Cells) -> float:
        """The full buffer [B]."""
        return float(cells["bytes"])


class TableCollectives(NodeCollectives):
    """Tables of nccl-tests from several clusters, of one node and of several.

    Protocol: as `NodeCollectives`; of the description of the hardware only the network's technology is
    read, for its latency and for who moves the data. V100 and A100 ran the libraries of their day.
    """

    name = "collectives of several clusters"
    library_of_its_day = True
    required = (*NodeCollectives.required, "scale_out_gbps_per_gpu", "hardware")
    may_be_empty = ("scale_out_gbps_per_gpu", "hardware")

    def source(self, cells: Cells) -> str:
        """The cluster."""
        return cells.get("hardware") or cells.get("source", "")


def _collective(name: str) -> Collective:
    own = _SAME_TIME.get(name, name)
    for known in get_args(Collective):
        if known == own:
            return known  # type: ignore[no-any-return]
    raise UnsupportedError(("collective",), f'"{name}" is not modelled')
