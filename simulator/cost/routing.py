"""How many domains a token visits when it is routed to several experts, as theory."""

from __future__ import annotations

from functools import lru_cache
from math import comb

from simulator.workload.kernels import Routed


@lru_cache(maxsize=4096)
def parts_visited(routed: Routed, parts: int) -> float:
    """Expected number of different parts among which a token's experts lie.

    Experts are spread evenly over `parts` in order; a token visits k different ones, all choices equally
    likely, from t = `topk_group` of the G = `n_group` groups. A part holds q = max(1, G / N) groups (or an
    N / G part of one) with e experts each, and is missed with the chance that none of the k lies in those of
    its groups that were chosen:

    ``N * (1 - sum_j H(j) * C(t E/G - j e, k) / C(t E/G, k))``, H the hypergeometric law of the chosen groups.

    Args:
        routed: How tokens are routed.
        parts: Domains, nodes or ranks N that share out the experts; 1 gives 1.

    Source: sampling without replacement; node-limited routing: DeepSeek-V3, arXiv:2412.19437, section 2.1.2.
    Valid: balanced routing; groups and parts divide one another.
    """
    experts, groups = routed.num_experts, routed.n_group
    chosen, visited = routed.topk_group, routed.num_experts_per_tok
    inside = max(1, groups // parts)
    each = min(experts // groups, experts // parts)
    pool = chosen * (experts // groups)
    missed = 0.0
    for hit in range(min(inside, chosen) + 1):
        weight = comb(inside, hit) * comb(groups - inside, chosen - hit) / comb(groups, chosen)
        missed += weight * comb(pool - hit * each, visited) / comb(pool, visited)
    return parts * (1.0 - missed)
