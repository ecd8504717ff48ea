"""Routed experts in place of the MLP: router, dispatch, the experts of one GPU, combination, shared experts.

Tokens are sent to the GPUs that hold their experts and back again by all-to-all. Where experts are split over
the tensor-parallel GPUs, those exchange what arrived.

A framework that deduplicates sends a token to each node once, however many of its experts are there.

Source: Lepikhin et al., GShard, arXiv:2006.16668; Fedus et al., Switch Transformer, arXiv:2101.03961
(capacity factor); DeepSeek-V3, arXiv:2412.19437 (shared experts, node-limited routing, dispatch by node).
"""

from __future__ import annotations

from simulator.specs.model import MixtureSpec, TransformerSpec
from simulator.workload import chains, lora, operators, router
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Collective, Communication, Kernel
from simulator.workload.matrices import add_input_gradient, add_product, count_part
from simulator.workload.precision import FORMATS
from simulator.workload.routing import Routing
from simulator.workload.weights import add_weight, kept_weight

_READERS = ("router", "shared.up")
"""Matrices that read the normed residual stream itself; the experts have copies of it in their order."""


def add_forward(into: PassBuilder, model: TransformerSpec, mixture: MixtureSpec, shard: Shard) -> None:
    """Norm, router, dispatch, shared experts beside it, experts, combination, residual."""
    r, first = Routing(model, mixture, shard), len(into.nodes)
    width, element, residual = r.width, shard.element_bytes, shard.residual_tokens
    normed, kept = residual * width, lora.reads_input(shard, *_READERS)
    with into.of("layernorm:mlp"):
        norm = chains.norm("mlp.norm", normed, model, shard)
        own = normed * chains.kept_by_norm(model, shard, "mlp.norm")
        into.add(norm, kept=own + kept * normed * element, kept_input=own)
    with into.of("moe"):
        summed, shared = _add_experts(into, r)
    into.add(
        chains.residual("mlp.residual", normed, model.mlp_bias, shard),
        after=(summed, *shared),
        kept=normed * shard.dropout,
    )
    count_part(into, "experts.", r.needed, r.worked, first=first)


def _add_experts(into: PassBuilder, r: Routing) -> tuple[int, tuple[int, ...]]:
    """All between norm and residual. Returns what ends routed and shared experts."""
    shard, mixture, width = r.shard, r.mixture, r.width
    residual = shard.residual_tokens
    made = add_weight(into, "router", mixture.num_experts * width, shard, matrix=False)
    into.add(
        operators.matmul("router", residual, mixture.num_experts, width, shard.precision),
        after=made or None,
        kept=4 * residual * mixture.num_experts,
    )
    lora.add_forward(into, "router", residual, mixture.num_experts, width, shard)
    router.add_choice(into, mixture.num_experts, shard)
    way = r.dispatched
    into.add(r.cast("experts.dispatch", residual * width, way))
    into.add(r.copied("experts.permute", way))
    placed = len(into.nodes) - 1
    sent = into.add(r.exchange("experts.dispatch", way))
    with into.of("shared_experts"):
        shared = _add_shared(into, r, placed)
    sent = into.add(r.inside("experts.dispatch", "all_gather"), after=(sent,)) if _splits(r) else sent
    sent = into.add(r.moved("experts.sort", way), after=(sent,)) if r.sorts else sent
    sent = into.add(r.padded("experts.pad"), after=(sent,)) if r.pads else sent
    operand = r.arrived("experts.up")
    sent = sent if operand is None else into.add(operand, after=(sent,))
    taken = chains.kept_operand(shard, "experts.up", r.worked * width)
    up = add_product(
        into,
        "experts.up",
        r.per_expert,
        r.up,
        width,
        shard,
        batch=r.experts,
        kept=chains.kept_of_input(r.worked * r.up, shard) + taken,
        ready=r.arrives_cast,
        after=(sent,),
    )
    chains.add_store(into, "experts.activation", r.worked * r.up, shard)
    with into.of("moe_activation"):
        into.add(
            chains.activation(r.model, r.worked * r.inner, shard),
            after=(up,),
            kept=chains.kept_operand(shard, "experts.down", r.worked * r.inner),
        )
    batch, made_by = r.experts, "moe_activation"
    add_product(into, "experts.down", r.per_expert, width, r.inner, shard, batch=batch, made_by=made_by)
    if r.pads:
        into.add(r.padded("experts.unpad"))
    if r.sorts:
        into.add(r.moved("experts.unsort", shard.precision))
    into.add(r.inside("experts.combine", "reduce_scatter"))
    into.add(r.cast("experts.combine", r.exchanged * width, r.combined))
    into.add(r.exchange("experts.combine", r.combined))
    return into.add(_weighted("experts.unpermute", r)), shared


def _splits(r: Routing) -> bool:
    return r.shard.expert_tensor_parallel > 1


def _weighted(name: str, r: Routing) -> Kernel:
    """The experts' outputs, weighted and summed for each token."""
    element, visited = r.shard.element_bytes, r.mixture.num_experts_per_tok
    came = FORMATS[r.combined].number_bytes
    return operators.pointwise(
        name,
        "elementwise",
        r.shard.residual_tokens * r.width,
        reads=visited * came,
        writes=element,
        flops=2 * visited,
    )


def _tensor(r: Routing, name: str, collective: Collective) -> Communication | None:
    if r.shard.tensor_parallel == 1:
        return None
    size = r.shard.tokens * r.width * r.shard.element_bytes
    return Communication(f"{name}.{collective}", collective, "tensor", size)


def _add_shared(into: PassBuilder, r: Routing, before: int) -> tuple[int, ...]:
    """Experts that every token visits; they run while tokens travel. Returns what waits for them."""
    if not r.mixture.num_shared_experts:
        return ()
    shard = r.shard
    begin: tuple[int, ...] = (before,)
    if shard.sequence_parallel:
        begin = (into.add(_tensor(r, "shared", "all_gather"), after=begin),)
    tokens = shard.tokens
    up = add_product(
        into,
        "shared.up",
        tokens,
        r.shared_up,
        r.width,
        shard,
        kept=chains.kept_of_input(tokens * r.shared_up, shard),
        after=begin,
    )
    chains.add_store(into, "shared.activation", tokens * r.shared_up, shard)
    into.add(
        chains.activation(r.model, tokens * r.shared_inner, shard),
        after=(up,),
        kept=chains.kept_operand(shard, "shared.down", tokens * r.shared_inner),
    )
    add_product(into, "shared.down", tokens, r.width, r.shared_inner, shard)
    return (into.add(_tensor(r, "shared", "reduce_scatter" if shard.sequence_parallel else "all_reduce")),)


def add_backward(into: PassBuilder, model: TransformerSpec, mixture: MixtureSpec, shard: Shard) -> None:
    """The same backwards: gradients travel to the experts and back."""
    r, first = Routing(model, mixture, shard), len(into.nodes)
    width, element, residual = r.width, shard.element_bytes, shard.residual_tokens
    normed = residual * width
    into.needs("layernorm:mlp", "moe")
    way = r.dispatched
    into.add(r.cast("experts.combine.gradient", normed, way))
    placed = into.add(r.copied("experts.unpermute.gradient", way, backward=True))
    sent = into.add(r.exchange("experts.combine.gradient", way))
    shared = _add_shared_gradient(into, r, placed)
    if _splits(r):
        sent = into.add(r.inside("experts.combine.gradient", "all_gather"), after=(sent,))
    if r.sorts:
        sent = into.add(r.moved("experts.unsort.gradient", way, backward=True), after=(sent,))
    sent = into.add(r.padded("experts.unpad.gradient"), after=(sent,)) if r.pads else sent
    operand = r.arrived("experts.down.gradient", gradient=True)
    sent = sent if operand is None else into.add(operand, after=(sent,))
    restored = chains.add_restore(into, "experts.activation", r.worked * r.up, shard, after=(sent,))
    into.needs("moe_activation")
    add_input_gradient(
        into,
        "experts.down",
        r.per_expert,
        r.inner,
        width,
        shard,
        batch=r.experts,
        ready=r.arrives_cast,
        after=(sent,),
    )
    freed = chains.kept_operand(shard, "experts.down", r.worked * r.inner)
    _expert_weights(into, r, "experts.down", width, r.inner, freed=freed)
    into.add(
        chains.activation_gradient(model, r.worked * r.inner, shard, "experts.up"),
        after=(len(into.nodes) - 1, *restored),
        freed=chains.stored_input(r.worked * r.up, shard),
    )
    data = add_input_gradient(into, "experts.up", r.per_expert, width, r.up, shard, batch=r.experts)
    back = into.add(r.padded("experts.pad.gradient"), after=(data,)) if r.pads else data
    if r.sorts:
        back = into.add(r.moved("experts.sort.gradient", shard.precision, backward=True), after=(back,))
    if _splits(r):
        back = into.add(r.inside("experts.dispatch.gradient", "reduce_scatter"), after=(back,))
    returned = r.cast("experts.dispatch.gradient", r.exchanged * width, r.combined)
    back = back if returned is None else into.add(returned, after=(back,))
    if shard.expert_parallel > 1:
        back = into.add(r.exchange("experts.dispatch.gradient", r.combined), after=(back,))
    taken = chains.kept_operand(shard, "experts.up", r.worked * width)
    _expert_weights(into, r, "experts.up", r.up, width, freed=taken, after=(data,))
    into.add(_weighted("experts.permute.gradient", r), after=(back,))
    router.add_choice_gradient(into, mixture.num_experts, shard)
    experts = mixture.num_experts
    add_weight(into, "router", experts * width, shard, backward=True, matrix=False)
    into.add(
        operators.matmul("router.input_gradient", residual, width, experts, shard.precision),
        freed=kept_weight(experts * width, shard, matrix=False),
    )
    chains.add_weight_gradient(
        into,
        "router.weight_gradient",
        residual,
        experts,
        width,
        shard,
        freed=4 * residual * experts,
        precision=shard.precision,
    )
    into.add(
        chains.norm_gradient("mlp.norm.gradient", normed, model, shard),
        after=(len(into.nodes) - 1, *shared),
        freed=normed * chains.kept_by_norm(model, shard, "mlp.norm")
        + lora.reads_input(shard, *_READERS) * normed * element,
    )
    biased = model.mlp_bias and shard.trains("experts.down")
    into.add(
        chains.residual_gradient("mlp.residual.gradient", normed, biased, shard),
        freed=normed * shard.dropout,
    )
    count_part(into, "experts.", r.needed, r.worked, first=first)


def _add_shared_gradient(into: PassBuilder, r: Routing, before: int) -> tuple[int, ...]:
    if not r.mixture.num_shared_experts:
        return ()
    shard, tokens = r.shard, r.shard.tokens
    into.needs("shared_experts")
    begin: tuple[int, ...] = (before,)
    if shard.sequence_parallel:
        begin = (into.add(_tensor(r, "shared.gradient", "all_gather"), after=begin),)
    inner = chains.kept_operand(shard, "shared.down", tokens * r.shared_inner)
    data = add_input_gradient(into, "shared.down", tokens, r.shared_inner, r.width, shard, after=begin)
    chains.add_weight_gradient(
        into,
        "shared.down.weight_gradient",
        tokens,
        r.width,
        r.shared_inner,
        shard,
        after=(data,),
        freed=inner,
    )
    before = len(into.nodes) - 1
    restored = chains.add_restore(into, "shared.activation", tokens * r.shared_up, shard)
    into.add(
        chains.activation_gradient(r.model, tokens * r.shared_inner, shard, "shared.up"),
        after=(before, *restored),
        freed=chains.stored_input(tokens * r.shared_up, shard),
    )
    data = add_input_gradient(into, "shared.up", tokens, r.width, r.shared_up, shard)
    chains.add_weight_gradient(
        into,
        "shared.up.weight_gradient",
        tokens,
        r.shared_up,
        r.width,
        shard,
        after=(data,),
        kept_tokens=shard.residual_tokens,
    )
    reduced: Collective = "reduce_scatter" if shard.sequence_parallel else "all_reduce"
    if shard.tensor_parallel == 1:
        return (data,)
    return (into.add(_tensor(r, "shared.gradient", reduced), after=(data,)),)


def _expert_weights(
    into: PassBuilder,
    r: Routing,
    name: str,
    columns: int,
    rows: int,
    *,
    freed: int,
    after: tuple[int, ...] | None = None,
) -> None:
    chains.add_weight_gradient(
        into,
        f"{name}.weight_gradient",
        r.per_expert,
        columns,
        rows,
        r.shard,
        batch=r.experts,
        after=after,
        freed=freed,
    )


def shapes(model: TransformerSpec, mixture: MixtureSpec, shard: Shard) -> dict[str, tuple[int, int, int]]:
    """Number, rows and columns of one GPU's matrices, by name."""
    r = Routing(model, mixture, shard)
    found = {
        "router": (1, r.width, mixture.num_experts),
        "experts.up": (r.experts, r.width, r.up),
        "experts.down": (r.experts, r.inner, r.width),
    }
    if mixture.num_shared_experts:
        found |= {"shared.up": (1, r.width, r.shared_up), "shared.down": (1, r.shared_inner, r.width)}
    return found
