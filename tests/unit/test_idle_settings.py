"""Settings that would change nothing: refused, or told where a degree of 1 leaves them nothing to do."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run import check
from simulator.scenario import load_scenario
from support.inputs import shipped


def refusal(name: str, **changes: Any) -> str:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    with pytest.raises(ScenarioError) as refused:
        check(load_scenario(shipped(name), keys))
    return str(refused.value)


@pytest.mark.parametrize("key", ["gradient_precision", "communication_precision", "parameter_precision"])
def test_an_accelerator_keeps_and_sends_only_what_it_knows(key: str) -> None:
    v100 = {"cluster__accelerator": "V100-SXM2-32GB", "training__precision": "fp16"}
    said = refusal("quickstart", **v100, **{f"training__{key}": "bf16"})
    key = key.replace("communication_precision", "communication_precision.gradients")
    assert f'training.{key}: V100-SXM2-32GB does not know "bf16"; it has fp16, fp32, fp64' in said


def test_eight_bits_of_state_or_on_the_way_to_experts_need_an_accelerator_that_has_them() -> None:
    a100 = {"cluster__accelerator": "A100-SXM4-80GB"}
    assert 'not know "fp8"' in refusal("quickstart", **a100, training__optimizer_precision="fp8")
    sent = {"training__communication_precision": {"dispatch": "fp8"}}
    assert 'not know "fp8"' in refusal("mixtral_8x7b", **a100, **sent)


@pytest.mark.parametrize(
    ("key", "value"), [("lora_rank", 4), ("attention", "fused"), ("dropout", False), ("optimizer", "muon")]
)
def test_models_given_layer_by_layer_have_no_layers_of_a_transformer(key: str, value: object) -> None:
    said = refusal("mlp_adam", **{f"training__{key}": value})
    assert f"training.{key}" in said and "transformer" in said


def test_what_would_do_is_named() -> None:
    assert "8192 and 8194 are" in refusal("quickstart", training__sequence_length=8193)
    assert "data_parallel 4 takes them all" in refusal("quickstart", parallelism__data_parallel=2)
    pipeline = {"cluster__nodes": 3, "parallelism__pipeline_parallel": 3, "training__global_batch_size": 48}
    dualpipe = {**pipeline, "parallelism__pipeline_schedule": "dualpipe"}
    assert "even stages such as 2 and 4, not 3" in refusal("quickstart", **dualpipe)
    chunks = {**pipeline, "parallelism__virtual_pipeline": 5, "parallelism__pipeline_schedule": "zb-v"}
    assert "only with 1 or 2" in refusal("quickstart", **chunks)


def test_degrees_of_one_leave_a_word_of_warning() -> None:
    def said(**parallelism: object) -> str:
        keys = {f"parallelism.{key}": value for key, value in parallelism.items()}
        return " ".join(check(load_scenario(shipped("quickstart"), keys)).plan.warnings)

    assert said() == ""
    mixture = {"parallelism.expert_parallel": 1, "parallelism.expert_imbalance": 1.5}
    one, even = (
        check(load_scenario(shipped("mixtral_8x7b"), {**mixture, "parallelism.expert_imbalance": many}))
        for many in (1.5, 1.0)
    )
    assert "expert_imbalance changes nothing" in " ".join(one.plan.warnings)
    assert one.program.cls.size == even.program.cls.size
    assert one.facts.flops.sum() == even.facts.flops.sum()
    assert "sequence_parallel changes nothing: tensor_parallel is 1" in said(tensor_parallel=1)
    assert "overlap_point_to_point changes nothing" in said(overlap_point_to_point=False)
    assert "gradient_bucket changes nothing" in said(tensor_parallel=8, gradient_bucket="1 MB")
    assert said(gradient_bucket="1 MB") == ""


def test_parts_in_the_middle_need_a_layer() -> None:
    layers = {"parallelism__pipeline_parallel": 4, "parallelism__pipeline_layers": [16, 0, 8, 8]}
    said = refusal("quickstart", **layers)
    assert "pipeline_layers.1: part 1 of 4 has no layer; only the first and the last can do so" in said


def test_drives_that_nothing_lies_on_are_told_and_shared_storage_has_no_capacity() -> None:
    drives = {"cluster.drives": "nvme-gen4"}
    told = load_scenario(shipped("quickstart"), drives).warnings
    assert any("drives: changes nothing: training.offload puts nothing on nvme" in line for line in told)
    said = refusal("quickstart", cluster__storage={"base": "lustre-server", "capacity": "1 PB"})
    assert "how much storage of kind: shared holds is not looked at" in said


def test_scale_up_domains_are_parts_or_multiples_of_nodes() -> None:
    said = refusal("quickstart", cluster__scale_up_domain=3)
    assert "3 is neither a part nor a multiple of the 8 accelerators of a node" in said


def test_groups_that_cross_nodes_and_state_that_stays_whole_are_told() -> None:
    nodes = {"cluster.nodes": 4, "cluster.gpus_per_node": 6, "training.global_batch_size": 12}
    plan = {"parallelism.tensor_parallel": 4}
    told = check(load_scenario(shipped("quickstart"), nodes | plan)).warnings
    assert any("4 does not divide the scale-up domain of 6" in line for line in told)
    alone = {"parallelism.data_parallel_sharding": "parameters", "parallelism.sharding_group_size": 1}
    told = check(load_scenario(shipped("quickstart"), alone)).warnings
    assert "sharding_group_size 1 shares nothing out: every replica keeps all of it" in told
