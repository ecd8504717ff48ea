"""Pure functions without a clock: what a kernel, a collective or a file access demands of which capacity."""

from simulator.cost.collectives import collective_demand, link_rates, send_demand
from simulator.cost.demand import Demand, capacity_rates, tensor_rate
from simulator.cost.device import FEW_UNITS, slowest_of
from simulator.cost.groups import RankGroup
from simulator.cost.kernels import kernel_demand
from simulator.cost.step import in_step
from simulator.cost.storage import STORAGE_CAPACITIES, Access, access_demand, storage_rates

__all__ = [
    "FEW_UNITS",
    "STORAGE_CAPACITIES",
    "Access",
    "Demand",
    "RankGroup",
    "access_demand",
    "capacity_rates",
    "collective_demand",
    "in_step",
    "kernel_demand",
    "link_rates",
    "send_demand",
    "slowest_of",
    "storage_rates",
    "tensor_rate",
]
