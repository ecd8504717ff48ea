"""What lies on a device besides the model's tensors: driver, libraries, buffers of communicators."""

from __future__ import annotations

from math import ceil

from simulator.program.axes import Group
from simulator.program.plan import Plan
from simulator.specs.calibration import Calibration

FRAMEWORK = "framework"
"""Part of the memory: context of the driver and code of the libraries."""
COMMUNICATION = "communication_buffers"
"""Part of the memory: buffers through which communicators send."""
FRAGMENTATION = "fragmentation"
"""Part of the memory: what the allocator holds and cannot hand out."""
OUTSIDE = (FRAMEWORK, COMMUNICATION)
"""Parts that the framework's allocator does not know of."""

_GROUPS: tuple[Group, ...] = ("tensor", "data", "pipeline", "context", "expert")


def outside_bytes(plan: Plan, calibration: Calibration) -> dict[str, int]:
    """Memory that the framework's allocator does not know of, by part [B].

    Each axis along which the plan communicates has a communicator, and all ranks together have one, for
    what the whole job agrees on. A communicator keeps buffers of all protocols for every channel and every
    neighbour on its ring and its tree.

    Source: NCCL, ``NCCL_BUFFSIZE``, ``NCCL_LL_BUFF_SIZE`` and ``NCCL_LL128_BUFF_SIZE`` in src/include/device.h.
    Valid: communicators that have been used; links between nodes as those inside.
    """
    constants = calibration.memory
    used = sum(plan.degree(group) > 1 for group in _GROUPS)
    communicators = used + (used > 1)
    channels = constants.channel_buffer * constants.channel_neighbours * calibration.collectives.channels
    return {
        FRAMEWORK: ceil(constants.driver_context),
        COMMUNICATION: ceil(communicators * channels),
    }
