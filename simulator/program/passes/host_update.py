"""The update of parameters whose optimizer's state lies outside of the GPU, tile by tile.

While one tile is updated, the gradients of the next are on their way out and the parameters of the last on
their way in; each lane takes the tiles in order.

Source: Ren et al., ZeRO-Offload, arXiv:2101.06840, section 5.2; Rajbhandari et al., ZeRO-Infinity,
arXiv:2104.07857, section 5.2.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from simulator.engine import Label
from simulator.program.passes.offload import StageOffload
from simulator.program.passes.transfers import add_legs
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.rows import Row, RowTable
from simulator.program.pricing.templates import LANE, TemplateBuilder
from simulator.workload import Kernel, Parameters, StateBytes, update_kernels
from simulator.workload.kernels import MatmulShape
from simulator.workload.optimizers import norm_kernel
from simulator.workload.precision import sized
from simulator.workload.state import NO_PARAMETERS

TILE_PARAMETERS = 128 * 2**20
"""Parameters of a tile. Source: ``TILE`` in csrc/includes/cpu_adam.h of deepspeedai/DeepSpeed."""
BUFFERS = 2
"""Tiles whose state is on the GPU at a time, where that updates them."""
DRIVE_BUFFERS = 4
"""Tiles whose state is in the host's memory on its way from the drives and back.

Source: ``buffer_count`` of ``offload_optimizer`` in DeepSpeed's configuration.
"""


def tiles(count: int) -> list[int]:
    """So many parameters in as few equal tiles as there are."""
    number = -(-count // TILE_PARAMETERS)
    return [count // number + (place < count % number) for place in range(number)]


def _part(kernel: Kernel, place: int, parts: int) -> Iterator[Kernel]:
    """A tile's share of independent products, which stay whole."""
    assert isinstance(kernel.shape, MatmulShape)
    batch = kernel.shape.batch
    share = batch * (place + 1) // parts - batch * place // parts
    if share:
        yield replace(
            kernel,
            flops=kernel.flops // batch * share,
            read_bytes=kernel.read_bytes // batch * share,
            write_bytes=kernel.write_bytes // batch * share,
            shape=replace(kernel.shape, batch=share),
        )


@dataclass(slots=True)
class HostUpdate:
    """Appends the update of a stage whose state, or whose parameters, lie outside of the GPU.

    Attributes:
        offload: What lies where.
        describe: Describes kernels.
        table: Takes the rows.
        per: Bytes per parameter.
        optimizer: Update rule.
        updated: Parameters that the GPU updates, wherever their state lies.
        into: The template so far; its first activity waits for what comes before.
        ends: Activities that the end of the update waits for.
        drained: Ends of the tiles' ways back to the drives.
    """

    offload: StageOffload
    describe: Describer
    table: RowTable
    per: StateBytes
    optimizer: str
    updated: Parameters
    into: TemplateBuilder = field(default_factory=TemplateBuilder)
    ends: list[int] = field(default_factory=list)
    drained: list[int] = field(default_factory=list)

    def run(
        self,
        kernels: Iterable[Kernel],
        here: int,
        there: int,
        orthogonal: Sequence[Kernel] = (),
        more: int = 0,
    ) -> TemplateBuilder:
        """The whole update; its last activity waits for everything.

        Args:
            kernels: What the GPU does all the same.
            here: Parameters that those update.
            there: Parameters whose state lies outside.
            orthogonal: What makes updates of whole matrices orthogonal, tile by tile on the GPU.
            more: Bytes of state that there are besides those of each parameter.
        """
        begin = self._mark("update.begin", ())
        last = begin
        for kernel in kernels:
            last = self.into.add(LANE["compute"], self.table.add(self.describe.kernel(kernel, "optimizer")))
        settings = self.offload.settings
        if settings.parameters and here:
            size = self.updated.part(here).size(self.per.parameters)
            legs = self.offload.out("optimizer.parameters", "optimizer", size, settings.parameters)
            self.ends.append(add_legs(self.into, self.table, legs, last))
        sizes = tiles(there) if there else []
        returned: list[int] = []
        for place, count in enumerate(sizes):
            before = returned[-BUFFERS] if place >= BUFFERS else begin
            if settings.optimizer_step == "host":
                returned.append(self._on_host(count, begin))
            else:
                extra = more * (place + 1) // len(sizes) - more * place // len(sizes)
                whole = [part for each in orthogonal for part in _part(each, place, len(sizes))]
                returned.append(self._on_gpu(count, before, begin, whole, extra))
        self._mark("update.end", (*self.ends, len(self.into.lanes) - 1))
        return self.into

    def norm(self, into: TemplateBuilder, gradients: int) -> None:
        """The host reads all gradients that lie there for their norm."""
        lane, row = self.offload.worked(
            "optimizer.gradient_norm", "optimizer", self.updated.part(gradients).size(self.per.gradients)
        )
        into.add(lane, self.table.add(row), (len(into.lanes) - 1,))

    def _mark(self, name: str, after: Sequence[int]) -> int:
        row = Row(Label(name, "optimizer", "optimizer"))
        return self.into.add(LANE["compute"], self.table.add(row), after)

    def _on_host(self, count: int, begin: int) -> int:
        """Gradients out, unless they are there; the host's cores; parameters in, unless they stay there."""
        ready = [begin]
        settings, per = self.offload.settings, self.per
        state = sized(count, per.optimizer)
        if settings.optimizer == "nvme":
            ready.append(self._read(state, begin))
        if settings.gradients is None:
            size = self.updated.part(count).size(per.gradients)
            legs = self.offload.out("optimizer.gradients", "optimizer", size, "host")
            ready.append(add_legs(self.into, self.table, legs, begin))
        lane, row = self.offload.worked("optimizer.host_update", "optimizer", self._traffic(count))
        last = updated = self.into.add(lane, self.table.add(row), ready)
        if settings.optimizer == "nvme":
            self.ends.append(self._write(state, updated))
        size = self.updated.part(count).size(per.parameters)
        if settings.parameters is None:
            legs = self.offload.back("optimizer.parameters", "optimizer", size, "host")
            last = add_legs(self.into, self.table, legs, updated)
        elif settings.parameters == "nvme":
            legs = [self.offload.written("optimizer.parameters", size, came=False)]
            last = add_legs(self.into, self.table, legs, updated)
        self.ends.append(last)
        return last

    def _on_gpu(self, count: int, before: int, begin: int, whole: Sequence[Kernel], more: int) -> int:
        """State in, with the gradients where they are on the host; the GPU; state out again."""
        settings, per = self.offload.settings, self.per
        state, each = sized(count, per.optimizer) + more, self.updated.part(count)
        held = state + (each.size(per.gradients) if settings.gradients else 0)
        gone = state + (each.size(per.parameters) if settings.parameters else 0)
        ready = begin
        if settings.optimizer == "nvme":
            ready = self._read(state, begin)
        lane, row = self.offload.back("optimizer.state", "optimizer", held, "host", take=held)[0]
        copied = self.into.add(lane, self.table.add(row), (ready, before))
        last = copied
        for kernel in (*whole, *self._kernels(count)):
            row = self.describe.kernel(kernel, "optimizer")
            last = self.into.add(LANE["compute"], self.table.add(row), (last,))
        lane, row = self.offload.out("optimizer.state", "optimizer", gone, "host", give=held)[0]
        out = last = self.into.add(lane, self.table.add(row), (last,))
        if settings.optimizer == "nvme":
            last = self._write(state, out)
        if settings.parameters == "nvme":
            legs = [self.offload.written("optimizer.parameters", each.size(per.parameters), came=False)]
            last = add_legs(self.into, self.table, legs, out)
        self.ends.append(last)
        return out

    def _read(self, state: int, begin: int) -> int:
        """A tile's state from the drives, as soon as there is a buffer for it."""
        full = len(self.drained) >= DRIVE_BUFFERS
        after = self.drained[-DRIVE_BUFFERS] if full else begin
        return add_legs(self.into, self.table, [self.offload.read("optimizer.state", state)], after)

    def _write(self, state: int, after: int) -> int:
        """A tile's state back to them."""
        legs = [self.offload.written("optimizer.state", state)]
        self.drained.append(add_legs(self.into, self.table, legs, after))
        return self.drained[-1]

    def _kernels(self, count: int) -> tuple[Kernel, ...]:
        """The update of so many parameters on the GPU."""
        norms = norm_kernel(self.optimizer, count, self.per.optimizer)
        update = update_kernels(
            self.updated.part(count), self.per, self.optimizer, clipping=False, held_gradients=NO_PARAMETERS
        )[0]
        return (update,) if norms is None else (norms, update)

    def _traffic(self, count: int) -> int:
        """Bytes of the host's memory that an update there reads and writes."""
        return sum(kernel.read_bytes + kernel.write_bytes for kernel in self._kernels(count))
