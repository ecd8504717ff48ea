"""What measurements cover, so that a result can say what lies outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from simulator.calibration._observations import Observation
from simulator.measurements import CollectiveWork, KernelWork
from simulator.specs.evidence import CalibratedRange


def calibrated_range(observations: Sequence[Observation]) -> CalibratedRange:
    """Accelerators and precisions of kernels; links, ranks, networks and messages of collectives."""
    precisions: dict[str, set[str]] = defaultdict(set)
    links: set[str] = set()
    inside, ranks = 1, 1
    networks: list[float] = []
    messages: list[float] = []
    for row in observations:
        if isinstance(row.work, KernelWork):
            precisions[row.work.accelerator.name].add(row.work.kernels[0].precision)
        if isinstance(row.work, CollectiveWork):
            group = row.work.group
            links.add(group.scale_up.name)
            inside, ranks = max(inside, group.ranks_per_domain), max(ranks, group.num_ranks)
            messages.append(float(row.work.message_bytes))
            if group.domains > 1:
                networks.append(group.scale_out.bandwidth)
    return CalibratedRange(
        accelerators={name: sorted(found) for name, found in sorted(precisions.items())},
        scale_up=sorted(links),
        ranks_in_domain=inside,
        ranks=ranks,
        scale_out_bandwidth=[min(networks), max(networks)] if networks else None,
        message_bytes=[min(messages), max(messages)] if messages else None,
    )
