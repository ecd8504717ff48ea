"""What classes of activities do, described without figures, and what each kind of work costs with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from simulator.cost import (
    FEW_UNITS,
    Access,
    Demand,
    RankGroup,
    access_demand,
    collective_demand,
    in_step,
    kernel_demand,
    send_demand,
    slowest_of,
    tensor_rate,
)
from simulator.program.pricing.prices import Figures, Pairs, Price, picoseconds, whole
from simulator.program.pricing.topology import NANOSECONDS, SLOT
from simulator.specs.hardware import AcceleratorSpec, StorageSpec
from simulator.workload import Collective, Kernel
from simulator.workload.kernels import Routed

_DEMAND_SLOTS = {
    "tensor": ((SLOT["tensor"], 1.0),),
    "vector": ((SLOT["vector"], 1.0),),
    "memory_bandwidth": ((SLOT["memory_bandwidth"], 1.0),),
    "host": ((SLOT["launch"], float(NANOSECONDS)),),
    "scale_up": ((SLOT["scale_up.send"], 1.0), (SLOT["scale_up.receive"], 1.0)),
    "scale_out": ((SLOT["scale_out.send"], 1.0), (SLOT["scale_out.receive"], 1.0)),
    "pcie": ((SLOT["pcie.to_host"], 1.0), (SLOT["pcie.to_gpu"], 1.0)),
}


@dataclass(frozen=True, slots=True)
class Ranks:
    """Members of a group, and how many of them are in one scale-up domain of how many accelerators.

    Their places in it count on meshes with unequal pairs only, and are given there.
    """

    count: int
    near: int
    domain: int
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """A kernel between others.

    Attributes:
        kernel: The kernel.
        launched_ahead: Whether the launching thread's part is accounted for elsewhere.
    """

    absolute: ClassVar[bool] = False
    kernel: Kernel
    launched_ahead: bool
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Works are looked up wherever they are priced, and kernels are many fields deep."""
        object.__setattr__(self, "_hash", hash((self.kernel, self.launched_ahead)))

    def __hash__(self) -> int:
        """Worked out once."""
        return self._hash

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        software, group = figures.software, figures.group
        return figures.calibration, software.attention_generation, group.accelerator, figures.chips

    def price(self, figures: Figures) -> Price:
        """What the cost models say of the kernel on the slowest of the accelerators."""
        calibration = figures.calibration
        accelerator = slowest_of(figures.group.accelerator, figures.chips, calibration.kernels.energy_spread)
        demand = in_step(
            self.kernel,
            kernel_demand(self.kernel, accelerator, calibration),
            accelerator,
            calibration,
            attention=figures.software.attention_generation,
            launched_ahead=self.launched_ahead,
        )
        return Price(picoseconds(demand.delay), _slots(demand))


@dataclass(frozen=True, slots=True)
class Meeting:
    """A collective.

    Attributes:
        collective: Which one.
        message_bytes: Full buffer [B].
        ranks: Who takes part.
        core: Id of the fabric's core, -1 where it never limits.
        gpus: GPUs that do the same at the same time, all of which pass the core.
        routed: How tokens are routed whose copies travel together.
    """

    absolute: ClassVar[bool] = False
    collective: Collective
    message_bytes: int
    ranks: Ranks
    core: int
    gpus: int
    routed: Routed | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """As for kernels."""
        object.__setattr__(
            self, "_hash", hash((self.collective, self.message_bytes, self.ranks, self.routed))
        )

    def __hash__(self) -> int:
        """Worked out once."""
        return self._hash

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        group = figures.group
        return figures.calibration, group.scale_up, group.scale_out, group.accelerator, group.host

    def price(self, figures: Figures) -> Price:
        """What the cost models say of the collective on the links, and the compute units that it holds."""
        group, ranks = figures.group, self.ranks
        members = RankGroup(
            ranks.count,
            ranks.near,
            group.accelerator,
            group.scale_up,
            group.scale_out,
            ranks.domain,
            ranks.places,
            group.host.pcie_bandwidth,
        )
        demand = collective_demand(
            self.collective, self.message_bytes, members, figures.calibration, routed=self.routed
        )
        demands = _slots(demand)
        if self.core >= 0 and "scale_out" in demand.amounts:
            demands += ((self.core, whole(demand.amounts["scale_out"] * self.gpus)),)
        return Price(picoseconds(demand.delay), demands, _holds(demand, group.accelerator))


@dataclass(frozen=True, slots=True)
class Sending:
    """A send from one stage to another.

    Attributes:
        message_bytes: Bytes of each GPU [B].
        near: Whether both are in one scale-up domain.
        path: Ids of the capacities that it passes.
        core: Which of them all GPUs of the stage pass, -1 for none.
        gpus: How many these are.
    """

    absolute: ClassVar[bool] = True
    message_bytes: int
    near: bool
    path: tuple[int, ...]
    core: int
    gpus: int

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        group = figures.group
        return figures.calibration, group.scale_up, group.scale_out, group.accelerator

    def price(self, figures: Figures) -> Price:
        """What the cost models say of the send on the link."""
        group = figures.group
        demand = send_demand(
            self.message_bytes,
            self.near,
            group.scale_up,
            group.scale_out,
            figures.calibration,
            accelerator=group.accelerator,
        )
        amount = demand.amounts.get("scale_up", 0.0) + demand.amounts.get("scale_out", 0.0)
        demands = tuple((id_, whole(amount * (self.gpus if id_ == self.core else 1))) for id_ in self.path)
        if "pcie" in demand.amounts:
            staged = whole(demand.amounts["pcie"])
            leaving = self.path[0] + SLOT["pcie.to_host"] - SLOT["scale_out.send"]
            arriving = self.path[-1] + SLOT["pcie.to_gpu"] - SLOT["scale_out.receive"]
            demands += ((leaving, staged), (arriving, staged))
        return Price(picoseconds(demand.delay), demands if amount else ())


@dataclass(frozen=True, slots=True)
class Launching:
    """The launching thread's work.

    Attributes:
        operators: Operators of the framework.
        looped: Further launches that compiled code makes inside of them.
    """

    absolute: ClassVar[bool] = False
    operators: int
    looped: int = 0

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        return figures.calibration, figures.software.launcher

    def price(self, figures: Figures) -> Price:
        """So much time of the thread for each; a bare launch for those that no interpreter makes."""
        constants = figures.calibration.kernels
        bare, python = constants.host_launch_time, figures.software.launcher == "python"
        seconds = self.operators * (constants.python_operator_time if python else bare) + self.looped * bare
        return Price(demands=((SLOT["launch"], whole(seconds * NANOSECONDS)),))


@dataclass(frozen=True, slots=True)
class Drawing:
    """Given amounts of given capacities, whatever the hardware; slots of a stage, or ids behind them."""

    absolute: ClassVar[bool] = False
    demands: Pairs

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        del figures
        return ()

    def price(self, figures: Figures) -> Price:
        """What is given."""
        del figures
        return Price(demands=self.demands)


@dataclass(frozen=True, slots=True)
class Storing:
    """Samples read from storage, or a checkpoint written to it.

    Attributes:
        way: Which of both.
        num_bytes: Bytes, all servers together [B].
        requests: Requests, all servers together.
        ids: Id of each of the storage's capacities by name.
        beside: What else it draws on.
        own_requests: Requests of one rank, which its workers share.
        workers: Its workers; each makes one request after the other.
    """

    absolute: ClassVar[bool] = False
    way: Access
    num_bytes: float
    requests: float
    ids: tuple[tuple[str, int], ...]
    beside: Pairs
    own_requests: float = 1.0
    workers: int = 1

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        return (figures.storage,)

    def price(self, figures: Figures) -> Price:
        """Servers' bandwidth and requests; a latency for each request that a worker makes."""
        storage, ids = _given(figures.storage), dict(self.ids)
        demand = access_demand(self.way, self.num_bytes, self.requests, storage)
        delay = picoseconds(storage.latency * self.own_requests / self.workers)
        drawn = tuple((ids[kind], whole(amount)) for kind, amount in demand.amounts.items())
        return Price(delay, drawn + self.beside)


@dataclass(frozen=True, slots=True)
class Driving:
    """Drives of a node, read or written through its memory by all GPUs of a stage that it holds."""

    absolute: ClassVar[bool] = False
    way: Access
    num_bytes: int

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """See `Work`."""
        return (figures.drives,)

    def price(self, figures: Figures) -> Price:
        """Bandwidth alone: drives take requests of a megabyte and more at their full bandwidth."""
        demand = access_demand(self.way, self.num_bytes, 0.0, _given(figures.drives))
        drive = (SLOT[f"nvme.{self.way}"], whole(demand.amounts[f"storage_{self.way}"]))
        return Price(picoseconds(demand.delay), (drive, (SLOT["host_memory"], whole(self.num_bytes))))


def _given(storage: StorageSpec | None) -> StorageSpec:
    assert storage is not None, "an outline with storage is priced with storage"
    return storage


def _holds(demand: Demand, accelerator: AcceleratorSpec) -> Pairs:
    """Compute units that a communication keeps from kernels; large cores have engines that copy for them.

    Collectives of four axes and two sends may run at once, and leave a unit to compute.
    """
    units = accelerator.num_compute_units or 0
    if not demand.compute_units or units < FEW_UNITS:
        return ()
    part = min(demand.compute_units, (units - 3) // 4) / units
    return (
        (SLOT["tensor"], whole(tensor_rate(accelerator) * part)),
        (SLOT["vector"], whole(accelerator.vector_flops * part)),
    )


def _slots(demand: Demand) -> Pairs:
    pairs = [
        (slot, whole(amount * scale))
        for kind, amount in demand.amounts.items()
        for slot, scale in _DEMAND_SLOTS[kind]
    ]
    return tuple(pairs)
