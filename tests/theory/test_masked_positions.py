"""An encoder that predicts masked positions alone: head and loss work on those, all else on all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import simulate
from simulator.errors import ScenarioError
from simulator.scenario import scenario_from_mapping
from simulator.workload import Kernel, Shard
from simulator.workload.ends import head_block
from support.inputs import catalogue_model

BERT = catalogue_model("bert-base")
ALL = Shard(32, 128, 1, False, "fp16", "unfused", 4)
SOME = replace(ALL, predicted_share=20 / 128)


def arithmetic(shard: Shard) -> dict[str, int]:
    block = head_block(BERT, shard, shares_embedding=True)
    ops = [node.op for node in (*block.forward, *block.backward) if isinstance(node.op, Kernel)]
    return {op.name: op.flops for op in ops if op.kind == "matmul"}


def test_products_of_the_head_are_those_of_the_masked_positions() -> None:
    tokens, width, rows = 32 * 20, BERT.hidden_size, BERT.vocab_size
    found = arithmetic(SOME)
    assert found["head"] == found["head.input_gradient"] == 2 * tokens * width * rows
    assert found["head.transform"] == 2 * tokens * width * width
    assert all(found[name] * 128 == flops * 20 for name, flops in arithmetic(ALL).items())


def test_what_is_kept_is_freed_and_the_layers_get_a_gradient_for_every_position() -> None:
    block = head_block(BERT, SOME, shares_embedding=True)
    kept = sum(node.kept_bytes for node in block.forward)
    assert kept == sum(node.freed_bytes for node in block.backward)
    last = block.backward[-1].op
    assert isinstance(last, Kernel)
    assert last.write_bytes == 32 * 128 * BERT.hidden_size * 2


@pytest.mark.parametrize(("model", "refused"), [("gpt2-124m", True), ("bert-base", False)])
def test_decoders_predict_every_position(model: str, refused: bool) -> None:
    mapping = {
        "cluster": {"system": "dgx-a100"},
        "model": model,
        "training": {
            "sequence_length": 128,
            "micro_batch_size": 4,
            "global_batch_size": 32,
            "predicted_share": 0.15,
        },
        "parallelism": {"data_parallel": 8},
    }
    scenario = scenario_from_mapping(mapping)
    if refused:
        with pytest.raises(ScenarioError, match="predicted_share: does nothing without an encoder"):
            simulate(scenario)
    else:
        assert simulate(scenario).step_time_s > 0
