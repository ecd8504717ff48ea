"""What a collective demands of one rank's links, chosen among algorithms and protocols as libraries do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2

from simulator.cost.demand import Demand
from simulator.specs import AcceleratorSpec, LinkSpec
from simulator.specs.calibration import Calibration, CollectiveConstants
from simulator.workload.kernels import Collective


@dataclass(frozen=True, slots=True)
class RankGroup:
    """Who takes part in a collective.

    Attributes:
        num_ranks: Members p.
        ranks_per_domain: Members inside one scale-up domain; `num_ranks` if all are.
        accelerator: The members' accelerator.
        scale_up: Interconnect inside the domain, per accelerator.
        scale_out: Network between domains, per accelerator.
    """

    num_ranks: int
    ranks_per_domain: int
    accelerator: AcceleratorSpec
    scale_up: LinkSpec
    scale_out: LinkSpec

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
        ValueError: A negative message.
    """
    if message_bytes < 0:
        raise ValueError(f"a message of {message_bytes} B is negative")
    if group.num_ranks == 1 or message_bytes == 0:
        return Demand(delay=0.0)
    problem = _Problem(
        collective,
        message_bytes,
        group.num_ranks,
        group.ranks_per_domain,
        _ends(group.scale_up),
        _ends(group.scale_out),
    )
    constants = calibration.collectives
    best = _quickest(problem, constants)
    traffic = _volume(collective, group.num_ranks) * message_bytes
    amounts = {"memory_bandwidth": 2.0 * traffic}
    if best.up:
        amounts["scale_up"] = best.up
    if best.out:
        amounts["scale_out"] = best.out
    units = min(constants.channels, max(1.0, message_bytes / 2**19))
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
    amounts = {"memory_bandwidth": float(message_bytes)}
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
    options = [*_pipelined(problem, constants), *_tree(problem, constants), *_in_network(problem, constants)]
    return min(options, key=lambda option: option.seconds(problem))


def _volume(collective: Collective, ranks: int) -> float:
    """Bytes that each rank sends, relative to the full buffer."""
    share = (ranks - 1) / ranks
    return {"all_reduce": 2.0 * share, "broadcast": 1.0, "send": 1.0}.get(collective, share)


def _rounds(problem: _Problem) -> tuple[int, int]:
    """Hops in sequence, inside domains and between them."""
    if problem.collective == "send":
        return (1, 0) if problem.local > 1 else (0, 1)
    if problem.collective == "all_to_all":
        return (1 if problem.local > 1 else 0), (1 if problem.domains > 1 else 0)
    twice = 2 if problem.collective == "all_reduce" else 1
    between = problem.domains if problem.domains > 1 else 0
    return twice * (problem.ranks - 1 - max(between - 1, 0)), twice * max(between - 1, 0)


def _usable(problem: _Problem) -> float:
    """Share of a scale-up link's bandwidth that this group can use, by topology."""
    links, members = problem.up.num_links, problem.local
    if problem.up.topology == "mesh" and links:
        return min(1.0, (members - 1) / links)
    if problem.up.topology == "torus" and links > 2:
        dimensions = links / 2
        return min(dimensions, max(1.0, log2(members))) / dimensions
    return 1.0


def _protocols(constants: CollectiveConstants) -> Iterator[tuple[str, float, float, float]]:
    """Name, share of the bulk protocol's bandwidth, and hop latencies inside and between domains."""
    c = constants
    yield "low latency", c.ll_fraction, c.scale_up_hop_ll, c.scale_out_hop_ll
    yield "128 bytes", c.ll128_fraction, c.scale_up_hop_ll128, c.scale_out_hop_ll
    yield "bulk", 1.0, c.scale_up_hop_simple, c.scale_out_hop_simple


def _options(
    problem: _Problem,
    constants: CollectiveConstants,
    name: str,
    hops: tuple[float, float],
    volume: Callable[[], tuple[float, float]],
) -> Iterator[_Option]:
    up, out = volume()
    for protocol, share, hop_up, hop_out in _protocols(constants):
        delay = (
            constants.collective_latency
            + hops[0] * (hop_up + problem.up.latency)
            + hops[1] * (hop_out + problem.out.latency)
        )
        yield _Option(
            f"{name}, {protocol}",
            delay,
            up / (constants.scale_up_fraction * share * _usable(problem)),
            out / (constants.scale_out_fraction * share),
        )


def _pipelined(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """A ring through all ranks that leaves each domain over all members' adapters; or direct sends."""

    def volume() -> tuple[float, float]:
        sent = _volume(problem.collective, problem.ranks) * problem.size
        if problem.collective == "all_to_all":
            inside = (problem.local - 1) / problem.ranks * problem.size
            return inside, sent - inside
        up = sent if problem.local > 1 else 0.0
        return up, (sent / problem.local if problem.domains > 1 else 0.0)

    direct = problem.collective in ("all_to_all", "send")
    yield from _options(problem, constants, "direct" if direct else "ring", _rounds(problem), volume)


def _tree(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """A double binary tree over domains with chains inside them."""
    if problem.collective != "all_reduce" or problem.domains < 2:
        return

    def volume() -> tuple[float, float]:
        sent = 2.0 * problem.size
        return (sent if problem.local > 1 else 0.0), sent / problem.local

    hops = (2.0 * (problem.local - 1), 2.0 * ceil(log2(problem.domains)))
    yield from _options(problem, constants, "tree", hops, volume)


def _in_network(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """Reduction and multicast inside the switches: every rank sends and receives its buffer once."""
    if problem.collective != "all_reduce":
        return
    size, local, domains = problem.size, problem.local, problem.domains
    c = constants
    if local > 1 and not problem.up.in_network:
        return
    if domains > 1 and not problem.out.in_network and local == 1:
        return
    up = size * (1.0 + 1.0 / local) / c.in_network_fraction if local > 1 else 0.0
    out, hops = 0.0, 0.0
    if domains > 1:
        if problem.out.in_network:
            out, hops = size / local / c.in_network_fraction, 2.0
        else:
            out, hops = 2.0 * size / local / c.scale_out_fraction, 2.0 * ceil(log2(domains))
    delay = (
        c.collective_latency
        + c.in_network_latency
        + 2.0 * problem.up.latency * (local > 1)
        + hops * (c.scale_out_hop_simple + problem.out.latency)
    )
    yield _Option("in-network", delay, up, out)
