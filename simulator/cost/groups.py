"""Who takes part in a collective, and how much of its links a group can use, by topology."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2

from simulator.cost.remembered import by_identity
from simulator.specs import AcceleratorSpec, LinkSpec

Pairs = tuple[tuple[int, ...], ...]


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
        places: Places of the members inside their domain, for meshes with unequal pairs; the first ones if
            not given.
        pcie_bandwidth: Bandwidth between host and one accelerator, per direction [B/s]; what is staged in
            the host's memory crosses it. None leaves that crossing out.
        early_library: Whether the communication library is one of 2020 to 2022.
    """

    num_ranks: int
    ranks_per_domain: int
    accelerator: AcceleratorSpec
    scale_up: LinkSpec
    scale_out: LinkSpec
    domain_size: int | None = None
    places: tuple[int, ...] = ()
    pcie_bandwidth: float | None = None
    early_library: bool = False

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
class Ends:
    """A link's figures, and only those that the model reads, so that results can be kept by value."""

    bandwidth: float
    latency: float
    topology: str
    num_links: int
    in_network: bool
    transport: str = "direct"
    shared_by: int = 1
    pairs: Pairs = ()


@by_identity
def ends(link: LinkSpec) -> Ends:
    """What the model reads of a link's data sheet."""
    return Ends(
        link.bandwidth,
        link.latency,
        link.topology,
        link.num_links or 0,
        link.in_network_reduction,
        link.transport,
        link.shared_by,
        link.pair_links or (),
    )


@dataclass(frozen=True, slots=True)
class Members:
    """Members of one domain on its scale-up interconnect.

    Attributes:
        count: How many.
        up: The interconnect.
        domain_size: Accelerators that it joins, members or not.
        places: Places of the members, for meshes with unequal pairs.
    """

    count: int
    up: Ends
    domain_size: int | None = None
    places: tuple[int, ...] = ()

    @property
    def dimensions(self) -> float:
        """Dimensions of a torus that they span: all of them, unless they are too few."""
        most = max(1.0, self.up.num_links / 2.0)
        return min(most, max(1.0, log2(self.count)))

    @property
    def ring_share(self) -> float:
        """Share of an accelerator's scale-up bandwidth that rings through all members can use."""
        if self.count < 2 or self.up.topology not in ("mesh", "torus"):
            return 1.0
        if self.up.topology == "torus":
            return self.dimensions / (self.up.num_links / 2.0) if self.up.num_links > 2 else 1.0
        if self.up.pairs:
            return ring_links(self._pairs()) / self.up.num_links
        return (self.count - 1) / (self._domain() - 1)

    @property
    def exchange_share(self) -> float:
        """Share of it that an exchange among all pairs can use: that of the pair with the fewest links."""
        if self.count < 2 or self.up.topology != "mesh" or not self.up.pairs:
            return self.ring_share
        return (self.count - 1) * least_links(self._pairs()) / self.up.num_links

    @property
    def detour(self) -> float:
        """Links that a byte passes to a random member: on a torus a quarter of each side, else 1."""
        if self.up.topology != "torus" or self.count < 2:
            return 1.0
        side = float(self.count ** (1.0 / self.dimensions))
        return max(1.0, self.dimensions * side / 4.0)

    @property
    def hops(self) -> float:
        """Hops of a ring in sequence; on a torus one ring a dimension."""
        if self.up.topology != "torus" or self.count < 2:
            return self.count - 1.0
        side = float(self.count ** (1.0 / self.dimensions))
        return min(self.count - 1.0, self.dimensions * (side - 1.0))

    def _domain(self) -> int:
        return max(self.domain_size or (self.up.num_links or self.count - 1) + 1, self.count)

    def _pairs(self) -> Pairs:
        places = self.places or tuple(range(self.count))
        if max(places) >= len(self.up.pairs):
            raise ValueError(
                f"a member at place {max(places)} of a mesh of {len(self.up.pairs)} accelerators"
            )
        return tuple(tuple(self.up.pairs[a][b] for b in places) for a in places)


@lru_cache(maxsize=1024)
def ring_links(pairs: Pairs) -> int:
    """Links of each member that directed rings through all members can use at once.

    A ring enters a member from one neighbour and leaves it to another; every link carries one ring a
    direction. With c links to the neighbour that has most and r to all others, a member takes part in
    ``min(c + r, 2 r)`` rings, and the least connected member decides. A member with a single neighbour is
    reached and left through it, one without through a third on one link.

    Args:
        pairs: Links between each two members.

    Source: degree bound on packing Hamiltonian cycles; equal to what rings of NCCL reach on DGX-1.
    """
    if len(pairs) == 2:
        return max(1, pairs[0][1])
    rings = []
    for row in pairs:
        total, widest = sum(row), max(row)
        others = total - widest
        rings.append(total if others in (0, total) or widest <= others else 2 * others)
    return max(1, min(rings))


def least_links(pairs: Pairs) -> float:
    """Links of the pair with the fewest; one without any goes over a third, which halves what a link gives.

    Args:
        pairs: Links between each two members.
    """
    least = min(pairs[a][b] for a in range(len(pairs)) for b in range(a))
    return float(least) if least else 0.5
