"""One's own order of passes from a YAML file: it runs, and mistakes have their place in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator.engine.checks import check_conservation
from simulator.errors import ScenarioError
from simulator.run import check, run
from simulator.scenario import load_scenario

SCENARIO = """\
include: order.yaml
cluster: {system: dgx-h100, nodes: 1}
model: llama3.2-1b
training: {sequence_length: 2048, micro_batch_size: 1, global_batch_size: 16}
parallelism: {pipeline_parallel: 2, data_parallel: 4}
"""
LINES = ("F0 F1 I0 W0 F2 I1 W1 F3 I2 W2 I3 W3", "F0 I0 F1 I1 W0 F2 I2 W1 F3 I3 W2 W3")


def written(folder: Path, lines: tuple[str, str]) -> Path:
    order = "".join(f"    - {line}\n" for line in lines)
    (folder / "order.yaml").write_text(f"parallelism:\n  pipeline_order:\n{order}", encoding="utf-8")
    path = folder / "own.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def test_passes_run_in_the_order_that_was_written(tmp_path: Path) -> None:
    outcome = run(load_scenario(written(tmp_path, LINES)))
    program, record = outcome.lowered.program, outcome.record
    check_conservation(program, record)
    labels = program.classes.labels
    for stage, line in enumerate(LINES):
        layers = np.flatnonzero((program.tags["stage"] == stage) & (program.tags["layer"] >= 0))
        compute = [a for a in layers if program.lanes.kinds[program.lane[a]] == "compute"]
        begun = sorted(compute, key=lambda activity: int(record.start[activity]))
        seen: list[str] = []
        for activity in begun:
            label, batch = labels[program.cls[activity]], program.tags["micro_batch"][activity]
            weights = label.name.endswith("weight_gradient")
            kind = "F" if label.phase == "forward" else "W" if weights else "I"
            if not seen or seen[-1] != f"{kind}{batch}":
                seen.append(f"{kind}{batch}")
        assert seen == line.split()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            (LINES[0], LINES[1][:-3]),
            "order.yaml:4:7: parallelism.pipeline_order.1: stage 1: weight_gradient",
        ),
        ((LINES[0] + " F3", LINES[1]), "stage 0: forward of micro-batch 3, chunk 0 stands there 2 times"),
        (("I0 " + LINES[0].replace(" I0", ""), LINES[1]), "deadlock: stage 0 waits with input_gradient"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, lines: tuple[str, str], said: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        check(load_scenario(written(tmp_path, lines)))
    assert said in str(refused.value)
