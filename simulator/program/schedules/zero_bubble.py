"""Zero-bubble schedules: the weight-gradient half of a backward pass fills what would be bubbles."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from simulator.program.schedules.schedule import Held, Order, Pass, schedule


@schedule("zb-1p")
def zero_bubble_1p(stages: int, micro_batches: int) -> Order:
    """ZB-H1: as 1F1B, and stage p puts off its weight gradients by p micro-batches.

    No stage holds more than P micro-batches, as the first one does in 1F1B; the bubble is
    (P - 1)(T_F + T_B - T_W) where 1F1B has (P - 1)(T_F + T_B + T_W). With memory for P micro-batches the
    authors' search finds the same order.

    Source: Qi et al., arXiv:2401.10241, section 2.3.
    """
    return [_handcrafted(micro_batches, warm_up=stages - stage, put_off=stage) for stage in range(stages)]


@schedule("zb-2p", fills=True)
def zero_bubble_2p(stages: int, micro_batches: int, held: Sequence[Held]) -> Order:
    """ZB-2P: twice the passes ahead; weights wait until memory for 2 P micro-batches is used up.

    The bubble is (P - 1)(T_F + T_B - 2 T_W): none where the three take equally long. No bubble calls for a
    weight gradient then, so that only memory does. (ZB-H2 puts off no longer than 2 P - 1 micro-batches need
    where what is put off keeps as much as a micro-batch.)

    Source: Qi et al., arXiv:2401.10241, sections 2.3 and 3.1.
    """
    order = []
    for stage, (kept, put_off) in enumerate(held):
        ahead = 2 * (stages - stage) - 1
        waiting = max(0, floor((2 * stages - ahead * kept) / put_off))
        order.append(_handcrafted(micro_batches, warm_up=ahead, put_off=waiting))
    return order


def _handcrafted(micro_batches: int, *, warm_up: int, put_off: int) -> list[Pass]:
    passes = [Pass("forward", index) for index in range(min(warm_up, micro_batches))]
    for index in range(micro_batches):
        passes.append(Pass("input_gradient", index))
        if index >= put_off:
            passes.append(Pass("weight_gradient", index - put_off))
        if index + warm_up < micro_batches:
            passes.append(Pass("forward", index + warm_up))
    left = range(max(0, micro_batches - put_off), micro_batches)
    return passes + [Pass("weight_gradient", index) for index in left]


@schedule("zb-v", layout="v", chunks=2)
def zero_bubble_v(stages: int, micro_batches: int) -> Order:
    """ZB-V: two chunks a stage, the second on the way back; no bubble where T_F = T_B = T_W.

    No stage holds more than 2 P activations of half a stage: the memory of 1F1B.

    Source: Qi et al., arXiv:2405.15362; the order is that of its handcrafted form.
    """
    enough = max(2 * stages - 1, micro_batches)
    return [
        [item for item in _v_stage(stages, stage, enough) if item.micro_batch < micro_batches]
        for stage in range(stages)
    ]


def _v_stage(stages: int, stage: int, micro_batches: int) -> list[Pass]:
    passes: list[Pass] = []
    counted: dict[tuple[str, int], int] = {}

    def run(kind: str, chunk: int) -> None:
        number = counted.get((kind, chunk), 0)
        counted[kind, chunk] = number + 1
        passes.append(Pass(kind, number, chunk))

    def run_backward(chunk: int) -> None:
        run("input_gradient", chunk)
        run("weight_gradient", chunk)

    for _ in range(2 * (stages - stage) - 1):
        run("forward", 0)
    for _ in range(stage):
        run("forward", 1)
        run("forward", 0)
    for _ in range(stages - stage):
        run("forward", 1)
        run_backward(1)
    while counted["forward", 1] < counted["forward", 0] or counted["forward", 0] < micro_batches:
        if counted["forward", 0] < micro_batches:
            run("forward", 0)
        run_backward(0)
        run("forward", 1)
        run_backward(1)
    for _ in range(stage):
        run("input_gradient", 0)
        run("input_gradient", 1)
    for _ in range(stages - stage):
        run_backward(0)
    for chunk in (1, 0):
        while counted.get(("weight_gradient", chunk), 0) < micro_batches:
            run("weight_gradient", chunk)
    return passes
