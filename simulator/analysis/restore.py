"""How long it takes to read the last checkpoint."""

from __future__ import annotations

from simulator.cost import access_demand, storage_rates
from simulator.program import Lowered
from simulator.specs import StorageSpec


def restore_seconds(lowered: Lowered, storage: StorageSpec) -> float:
    """Time until every GPU has its state again [s]; the parts follow one another.

    The ranks that wrote the state read it, all at once and each byte once:
    ``latency + max(state / read bandwidth, requests / read rate, a node's part / its path to storage)``;
    then each copies its part to its device, and replicas pass parameters that they all hold to one another,
    ``parameters / link``.

    Args:
        lowered: A Program with a checkpoint.
        storage: Where it lies.

    Valid: storage that nobody else reads meanwhile.
    """
    group, plan, states = lowered.group, lowered.plan, lowered.states[:: lowered.copies]
    largest = max(state.checkpoint_largest for state in states)
    writers = sum(state.checkpoint_writers for state in states)
    local = min(writers, group.gpus_per_node)
    if storage.kind == "shared":
        demand = access_demand("read", sum(state.checkpoint_bytes for state in states), writers, storage)
        path = largest * local / group.host.storage_bandwidth
    else:
        demand, path = access_demand("read", largest * local, local, storage), 0.0
    rates = storage_rates(storage)
    read = demand.delay + max(path, *(amount / rates[name] for name, amount in demand.amounts.items()))
    copy = max(state.checkpoint_copied for state in states) / group.host.pcie_bandwidth
    if plan.data_parallel == 1 or plan.sharding.parameters:
        return read + copy
    link = group.scale_out if group.nodes > 1 else group.scale_up
    return read + copy + max(state.parts["parameters"] for state in states) / link.bandwidth
