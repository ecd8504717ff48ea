"""What a collective demands of one rank's links, chosen among algorithms and protocols as libraries do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, inf, log2
from typing import get_args

from simulator.cost.demand import Demand
from simulator.cost.device import REFERENCE_CLOCK, highest_clock
from simulator.cost.groups import Ends, Members, RankGroup, ends
from simulator.cost.routing import parts_visited
from simulator.specs import AcceleratorSpec, LinkSpec
from simulator.specs.calibration import Calibration, CollectiveConstants
from simulator.workload.kernels import Collective, Routed

BYTES_PER_CHANNEL = 2**19
"""Message that one channel (compute unit) is started for: NCCL's buffer of one step, 512 KiB [B]."""


DISPATCH_UNITS = 20.0
"""Compute units that kernels hold which send tokens to experts node by node.

Source: DeepSeek-V3, arXiv:2412.19437, section 3.2.2; ``Buffer.num_sms`` of deepseek-ai/DeepEP.
"""


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is done by whom, whatever their memory; start-ups take `slowness` times those of the reference."""

    collective: Collective
    size: int
    ranks: int
    local: int
    up: Ends
    out: Ends
    slowness: float
    domain_size: int | None = None
    places: tuple[int, ...] = ()
    early: bool = False
    pcie: float = inf
    routed: Routed | None = None

    @property
    def domains(self) -> int:
        return ceil(self.ranks / self.local)

    @property
    def members(self) -> Members:
        """Those inside one domain."""
        return Members(self.local, self.up, self.domain_size, self.places)


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to do it: effective bytes of one rank on each link, and the delay [s].

    It is what is known `before` the rank's copies in memory, these, if it `copies`, and what comes `after`.
    """

    name: str
    before: float
    up: float
    out: float
    staged: float = 0.0
    copies: bool = False
    after: float = 0.0

    def delay(self, copying: float) -> float:
        return self.before + (copying if self.copies else 0.0) + self.after

    def seconds(self, problem: _Problem, copying: float) -> float:
        links = max(self.up / problem.up.bandwidth, self.out / problem.out.bandwidth)
        return self.delay(copying) + max(links, self.staged / problem.pcie)


def collective_demand(
    collective: Collective,
    message_bytes: int,
    group: RankGroup,
    calibration: Calibration,
    *,
    routed: Routed | None = None,
) -> Demand:
    """What a collective demands of each member.

    Among ring, tree and in-network reduction, each in the protocols of the library (low latency,
    128 bytes, bulk), the quickest on idle links is taken.

    Args:
        collective: Which collective.
        message_bytes: Full buffer, as nccl-tests prints it [B].
        group: Who takes part.
        calibration: Constants that all hardware shares.
        routed: How tokens are routed whose copies travel together in this all-to-all.

    Returns:
        Delay, effective ``scale_up``, ``scale_out``, ``pcie`` (what is staged in the host's memory) and
        ``memory_bandwidth`` [B] of one member, and the compute units that it holds; nothing for a single rank
        or an empty message.

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
        ends(group.scale_up),
        ends(group.scale_out),
        _slowness(group.accelerator),
        group.domain_size,
        group.places,
        group.early_library,
        inf if group.scale_out.transport == "direct" else group.pcie_bandwidth or inf,
        routed,
    )
    constants = calibration.collectives
    reached = group.accelerator.memory_bandwidth * calibration.kernels.memory_fraction
    copying = constants.local_passes * message_bytes / group.num_ranks / reached
    best = _quickest(problem, constants, copying)
    traffic = _volume(collective, group.num_ranks) * message_bytes
    if routed is not None:
        traffic *= parts_visited(routed, group.num_ranks) / routed.num_experts_per_tok
    amounts = {"memory_bandwidth": 2.0 * traffic / calibration.kernels.memory_fraction}
    if best.up:
        amounts["scale_up"] = best.up
    if best.out:
        amounts["scale_out"] = best.out
        if group.scale_out.transport != "direct":
            amounts["pcie"] = best.staged
    most = constants.channels if routed is None else DISPATCH_UNITS
    units = min(most, max(1.0, message_bytes / BYTES_PER_CHANNEL))
    return Demand(best.delay(copying), amounts, round(units), best.name)


def send_demand(
    message_bytes: int,
    same_domain: bool,
    scale_up: LinkSpec,
    scale_out: LinkSpec,
    calibration: Calibration,
    *,
    accelerator: AcceleratorSpec | None = None,
) -> Demand:
    """What a point-to-point send demands of the sender's link (and the same of the receiver's).

    Args:
        message_bytes: Bytes sent [B].
        same_domain: Whether both ends are in one scale-up domain.
        scale_up: Interconnect inside the domain, per accelerator.
        scale_out: Network between domains, per accelerator.
        calibration: Constants that all hardware shares.
        accelerator: Sender and receiver, whose clock start-ups go with; the reference's if not given.

    Returns:
        Delay, effective bytes on ``scale_up`` or ``scale_out`` (and ``pcie`` where they are staged in the
        host's memory) and on ``memory_bandwidth`` [B].

    Raises:
        ValueError: A negative message.
    """
    if message_bytes < 0:
        raise ValueError(f"a message of {message_bytes} B is negative")
    if message_bytes == 0:
        return Demand(delay=0.0)
    slowness = 1.0 if accelerator is None else _slowness(accelerator)
    local = 2 if same_domain else 1
    problem = _Problem("send", message_bytes, 2, local, ends(scale_up), ends(scale_out), slowness)
    best = _quickest(problem, calibration.collectives, 0.0)
    amounts = {"memory_bandwidth": message_bytes / calibration.kernels.memory_fraction}
    amounts["scale_up" if same_domain else "scale_out"] = best.up if same_domain else best.out
    if not same_domain and scale_out.transport != "direct":
        amounts["pcie"] = best.staged
    return Demand(best.delay(0.0), amounts, 1, best.name)


def link_rates(group: RankGroup) -> dict[str, float]:
    """Rates of one member's links and memory, as the data sheets give them [B/s]."""
    return {
        "scale_up": group.scale_up.bandwidth,
        "scale_out": group.scale_out.bandwidth,
        "memory_bandwidth": group.accelerator.memory_bandwidth,
        "pcie": group.pcie_bandwidth or inf,
    }


def _slowness(accelerator: AcceleratorSpec) -> float:
    return REFERENCE_CLOCK / highest_clock(accelerator)


def _quickest(problem: _Problem, constants: CollectiveConstants, copying: float) -> _Option:
    """The quickest option where a rank copies or reduces its own share in its memory for `copying` [s]."""
    return min(_all_options(problem, constants), key=lambda option: option.seconds(problem, copying))


@lru_cache(maxsize=65536)
def _all_options(problem: _Problem, constants: CollectiveConstants) -> tuple[_Option, ...]:
    return tuple(option for way in _WAYS for option in way(problem, constants))


def _volume(collective: Collective, ranks: int) -> float:
    """Bytes that each rank sends, relative to the full buffer."""
    share = (ranks - 1) / ranks
    return {"all_reduce": 2.0 * share, "broadcast": 1.0, "send": 1.0}.get(collective, share)


def _rounds(problem: _Problem) -> tuple[float, int]:
    """Hops of a ring in sequence, inside domains and between them; on a torus one ring a dimension.

    What an all-reduce passes on twice around crosses each way out twice, the first one included.
    """
    twice = 2 if problem.collective == "all_reduce" else 1
    between = problem.domains - 1
    if problem.collective == "all_reduce" and 1 < problem.domains < problem.ranks:
        return 2.0 * (problem.ranks - 1 - problem.domains), 2 * problem.domains
    inside = problem.members.hops if problem.domains == 1 else float(problem.ranks - 1 - between)
    return twice * inside, twice * between


def _fraction(problem: _Problem, constants: CollectiveConstants) -> float:
    """Share of a scale-up link's bandwidth that is reached, with or without a switch between two ends."""
    without_switch = problem.up.topology in ("mesh", "torus")
    return constants.direct_link_fraction if without_switch else constants.scale_up_fraction


def _network_bytes(sent: float, share: float, problem: _Problem, constants: CollectiveConstants) -> float:
    """Effective bytes on a network adapter, by a protocol's share of what adapters reach, or by software.

    A core that moves every byte sends and receives, for all accelerators that share the adapter.
    """
    effective = sent / (constants.scale_out_fraction * share)
    if problem.out.transport != "software":
        return effective
    moved = constants.host_protocol_rate / (2.0 * problem.out.shared_by)
    return max(effective, sent * problem.out.bandwidth / moved)


def _hop_between(problem: _Problem, constants: CollectiveConstants, software: float) -> float:
    """Time of a hop between domains: the flight, the library's part, and the host's memory on the way."""
    staged = 0.0 if problem.out.transport == "direct" else constants.staging_hop
    return problem.out.latency + software + staged


def _protocols(
    peers: int, problem: _Problem, constants: CollectiveConstants
) -> Iterator[tuple[str, float, float, float]]:
    """Name, share of the bulk protocol's bandwidth, start-up, and time of a hop between domains.

    The 128-byte protocol needs links that keep 128 bytes together, which PCIe does not.
    """
    c = constants
    if peers:
        yield "low latency", c.ll_fraction * min(1.0, peers / c.channels), 0.0, c.scale_out_hop
        yield "bulk", 1.0, c.ll128_latency, c.scale_out_hop
        return
    yield "low latency", c.ll_fraction, 0.0, c.scale_out_hop
    if problem.up.topology != "bus":
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
    copies = problem.collective != "send" and name != "tree"
    for protocol, share, start, hop in _protocols(peers, problem, constants):
        delay = (
            _start(problem, constants, start)
            + (constants.early_scale_out if problem.early and hops[1] and not peers else 0.0)
            + hops[0] * problem.up.latency
            + hops[1] * _hop_between(problem, constants, hop)
        )
        usable = problem.members.exchange_share if peers else problem.members.ring_share
        meet = 1.0 + constants.exchange_meetings * _meetings(peers)
        up = sent[0] * meet / (_fraction(problem, constants) * share * usable)
        out = _network_bytes(sent[1] * meet, share, problem, constants)
        yield _Option(f"{name}, {protocol}", delay, up, out, sent[1] / constants.pcie_fraction, copies)


def _meetings(peers: int) -> float:
    """Share of an exchange among all pairs that meets at its receiver what another member sends there."""
    return 1.0 - 1.0 / peers if peers else 0.0


def _start(problem: _Problem, constants: CollectiveConstants, protocol: float) -> float:
    """Launch, synchronisation and the protocol's own start-up, which go with the accelerator's clock [s]."""
    early = constants.early_launch if problem.early else 0.0
    return (constants.collective_latency + protocol) * problem.slowness + early


def _ring(problem: _Problem, constants: CollectiveConstants) -> Iterator[_Option]:
    """A ring through all ranks that leaves each domain over all members' adapters at once."""
    if problem.collective in ("all_to_all", "send"):
        return
    sent = _volume(problem.collective, problem.ranks) * problem.size
    up = sent if problem.local > 1 else 0.0
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
        up = (problem.local - 1) * problem.members.detour * share
        out = (problem.ranks - problem.local) * share
        peers = problem.ranks - problem.local
        if problem.routed is not None:
            up, out, peers = _routed(problem, problem.routed)
        hops = (float(problem.local > 1), float(problem.domains > 1))
        for option in _options(problem, constants, "direct", hops, (up, out)):
            yield replace(option, after=constants.network_post * peers)


def _routed(problem: _Problem, routed: Routed) -> tuple[float, float, int]:
    """Bytes of tokens on each link, and messages to other domains, where each of these gets a token once.

    A token crosses to the member of the same place in every domain that holds one of its experts, and from
    there to every member that does.
    """
    token_bytes = problem.size / routed.num_experts_per_tok
    domains, local = problem.domains, problem.local
    out = token_bytes * parts_visited(routed, domains) * (domains - 1) / domains
    up = token_bytes * parts_visited(routed, problem.ranks) * (local - 1) / local
    return up * problem.members.detour, out, domains - 1


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
    inside = local > 1 and problem.up.in_network and not problem.early
    between = domains > 1 and problem.out.in_network
    if not (inside or (local == 1 and between)):
        return
    up = problem.size * (1.0 + 1.0 / local) / c.in_network_fraction if inside else 0.0
    sent = problem.size / local if domains > 1 else 0.0
    if not between:
        sent *= _tree_volume(problem)
    out = _network_bytes(sent, c.in_network_fraction if between else 1.0, problem, constants)
    hops = 2.0 if between else 2.0 * ceil(log2(domains))
    delay = (
        _start(problem, constants, c.in_network_latency)
        + (c.early_scale_out if problem.early and domains > 1 else 0.0)
        + 2.0 * problem.up.latency * inside
        + hops * _hop_between(problem, constants, c.scale_out_hop_bulk)
    )
    yield _Option("in-network", delay, up, out, sent / c.pcie_fraction)


_WAYS = (_ring, _direct, _tree, _in_network)
