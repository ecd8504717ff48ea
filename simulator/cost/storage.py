"""What a file access demands of a storage system."""

from __future__ import annotations

from typing import Final, Literal

from simulator.cost.demand import Demand
from simulator.specs import StorageSpec

STORAGE_CAPACITIES: Final = (
    "storage_read",
    "storage_read_operations",
    "storage_write",
    "storage_write_operations",
)
"""Names of the capacities of one server."""


Access = Literal["read", "write"]


def access_demand(way: Access, num_bytes: float, requests: float, storage: StorageSpec) -> Demand:
    """What reading or writing demands of each of the storage's servers, the load spread evenly over them.

    Args:
        way: Which of both.
        num_bytes: Bytes read or written, all servers together [B].
        requests: Requests, all servers together.
        storage: The storage system.

    Returns:
        Delay of one request [s]; per server ``storage_read`` or ``storage_write`` [B], and
        ``storage_read_operations`` or ``storage_write_operations`` [op].

    Raises:
        ValueError: A negative amount.

    Valid: requests in flight at once; servers with equal load.
    """
    if num_bytes < 0 or requests < 0:
        raise ValueError(f"an access of {num_bytes:g} B in {requests:g} requests is negative")
    kind = f"storage_{way}"
    amounts = {kind: num_bytes / storage.servers, f"{kind}_operations": requests / storage.servers}
    return Demand(
        delay=storage.latency if num_bytes or requests else 0.0,
        amounts={name: amount for name, amount in amounts.items() if amount},
    )


def storage_rates(storage: StorageSpec) -> dict[str, float]:
    """Rate of each of `STORAGE_CAPACITIES`, in their order [B/s, op/s]."""
    return {
        "storage_read": storage.read_bandwidth,
        "storage_read_operations": storage.read_iops,
        "storage_write": storage.write_bandwidth,
        "storage_write_operations": storage.write_iops,
    }
