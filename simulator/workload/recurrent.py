"""Recurrent layers: products of all positions at once, and of the state step by step."""

from __future__ import annotations

from simulator.specs.layers import RecurrentLayer
from simulator.workload.kernels import Kernel, MatmulShape
from simulator.workload.parameters import recurrent_gates
from simulator.workload.sites import Site, add_backward, add_forward, plain_product
from simulator.workload.weights import add_weight


def recurrent(site: Site, layer: RecurrentLayer) -> None:
    """Layers one above the other, each in one direction or both.

    The input's part of all gates is one product over all positions, the state's part a product a step, with
    the gates' arithmetic behind it, which waits for the last; weights of the state stay in the cache. Kept
    are what each layer reads and gives, its gates and (LSTM) its cells. Backward the same, and gradients of
    both weights are products over all positions.

    Source: Appleyard et al., Optimizing Performance of Recurrent Neural Networks on GPUs, arXiv:1604.01946,
        section 3; PyTorch asks for it wherever there are several layers (aten/src/ATen/native/cudnn/RNN.cpp).
    Valid: layers one after the other; libraries may run one layer ahead of the next.
    """
    shard, hidden, gates = site.shard, layer.hidden_size, recurrent_gates(layer) * layer.hidden_size
    steps = site.takes.places if site.takes.positions else shard.sequence_length
    rows = site.samples * site.takes.places
    directions = 1 + layer.bidirectional
    widths = [site.takes.channels] + [directions * hidden] * (layer.num_layers - 1)
    for number, width in enumerate(widths):
        for way in range(directions):
            name = _name(site, layer, number, way)
            first = number == 0 and way == 0
            read = site.keep(site.x) if first else rows * width * site.element * site.live * (way == 0)
            add_forward(site, plain_product(rows, gates, width), name=f"{name}.input", kept=read)
            add_weight(site.forward, f"{name}.state", hidden * gates, shard, matrix=False, keeps=site.live)
            kept = rows * (gates + hidden * (layer.type == "lstm")) * site.element * site.live
            kept += site.keep(site.y) if number == layer.num_layers - 1 else 0
            site.forward.add(_stepped(site, name, rows, steps, hidden, gates), kept=kept)
    for number, width in reversed(list(enumerate(widths))):
        for way in reversed(range(directions)):
            name = _name(site, layer, number, way)
            site.backward.add(_stepped(site, name, rows, steps, gates, hidden, ".gradient"))
            flows = number > 0 or site.x.flows
            add_backward(site, plain_product(rows, gates, width), name=f"{name}.input", flows=flows)
            add_backward(site, plain_product(rows, gates, hidden), name=f"{name}.state", flows=False)


def _name(site: Site, layer: RecurrentLayer, number: int, way: int) -> str:
    name = f"{site.name}.{number}" if layer.num_layers > 1 else site.name
    return f"{name}.reverse" if way else name


def _stepped(
    site: Site, name: str, rows: int, steps: int, inner: int, columns: int, suffix: str = ""
) -> Kernel:
    """Products of the state, one a step, with the gates' arithmetic behind each."""
    element, flops = site.element, 2 * rows * inner * columns
    gates = max(inner, columns)
    return Kernel(
        name=f"{name}.state{suffix}",
        kind="recurrent",
        flops=flops,
        read_bytes=(inner * columns + rows * gates) * element,
        write_bytes=rows * (gates + min(inner, columns)) * element,
        precision=site.shard.precision,
        shape=MatmulShape(max(1, rows // steps), columns, inner),
        model_flops=flops,
        steps=steps,
    )
