"""DualPipe and its V form: a forward and a backward pass of different micro-batches side by side.

Each entry of the published step tables is written out as passes; where the table pairs a forward with a
backward pass so that the communication of one hides behind the other, they stand next to one another.

Source: DeepSeek-V3, arXiv:2412.19437, section 3.2.1; the step counts are those of the authors' release
(deepseek-ai/DualPipe).
"""

from __future__ import annotations

from itertools import count

from simulator.errors import PlanError
from simulator.program.schedules.schedule import Order, Pass, schedule


@schedule("dualpipe", layout="two_way", chunks=2)
def dualpipe(stages: int, micro_batches: int) -> Order:
    """DualPipe: micro-batches enter at both ends; every stage holds two parts of the model.

    The bubble is (P/2 - 1)(T_F&B + T_B - 3 T_W), the parameters are held twice, and activations of up to
    P + 1 micro-batches.

    Raises:
        PlanError: Stages or micro-batches are odd, or there are fewer than two micro-batches a stage.
    """
    if stages % 2:
        even = " and ".join(str(number) for number in (stages - 1, stages + 1) if number)
        said = f"dualpipe needs even stages such as {even}, not {stages}"
        raise PlanError(("parallelism", "pipeline_parallel"), said)
    _check(stages, micro_batches, even=True)
    half = micro_batches // 2
    order = []
    for stage in range(stages):
        near = min(stage, stages - 1 - stage)
        written = _Script(turned=stage >= stages // 2, offset=half)
        _write(written, stages // 2, near, half - stages + near + 1)
        order.append(written.passes)
    return order


@schedule("dualpipe-v", layout="v", chunks=2)
def dualpipe_v(stages: int, micro_batches: int) -> Order:
    """DualPipe-V ("cut in half"): the two directions joined to a V, so that parameters are held once.

    With P stages it does what DualPipe does with 2 P.

    Raises:
        PlanError: There are fewer than two micro-batches a stage.
    """
    _check(stages, micro_batches, even=False)
    order = []
    for stage in range(stages):
        written = _Script(turned=False, offset=0)
        _write(written, stages, stage, micro_batches - 2 * stages + stage + 1)
        order.append(written.passes)
    return order


def _check(stages: int, micro_batches: int, *, even: bool) -> None:
    if micro_batches < 2 * stages or (even and micro_batches % 2):
        what = "an even number of micro-batches, and " if even else ""
        raise PlanError(
            ("training", "global_batch_size"),
            f"the schedule needs {what}at least 2 x pipeline_parallel = {2 * stages} of them, "
            f"not {micro_batches}",
        )


class _Script:
    """Collects passes of one stage; phase 0 and 1 are the chunks, or the other way round where turned."""

    def __init__(self, *, turned: bool, offset: int) -> None:
        self.passes: list[Pass] = []
        self._turned = turned
        self._offset = offset
        self._forward = [count(), count()]
        self._backward = [count(), count()]
        self._waiting: list[Pass] = []

    def _item(self, kind: str, phase: int, numbers: list[count[int]]) -> Pass:
        chunk = phase ^ self._turned
        return Pass(kind, next(numbers[phase]) + self._offset * chunk, chunk)

    def forward(self, phase: int) -> None:
        self.passes.append(self._item("forward", phase, self._forward))

    def backward(self, phase: int, *, split: bool = False) -> None:
        item = self._item("input_gradient" if split else "backward", phase, self._backward)
        self.passes.append(item)
        if split:
            self._waiting.append(item._replace(kind="weight_gradient"))

    def weights(self) -> None:
        self.passes.append(self._waiting.pop(0))


def _write(written: _Script, ranks: int, rank: int, pairs: int) -> None:
    """The eight steps of the published table for one stage.

    Args:
        written: Takes the passes.
        ranks: Stages on the way to the middle.
        rank: Which of them.
        pairs: Length of the main step.
    """
    for _ in range(2 * (ranks - rank - 1)):
        written.forward(0)
    for _ in range(rank + 1):
        written.forward(0)
        written.forward(1)
    for _ in range(ranks - rank - 1):
        written.backward(1, split=True)
        written.weights()
        written.forward(1)
    for _ in range(pairs):
        written.forward(0)
        written.backward(1)
        written.forward(1)
        written.backward(0)
    for _ in range(ranks - rank - 1):
        written.backward(1)
        written.forward(1)
        written.backward(0)
    split = False
    for index in range(rank + 1):
        turning = index == (rank + 1) // 2
        split = split or (turning and rank % 2 == 1)
        written.backward(1, split=split)
        split = split or (turning and rank % 2 == 0)
        written.backward(0, split=split)
    for _ in range(ranks - rank - 1):
        written.weights()
        written.backward(0, split=True)
    for _ in range(rank + 1):
        written.weights()
