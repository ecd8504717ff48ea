"""What a collective demands of one rank's links, chosen among algorithms and protocols as libraries do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2
from typing import get_args

from simulator.cost.demand import Demand
from simulator.specs import AcceleratorSpec, LinkSpec
from simulator.specs.calibration import Calibration, CollectiveConstants
from simulator.workload.kernels import Collective

BYTES_PER_CHANNEL = 2**19
"""Message that one channel (compute unit) is started for: NCCL's buffer of one step, 512 KiB [B]."""


@dataclass(frozen=True, slots=True)
class RankGroup:
    """Who takes part in a collective.

    Attributes:
        num_ranks: Members p.
        ranks_per_domain: Members inside one scale-up domain; `num_ranks` if all are.
        accelerator: The members' accelerator.
        scale_up: Interconnect inside the domain, per accelerator.
        scale_out: Network between domains, per accelerator.
        domain_size: Accelerators that the scale-up interconnect joins, members or not; it decides how many
            links of a mesh lead to members. If not given, a mesh has one link a pair.
    """

    num_ranks: int
    ranks_per_domain: int
    accelerator: AcceleratorSpec
    scale_up: LinkSpec
    scale_out: LinkSpec
    domain_size: int | None = None

    def __post_init__(self) -> None:
        if self.num_ranks < 1 or not 1 <= self.ranks_per_domain <= self.num_ranks:
            raise ValueError(
                f"a group of {self.num_ranks} ranks cannot have {self.ranks_per_domain} of them in a domain"
            )

    @property
    def domains(self) -> int:
        """Scale-up domains that the group spans."""
        return ceil(self.num_ranks / self.ranks_per_domain)


@dataclass(frozen=True, slots=True)
class _Ends:
    """A link's figures, and only those that the model reads, so that results can be kept by value."""

    bandwidth: float
    latency: float
    topology: str
    num_links: int
    in_network: bool


@dataclass(frozen=True, slots=True)
class _Problem:
    collective: Collective
    size: int
    ranks: int
    local: int
    up: _Ends
    out: _Ends
    domain_size: int | None = None

    @property
    def domains(self) -> int:
        return ceil(self.ranks / self.local)


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to do it: delay [s] and effective bytes of one rank on each link."""

    name: str
    delay: float
    up: float
    out: float

    def seconds(self, problem: _Problem) -> float:
        return self.delay + max(self.up / problem.up.bandwidth, self.out / problem.out.bandwidth)


def collective_demand(
    collective: Collective, message_bytes: int, group: RankGroup, calibration: Calibration
) -> Demand:
    """What a collective demands of each member.

    Among ring, tree and in-network reduction, each in the protocols of the library (low latency,
    128 bytes, bulk), the quickest on idle links is taken.

    Args:
        collective: Which collective.
        message_bytes: Full buffer, as nccl-tests prints it [B].
        group: Who takes part.
        calibration: Constants that all hardware shares.

    Returns:
        Delay, effective ``scale_up``, ``scale_out`` and ``memory_bandwidth`` [B] of one member, and the
        compute units that it holds; nothing for a single rank or an empty message.

    Raises:
        ValueError: A negative message, or a collective of another name.
    """
    if message_bytes < 0:
        raise ValueError(f"a message of {message_bytes} B is negative")
    if collective not in get_args(Collective):
        raise ValueError(f'"{collective}" is not one of {", ".join(get_args(Collective))}')
    if group.num_ranks == 1 or message_bytes == 0:
        return Demand(delay=0.0)
    problem = _Problem(
        collective,
        message_bytes,
        group.num_ranks,
        group.ranks_per_domain,
        _ends(group.scale_up),
        _ends(group.scale_out),
        group.domain_size,
    )
    constants = calibration.collectives
    best = _quickest(problem, constants)
    traffic = _volume(collective, group.num_ranks) * message_bytes
    amounts = {"memory_bandwidth": 2.0 * traffic / calibration.kernels.memory_fraction}
    if best.up:
        amounts["scale_up"] = best.up
    if best.out:
        amounts["scale_out"] = best.out
    units = min(constants.channels, max(1.0, message_bytes / BYTES_PER_CHANNEL))
    return Demand(delay=best.delay, amounts=amounts, compute_units=round(units), detail=best.name)


def send_demand(
    message_bytes: int, same_domain: bool, scale_up: LinkSpec, scale_out: LinkSpec, calibration: Calibration
) -> Demand:
    """What a point-to-point send demands of the sender's link (and the same of the receiver's).

    Args:
        message_bytes: Bytes sent [B].
        same_domain: Whether both ends are in one scale-up domain.
        scale_up: Interconnect inside the domain, per accelerator.
        scale_out: Network between domains, per accelerator.
        calibration: Constants that all hardware shares.

    Returns:
        Delay, effective bytes on ``scale_up`` or ``scale_out`` and on ``memory_bandwidth`` [B].

    Raises:
        ValueError: A negative message.
    """
    if message_bytes < 0:
        raise ValueError(f"a message of {message_bytes} B is negative")
    if message_bytes == 0:
        return Demand(delay=0.0)
    up, out = _ends(scale_up), _ends(scale_out)
    best = _quickest(
        _Problem("send", message_bytes, 2, 2 if same_domain else 1, up, out), calibration.collectives
    )
    amounts = {"memory_bandwidth": message_bytes / calibration.kernels.memory_fraction}
    amounts["scale_up" if same_domain else "scale_out"] = best.up if same_domain else best.out
    return Demand(delay=best.delay, amounts=amounts, compute_units=1, detail=best.name)


def link_rates(group: RankGroup) -> dict[str, float]:
    """Rates of one member's links and memory, as the data sheets give them [B/s]."""
    return {
        "scale_up": group.scale_up.bandwidth,
        "scale_out": group.scale_out.bandwidth,
        "memory_bandwidth": group.accelerator.memory_bandwidth,
    }


def _ends(link: LinkSpec) -> _Ends:
    return _Ends(link.bandwidth, link.latency, link.topology, link.num_links or 0, link.in_network_reduction)


@lru_cache(maxsize=65536)
def _quickest(problem: _Problem, constants: CollectiveConstants) -> _Option:
    options = [option for way in _WAYS for option in way(problem, constants)]
    return min(options, key=lambda option: option.seconds(problem))


def _volume(collective: Collective, ranks: int) -> float:
    """Bytes that each rank sends, relative to the full buffer."""
    share = (ranks - 1) / ranks
    return {"all_reduce": 2.0 * share, "broadcast": 1.0, "send": 1.0}.get(collective, share)


def _rounds(problem: _Problem) -> tuple[float, int]:
    """Hops of a ring in sequence, inside domains and between them; on a torus one ring a dimension."""
    twice = 2 if problem.collective == "all_reduce" else 1
    between = problem.domains - 1
    inside: float = problem.ranks - 1 - between
    if problem.up.topology == "torus" and problem.local > 1:
        dimensions = _dimensions(problem)
        inside = min(inside, dimensions * (problem.local ** (1.0 / dimensions) - 1.0))
    return twice * inside, twice * between


def _dimensions(problem: _Problem) -> float:
    """Dimensions of a torus that a group of its members spans: all of them, unless it is too small."""
    most = max(1.0, problem.up.num_links / 2.0)
    return min(most, max(1.0, log2(problem.local)))


def _detour(problem: _Problem) -> float:
    """Links that a byte passes on its way to a random member; 1 but on a torus (a quarter of each side)."""
    if problem.up.topology != "torus" or problem.local < 2:
        return 1.0
    dimensions = _dimensions(problem)
    side = float(problem.local ** (1.0 / dimensions))
    return max(1.0, dimensions * side / 4.0)


def _fraction(problem: _Problem, constants: CollectiveConstants) -> float:
    """Share of a scale-up link's bandwidth that is reached, with or without a switch between two ends."""
    without_switch = problem.up.topology in ("mesh", "torus")
    return constants.direct_link_fraction if without_switch else constants.scale_up_fraction


CUBE_MESH_LINKS = (0, 1, 2, 4, 2, 2, 4, 6)
"""Links of the least connected of the first 1 to 8 members of a hybrid cube mesh (6 links, 8 accelerators),
rounded down to whole rings. Source: adjacency of NVIDIA DGX-1 with V100, WP-08437."""


def _usable(problem: _Problem) -> float:
    """Share of a scale-up link's bandwidth that this group can use, by topology."""
    links, members = problem.up.num_links, problem.local
    if members < 2:
        return 1.0
    if problem.up.topology == "mesh" and links:
        domain = max(problem.domain_size or links + 1, members)
        if (domain, links) == (8, 6):
            return CUBE_MESH_LINKS[members - 1] / links
        return (members - 1) / (domain - 1)
    if problem.up.topology == "torus" and links > 2:
        return _dimensions(problem) / (links / 2.0)
    return 1.0


def _protocols(peers: int, constants: CollectiveConstants) -> Iterator[tuple[str, float, float, float]]:
    """Name, share of the bulk protocol's bandwidth, start-up, and time of a hop between domains."""
    c = constants
    if peers:
        yield "low latency", c.ll_fraction * min(1.0, peers / c.channels), 0.0, c.scale_out_hop
        yield "bulk", 1.0, c.ll128_latency, c.scale_out_hop
        return
    yield "low latency", c.ll_fraction, 0.0, c.scale_out_hop
    yield "128 bytes", c.ll128_fraction, c.ll128_latency, c.scale_out_hop
    yield "bulk", 1.0, c.bulk_latency, c.scale_out_hop_bulk


def _options(
    problem: _Problem,
    constants: CollectiveConstants,
    name: str,
    hops: tuple[float, float],
    sent: tuple[float, float],
) -> Iterator[_Option]:
    """The algorithm in each protocol; `hops` and bytes `sent` inside domains and between them."""
    peers = problem.ranks - 1 if name == "direct" else 0
    for protocol, share, start, hop in _protocols(peers, constants):
        delay = (
            constants.collective_latency
            + (constants.scale_out_latency if hops[1] and not peers else 0.0)
            + start
            + hops[0] * problem.up.latency
            + hops[1] * (hop + problem.out.latency)
        )
        up = sent[0] / (_fraction(problem, constants) * share * _usable(problem))
        yield _Option(f"{name}, {protocol}", delay, up, sent[1] / (constants.scale_out_fraction * share))


def _ring(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """A ring through all ranks that leaves each domain over all members' adapters at once."""
    if problem.collective in ("all_to_all", "send"):
        return
    sent = _volume(problem.collective, problem.ranks) * problem.size
    up = sent + constants.local_copy * problem.size / problem.ranks if problem.local > 1 else 0.0
    out = sent / problem.local if problem.domains > 1 else 0.0
    yield from _options(problem, constants, "ring", _rounds(problem), (up, out))


def _direct(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """Sends between every pair, or between one."""
    if problem.collective == "send":
        size = float(problem.size)
        inside = problem.local > 1
        yield from _options(
            problem, constants, "direct", (inside, not inside), (size * inside, size * (not inside))
        )
    if problem.collective == "all_to_all":
        share = problem.size / problem.ranks
        detoured = (problem.local - 1) * _detour(problem)
        up = (detoured + constants.local_copy) * share if problem.local > 1 else 0.0
        out = (problem.ranks - problem.local) * share
        yield from _options(problem, constants, "direct", (problem.local > 1, problem.domains > 1), (up, out))


def _tree_volume(problem: _Problem) -> float:
    """Bytes that a domain sends in a double binary tree, relative to the buffer; three ends at most."""
    return min(2.0, problem.domains / 2.0)


def _tree(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """A double binary tree over domains with chains inside them."""
    if problem.collective != "all_reduce" or problem.domains < 2:
        return
    up = 2.0 * problem.size if problem.local > 1 else 0.0
    out = _tree_volume(problem) * problem.size / problem.local
    hops = (2.0 * (problem.local - 1), 2.0 * ceil(log2(problem.domains)))
    yield from _options(problem, constants, "tree", hops, (up, out))


def _in_network(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """Reduction and multicast inside the switches; between domains the switches' too, or a tree."""
    if problem.collective != "all_reduce":
        return
    c, local, domains = constants, problem.local, problem.domains
    inside, between = local > 1 and problem.up.in_network, domains > 1 and problem.out.in_network
    if not (inside or (local == 1 and between)):
        return
    up = problem.size * (1.0 + 1.0 / local) / c.in_network_fraction if inside else 0.0
    out = hops = 0.0
    if between:
        out, hops = problem.size / local / (c.scale_out_fraction * c.in_network_fraction), 2.0
    elif domains > 1:
        out, hops = (
            _tree_volume(problem) * problem.size / local / c.scale_out_fraction,
            2.0 * ceil(log2(domains)),
        )
    delay = (
        c.collective_latency
        + c.in_network_latency
        + (c.scale_out_latency if domains > 1 else 0.0)
        + 2.0 * problem.up.latency * inside
        + hops * (c.scale_out_hop_bulk + problem.out.latency)
    )
    yield _Option("in-network", delay, up, out)


_WAYS = (_ring, _direct, _tree, _in_network)
