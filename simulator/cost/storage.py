"""What a file access demands of a storage system."""

from __future__ import annotations

from typing import Final

from simulator.cost.demand import Demand
from simulator.specs import StorageSpec

STORAGE_CAPACITIES: Final = (
    "storage_read",
    "storage_read_operations",
    "storage_write",
    "storage_write_operations",
)
"""Names of the capacities of one server."""


def read_demand(num_bytes: float, requests: float, storage: StorageSpec) -> Demand:
    """What reading demands of each of the storage's servers, the load spread evenly over them.

    Args:
        num_bytes: Bytes read, all servers together [B].
        requests: Read requests, all servers together.
        storage: The storage system.

    Returns:
        Delay of one request [s]; per server ``storage_read`` [B] and ``storage_read_operations`` [op].

    Raises:
        ValueError: A negative amount.

    Valid: requests in flight at once; servers with equal load.
    """
    return _access("storage_read", num_bytes, requests, storage)


def write_demand(num_bytes: float, requests: float, storage: StorageSpec) -> Demand:
    """What writing demands of each of the storage's servers, the load spread evenly over them.

    Args:
        num_bytes: Bytes written, all servers together [B].
        requests: Write requests, all servers together.
        storage: The storage system.

    Returns:
        Delay of one request [s]; per server ``storage_write`` [B] and ``storage_write_operations`` [op].

    Raises:
        ValueError: A negative amount.

    Valid: requests in flight at once; servers with equal load.
    """
    return _access("storage_write", num_bytes, requests, storage)


def storage_rates(storage: StorageSpec) -> dict[str, float]:
    """Rate of each of `STORAGE_CAPACITIES`, in their order [B/s, op/s]."""
    return {
        "storage_read": storage.read_bandwidth,
        "storage_read_operations": storage.read_iops,
        "storage_write": storage.write_bandwidth,
        "storage_write_operations": storage.write_iops,
    }


def _access(kind: str, num_bytes: float, requests: float, storage: StorageSpec) -> Demand:
    if num_bytes < 0 or requests < 0:
        raise ValueError(f"an access of {num_bytes:g} B in {requests:g} requests is negative")
    amounts = {kind: num_bytes / storage.servers, f"{kind}_operations": requests / storage.servers}
    return Demand(
        delay=storage.latency if num_bytes or requests else 0.0,
        amounts={name: amount for name, amount in amounts.items() if amount},
    )
