"""Numbers of few bits: bytes against formats counted number by number, traffic of casts, what travels."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest

from simulator.engine import play
from simulator.errors import PlanError, ScenarioError
from simulator.program import Lowered, lower
from simulator.run import check, run
from simulator.scenario import Scenario, load_scenario, scenario_from_mapping
from simulator.specs.model import TransformerSpec
from simulator.workload import Block, Kernel, Shard, layer_block, transients
from simulator.workload.precision import FORMATS, RECIPES
from support.inputs import shipped

TOKENS = 512


def stored(precision: str, rows: int, columns: int, *, weight: bool = False) -> int:
    """Bytes of a matrix, counted: numbers, and a scale for every block of them."""
    bits = {"fp32": 32, "bf16": 16, "fp16": 16, "nvfp4": 4}.get(precision, 8)
    whole = rows * columns * bits // 8
    if precision == "fp8_block":
        blocks = ceil(rows / 128) * (columns // 128) if weight else rows * columns // 128
        return whole + 4 * blocks
    per_scale = {"mxfp8": 32, "nvfp4": 16}.get(precision)
    return whole + (rows * (columns // per_scale) if per_scale else 0)


def layer(recipe: str) -> Block:
    """A layer of Llama-2-7B on one GPU."""
    model = load_scenario(shipped("llama2_7b_fsdp")).model
    assert isinstance(model, TransformerSpec)
    return layer_block(model, Shard(1, TOKENS, 1, False, "bf16", "fused", 4, recipe=recipe))


def kernel(block: Block, name: str) -> Kernel:
    found = next(node.op for node in (*block.forward, *block.backward) if node.op.name == name)
    assert isinstance(found, Kernel)
    return found


def kept(block: Block, name: str) -> int:
    return next(node.kept_bytes for node in block.forward if node.op.name == name)


@pytest.mark.parametrize("precision", FORMATS)
def test_a_scale_for_each_block(precision: str) -> None:
    if precision in ("fp64", "tf32"):
        return
    rows, columns = 256, 4096
    each = FORMATS[precision]
    assert rows * columns * each.number_bytes == stored(precision, rows, columns)
    assert rows * columns * each.weight_bytes == stored(precision, rows, columns, weight=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_operands_are_kept_and_read_with_their_scales(recipe: str) -> None:
    """Of an MLP: the cast output of the norm, and of the activation; a product reads both its operands."""
    block, width, inner = layer(recipe), 4096, 11008
    assert kept(block, "mlp.norm") == TOKENS * width * 2 + stored(recipe, TOKENS, width)
    assert kept(block, "mlp.activation") == stored(recipe, TOKENS, inner)
    product = kernel(block, "mlp.down")
    assert product.read_bytes == stored(recipe, TOKENS, inner) + stored(recipe, inner, width)
    assert product.write_bytes == TOKENS * width * 2
    cast = kernel(block, "mlp.down.cast")
    assert cast.read_bytes == TOKENS * inner * 2 * RECIPES[recipe].reads
    assert cast.write_bytes == 2 * stored(recipe, TOKENS, inner)
    freed = sum(node.freed_bytes for node in block.backward)
    assert block.kept_bytes == freed


def test_products_in_few_bits_write_what_the_passes_read() -> None:
    """A product of fp8 operands hands on bf16: while it runs, that is what stands in memory."""
    shard = Shard(1, TOKENS, 1, False, "bf16", "fused", 4, recipe="fp8")
    block = layer("fp8")
    needs = transients(block, shard).forward
    place = next(number for number, node in enumerate(block.forward) if node.op.name == "attention.output")
    assert needs[place] >= TOKENS * 4096 * 2


LAYERS, WIDTH, INNER, ROWS = 4, 1024, 4096, 8192
MATRICES = LAYERS * (WIDTH * 3 * WIDTH + WIDTH * WIDTH + 3 * WIDTH * INNER)
OTHERS = LAYERS * 2 * WIDTH + WIDTH + 2 * ROWS * WIDTH
"""Norms, embedding and head."""


def scenario(
    training: dict[str, Any],
    parallelism: dict[str, Any] | None = None,
    system: str = "dgx-h100",
    **cluster: Any,
) -> Scenario:
    """Four layers on one node: one replica a GPU unless the plan says otherwise."""
    return scenario_from_mapping(
        {
            "name": "precisions",
            "cluster": {"system": system, "nodes": 1, **cluster},
            "model": {
                "kind": "transformer",
                "name": "four layers",
                "num_hidden_layers": LAYERS,
                "hidden_size": WIDTH,
                "intermediate_size": INNER,
                "num_attention_heads": 8,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": ROWS,
                "gated_mlp": True,
                "hidden_act": "silu",
                "norm": "rmsnorm",
                "position_embedding": "rotary",
                "attention_bias": False,
                "mlp_bias": False,
                "max_position_embeddings": 1024,
            },
            "training": {"sequence_length": 1024, "micro_batch_size": 1, "global_batch_size": 16, **training},
            "parallelism": parallelism or {},
        }
    )


def weights(precision: str) -> int:
    """Bytes of the layers' matrices in one layout."""
    shapes = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * INNER), (INNER, WIDTH))
    return LAYERS * sum(stored(precision, *shape, weight=True) for shape in shapes)


def traffic(lowered: Lowered, name: str) -> float:
    """Bytes of device memory that all kernels of a name move in a step."""
    program, labels = lowered.program, lowered.program.classes.labels
    return float(sum(lowered.facts.traffic[cls] for cls in program.cls if labels[cls].name == name))


def sent(lowered: Lowered, name: str) -> float:
    """Bytes that all collectives of a name send over a GPU's links in a step."""
    program, classes = lowered.program, lowered.program.classes
    total = 0.0
    for cls in program.cls:
        if classes.labels[cls].name == name:
            total += classes.demand_amount[classes.demand_ptr[cls] : classes.demand_ptr[cls + 1]].max()
    return total


NARROW = [("fp8", "dgx-h100"), ("fp8_block", "dgx-h100"), ("mxfp8", "dgx-b200"), ("nvfp4", "dgx-b200")]


@pytest.mark.parametrize(("precision", "system"), NARROW)
def test_weights_in_few_bits_lie_in_both_layouts(precision: str, system: str) -> None:
    """By rows and by columns, one more copy in bf16 if that is what is kept; all else is in bf16."""
    own = lower(scenario({"precision": precision, "parameter_precision": precision}, system=system))
    cast = lower(scenario({"precision": precision}, system=system))
    wide = lower(scenario({"precision": "bf16"}, system=system))
    assert wide.states[0].parts["parameters"] == 2 * (MATRICES + OTHERS)
    assert wide.states[0].parts["parameter_copies"] == 0
    assert own.states[0].parts["parameters"] == weights(precision) + 2 * OTHERS
    assert own.states[0].parts["parameter_copies"] == weights(precision)
    assert cast.states[0].parts["parameters"] == 2 * (MATRICES + OTHERS)
    assert cast.states[0].parts["parameter_copies"] == 2 * weights(precision)
    for lowered in (own, cast, wide):
        assert lowered.states[0].parts["optimizer"] == 12 * (MATRICES + OTHERS)
        assert lowered.states[0].parts["gradients"] == 4 * (MATRICES + OTHERS)


@pytest.mark.parametrize(("precision", "system"), NARROW)
def test_gathered_weights_travel_as_they_are_kept(precision: str, system: str) -> None:
    """After an update in each layout that cannot be made of the other; for a pass, in one."""
    both = precision in ("mxfp8", "nvfp4")
    for sharding, layouts in (("optimizer", 2 if both else 1), ("parameters", 1)):
        plan = {"data_parallel_sharding": sharding}
        own = lower(scenario({"precision": precision, "parameter_precision": precision}, plan, system))
        wide = lower(scenario({"precision": "bf16"}, plan, system))
        name = "parameters.all_gather"
        ratio = (layouts * weights(precision) + 2 * OTHERS) / (2 * (MATRICES + OTHERS))
        assert sent(own, name) == pytest.approx(ratio * sent(wide, name), rel=1e-3)
    kept = own.states[0].parts
    assert kept["parameters"] == pytest.approx((weights(precision) + 2 * OTHERS) / 8, rel=1e-3)
    assert kept["parameter_copies"] == pytest.approx(both * weights(precision) / 8, rel=1e-3)


def test_weights_are_cast_once_a_step_or_by_every_pass() -> None:
    """Whole ones behind the update; gathered ones in each pass, from bf16, or by columns from fp8."""
    micro_batches = 2
    whole = lower(scenario({"precision": "fp8"}))
    assert traffic(whole, "optimizer.weights.cast") == (2 + 2) * MATRICES
    kept = lower(scenario({"precision": "fp8", "parameter_precision": "fp8"}))
    assert traffic(kept, "optimizer.quantize") == (4 + 1) * MATRICES
    assert traffic(kept, "optimizer.weights.transpose") == (1 + 1) * MATRICES
    plan = {"data_parallel_sharding": "parameters"}
    each = lower(scenario({"precision": "fp8"}, plan))
    one = LAYERS * WIDTH * INNER
    assert traffic(each, "mlp.down.weight_cast") == micro_batches * 2 * (2 + 1) * one
    columns = lower(scenario({"precision": "fp8", "parameter_precision": "fp8"}, plan))
    assert traffic(columns, "mlp.down.weight_cast") == 0
    assert traffic(columns, "mlp.down.weight_transpose") == micro_batches * (1 + 1) * one
    assert traffic(columns, "optimizer.quantize") == pytest.approx((4 + 1) * MATRICES / 8)


def test_gathers_in_fewer_bits_than_what_is_kept() -> None:
    """Each GPU casts its share before; what no product reads is cast back by the pass (ZeRO++)."""
    plan = {"data_parallel_sharding": "parameters"}
    sending = {"communication_precision": {"parameters": "fp8"}}
    few = lower(scenario({"precision": "bf16", **sending}, plan))
    wide = lower(scenario({"precision": "bf16"}, plan))
    ratio = (MATRICES + 2 * OTHERS) / (2 * (MATRICES + OTHERS))
    name = "parameters.all_gather"
    assert sent(few, name) == pytest.approx(ratio * sent(wide, name), rel=1e-3)
    passes, share = 2 * 2, MATRICES / 8
    assert traffic(few, "parameters.cast") == pytest.approx(passes * (2 + 1) * share)
    one = LAYERS * WIDTH * INNER
    assert traffic(few, "mlp.down.weight_cast") == passes * (1 + 2) * one
    direct = lower(scenario({"precision": "fp8", **sending}, plan))
    assert traffic(direct, "mlp.down.weight_cast") == 0
    assert few.states[0].parts["parameters"] == wide.states[0].parts["parameters"]


def test_autocast_casts_weights_in_every_forward_pass_and_keeps_them() -> None:
    full = run(scenario({"precision": "bf16", "parameter_precision": "fp32"}))
    half = run(scenario({"precision": "bf16"}))
    one = LAYERS * WIDTH * INNER
    assert traffic(full.lowered, "mlp.down.weight_cast") == 2 * (4 + 2) * one
    assert traffic(full.lowered, "head.weight_cast") == 2 * (4 + 2) * ROWS * WIDTH
    total = MATRICES + OTHERS
    assert full.lowered.states[0].parts["parameters"] == 4 * total
    assert full.lowered.states[0].parts["optimizer"] == 8 * total
    grown = full.result.peak_memory_bytes - half.result.peak_memory_bytes
    # At the end of the forward pass all matrices and the head are there twice.
    assert grown == pytest.approx(2 * (MATRICES + ROWS * WIDTH) - 2 * total, rel=0.05)


def test_autocast_casts_the_weights_of_a_perceptron() -> None:
    """All of 1000-200-100-1; of the first, whose input has no gradient, nothing stays for a backward pass."""
    scenarios = (
        load_scenario(
            shipped("mlp_adam"), {"training.precision": "bf16", "training.parameter_precision": kept}
        )
        for kept in ("fp32", "bf16")
    )
    full, half = (lower(each) for each in scenarios)
    micro_batches, steps = full.plan.num_micro_batches, len(full.step_ends)
    for name, weight in (("0.linear", 1000 * 200), ("2.linear", 200 * 100), ("4.linear", 100)):
        assert traffic(full, f"{name}.weight_cast") == steps * micro_batches * (4 + 2) * weight
        assert traffic(half, f"{name}.weight_cast") == 0
    program = full.program
    assert np.array_equal(play(program, "compiled").pool_final, program.pools.initial)


@pytest.mark.parametrize("precision", ["fp8", "fp8_block", "bf16", "fp16"])
def test_gradients_take_the_bytes_of_their_precision(precision: str) -> None:
    lowered = lower(scenario({"precision": "fp8", "gradient_precision": precision}))
    few = precision.startswith("fp8")
    other = 2
    assert lowered.states[0].parts["gradients"] == stored(precision, MATRICES // 1024, 1024) + other * OTHERS
    gradient = stored(precision, WIDTH, INNER)
    accumulated = traffic(lowered, "mlp.down.weight_gradient.accumulate")
    assert accumulated == few * 2 * LAYERS * (2 * WIDTH * INNER + 2 * gradient)


def test_gradients_are_cast_to_be_reduced_and_back() -> None:
    total = MATRICES + OTHERS
    plain = lower(scenario({"precision": "bf16"}))
    half = lower(scenario({"precision": "bf16", "communication_precision": "bf16"}))
    name = "gradients.all_reduce"
    assert sent(half, name) == pytest.approx(sent(plain, name) / 2, rel=1e-3)
    assert traffic(half, "gradients.cast") == traffic(half, "gradients.cast_back") == (4 + 2) * total
    assert traffic(plain, "gradients.cast") == 0
    plan = {"data_parallel_sharding": "gradients"}
    shares = lower(scenario({"precision": "bf16", "communication_precision": "bf16"}, plan))
    assert traffic(shares, "gradients.cast") == 2 * (4 + 2) * total
    assert traffic(shares, "gradients.cast_back") == pytest.approx(2 * (4 + 2) * total / 8, rel=1e-3)


def test_gradients_with_scales_of_blocks_are_summed_where_they_arrive() -> None:
    """Seven of eight parts leave each GPU once, and sums come back: an all-reduce's bytes in fewer bits."""
    few = lower(scenario({"precision": "fp8", "communication_precision": "fp8_block"}))
    size = stored("fp8_block", MATRICES // 1024, 1024) + 2 * OTHERS
    wide = lower(scenario({"precision": "fp8"}))
    whole = sent(wide, "gradients.all_reduce") * size / (4 * (MATRICES + OTHERS))
    moved = sent(few, "gradients.all_to_all") + sent(few, "gradients.all_gather")
    assert moved == pytest.approx(whole, rel=1e-2)
    assert sent(few, "gradients.all_reduce") == 0
    assert traffic(few, "gradients.sum") == pytest.approx(size * 9 / 8, rel=1e-3)


def test_moments_and_copies_have_precisions_of_their_own() -> None:
    """DeepSeek-V3: bf16 moments. FP8-LM: fp16 copy, fp8 gradients and first moment, fp16 second: 6 bytes."""
    total = MATRICES + OTHERS
    moments = lower(scenario({"optimizer_precision": "bf16"}))
    assert moments.states[0].parts["optimizer"] == (4 + 2 + 2) * total
    lm = {"first_moment": "fp8", "second_moment": "fp16", "master": "fp16"}
    eight = {"precision": "fp8", "parameter_precision": "fp8", "gradient_precision": "fp8"}
    found = lower(scenario({**eight, "optimizer_precision": lm})).states[0].parts
    assert found["optimizer"] == (2 + 1 + 2) * total
    assert found["gradients"] == MATRICES + 2 * OTHERS


SLOW = {"base": "NVLink4", "name": "slow", "bandwidth": "100 MB/s", "latency": "1 us"}


@pytest.mark.parametrize(
    ("sharding", "few", "ratio"),
    [
        ("none", {"communication_precision": "bf16"}, 1 / 2),
        ("none", {"communication_precision": "fp8"}, (MATRICES + 2 * OTHERS) / (4 * (MATRICES + OTHERS))),
        (
            "parameters",
            {
                "communication_precision": {"gradients": "fp8", "parameters": "fp8"},
                "gradient_precision": "bf16",
            },
            (MATRICES + 2 * OTHERS) / (2 * (MATRICES + OTHERS)),
        ),
    ],
)
def test_a_step_on_slow_links_falls_with_the_bytes(sharding: str, few: dict[str, Any], ratio: float) -> None:
    """Nothing but links counts at 100 MB/s: the step is as much shorter as fewer bytes are sent."""
    plan = {"data_parallel_sharding": sharding}
    gradients = {key: value for key, value in few.items() if key == "gradient_precision"}
    slow = run(scenario(gradients, plan, scale_up=SLOW)).result.step_time_s
    fast = run(scenario(few, plan, scale_up=SLOW)).result.step_time_s
    assert fast / slow == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize(
    ("training", "plan", "said"),
    [
        (
            {"parameter_precision": "fp8"},
            {},
            "training.parameter_precision: fp8, but no product of precision: bf16",
        ),
        (
            {"precision": "fp8", "parameter_precision": "fp8_block"},
            {},
            "no product of precision: fp8 reads it; fp8, bf16, fp16, fp32 would do",
        ),
        (
            {"precision": "fp8", "parameter_precision": "fp8", "master_parameters": False},
            {},
            "training.master_parameters: false, but parameters in fp8 are cast from a copy",
        ),
        ({"precision": "mxfp8"}, {}, "as mxfp8 needs; it has"),
        ({"precision": "mxfp8"}, {}, "the nearest is fp8_block"),
        ({"precision": "nvfp4"}, {}, 'has no figure for "fp4"'),
        (
            {"gradient_precision": "nvfp4"},
            {},
            'training.gradient_precision: H100-SXM5-80GB does not know "fp4"',
        ),
        (
            {"communication_precision": {"parameters": "fp8"}},
            {},
            "communication_precision.parameters: does nothing without data_parallel_sharding",
        ),
        (
            {"communication_precision": {"parameters": "fp32"}},
            {"data_parallel_sharding": "parameters"},
            "fp32 is wider than bf16, in which parameters are kept",
        ),
        (
            {"precision": "fp8", "communication_precision": {"parameters": "fp8_block"}},
            {"data_parallel_sharding": "parameters"},
            "fp8_block, but products read fp8, which would do, as would bf16",
        ),
        (
            {"optimizer": "momentum", "optimizer_precision": {"second_moment": "bf16"}},
            {},
            "without a second moment, which momentum does not keep",
        ),
        (
            {"optimizer_precision": {"master": "fp16"}, "master_parameters": False},
            {},
            "optimizer_precision.master: does nothing: the optimizer has no copy",
        ),
        ({"optimizer_precision": {"master": "bf16"}}, {}, "bf16 is that of the parameters; fp32 has more"),
        (
            {"optimizer_precision": "fp9"},
            {},
            "must be fp32, fp16, bf16, fp8, fp8_current, fp8_block, mxfp8 or nvfp4, not the text",
        ),
        ({"communication_precision": {"grads": "fp8"}}, {}, 'did you mean "gradients"'),
        (
            {"gradient_precision": "fp8", "lora_rank": 8},
            {},
            "gradient_precision: fp8 does nothing: no matrix of a layer is trained",
        ),
        (
            {"precision": "fp8", "parameter_precision": "fp8", "offload": {"optimizer": "host"}},
            {},
            "parameter_precision: fp8 is not modelled with an offloaded optimizer",
        ),
    ],
)
def test_precisions_that_cannot_be_are_refused_in_one_line(
    training: dict[str, Any], plan: dict[str, Any], said: str
) -> None:
    with pytest.raises((PlanError, ScenarioError)) as refused:
        lower(scenario(training, plan))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("recipe", "times"), [("fp8", 1), ("fp8_current", 2), ("fp8_block", 1), ("nvfp4", 2)]
)
def test_operands_are_read_again_where_a_scale_is_that_of_the_whole_tensor_itself(
    recipe: str, times: int
) -> None:
    assert kernel(layer(recipe), "mlp.down.cast").read_bytes == times * 2 * TOKENS * 11008


EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": INNER}


def routed(training: dict[str, Any], system: str = "dgx-h100", **plan: Any) -> Lowered:
    """The four layers with experts over eight GPUs."""
    whole = scenario(training, {"expert_parallel": 8, **plan}, system).model_dump(mode="json")
    whole["model"]["mixture"] = EXPERTS
    return lower(scenario_from_mapping(whole))


def moved_among_experts(lowered: Lowered) -> list[float]:
    names = ("experts.dispatch", "experts.combine.gradient", "experts.combine", "experts.dispatch.gradient")
    return [sent(lowered, f"{name}.all_to_all") for name in names]


@pytest.mark.parametrize("precision", ["fp8", "fp8_block"])
@pytest.mark.parametrize("compute", ["bf16", "recipe"])
def test_tokens_are_cast_before_they_travel_to_their_experts(precision: str, compute: str) -> None:
    """As in DeepSeek-V3: tokens and, on the way back, gradients of outputs; results return in bf16."""
    compute = precision if compute == "recipe" else compute
    wide, few = (
        routed({"precision": compute, "communication_precision": {"dispatch": sent_in}})
        for sent_in in ("bf16", precision)
    )
    each = stored(precision, 1024, WIDTH) / (1024 * WIDTH)
    before, behind = moved_among_experts(wide), moved_among_experts(few)
    assert behind[:2] == pytest.approx([each / 2 * size for size in before[:2]], rel=1e-3)
    assert behind[2:] == before[2:]
    passes, tokens, copies = 2 * LAYERS, 1024, 2 * 1024
    reads = 2 * RECIPES[precision].reads
    for name in ("experts.dispatch.cast", "experts.combine.gradient.cast"):
        assert traffic(few, name) == passes * tokens * WIDTH * (reads + each)
        assert traffic(wide, name) == 0
    read, written = copies // 2, copies  # two experts a token
    assert traffic(few, "experts.permute") == passes * (read + written) * WIDTH * each
    # Cast once: where products are in the same precision, what arrives is their operand.
    again = traffic(few, "experts.up.cast"), traffic(few, "experts.up.cast_back")
    if compute == precision:
        assert again == (0, 0)
        assert traffic(few, "experts.up.transpose") == passes * copies * WIDTH * 2 * each
    else:
        assert again == (0, passes * copies * WIDTH * (each + 2))


def test_results_of_experts_can_return_in_fewer_bits() -> None:
    wide, few = (routed({"communication_precision": {"combine": name}}) for name in ("bf16", "fp8"))
    before, behind = moved_among_experts(wide), moved_among_experts(few)
    assert behind[2:] == pytest.approx([size / 2 for size in before[2:]], rel=1e-3)
    assert behind[:2] == before[:2]
    tokens = 2 * LAYERS * 1024
    assert traffic(few, "experts.unpermute") == tokens * WIDTH * (2 * 1 + 2)


def test_operands_are_gathered_as_the_products_read_them_or_as_they_were() -> None:
    plan = {"tensor_parallel": 8, "sequence_parallel": True}
    eight = lower(scenario({"precision": "fp8"}, plan))
    wide = lower(scenario({"precision": "fp8", "communication_precision": {"tensor": "bf16"}}, plan))
    for name in ("mlp.all_gather", "attention.gradient.all_gather", "mlp.input.all_gather"):
        assert sent(wide, name) == pytest.approx(2 * sent(eight, name), rel=1e-3)
    assert sent(wide, "mlp.reduce_scatter") == sent(eight, "mlp.reduce_scatter")
    # Gathered in bf16, all tokens are cast by every GPU instead of an eighth by each.
    assert traffic(wide, "mlp.up.cast") == pytest.approx(8 * traffic(eight, "mlp.cast"), rel=1e-6)


@pytest.mark.parametrize(("precision", "system"), NARROW)
def test_what_an_activation_reads_is_kept_in_fewer_bits(precision: str, system: str) -> None:
    wide = layer("").kept_bytes
    model = load_scenario(shipped("llama2_7b_fsdp")).model
    assert isinstance(model, TransformerSpec)
    shard = Shard(1, TOKENS, 1, False, "bf16", "fused", 4, activation_input=precision)
    few = layer_block(model, shard)
    inputs = 2 * 11008
    assert wide - few.kept_bytes == 2 * TOKENS * inputs - stored(precision, TOKENS, inputs)
    assert few.kept_bytes == sum(node.freed_bytes for node in few.backward)
    lowered = lower(scenario({"activation_input_precision": precision}, system=system))
    one = 2 * LAYERS * (1024 * 2 * INNER * 2 + stored(precision, 1024, 2 * INNER))
    assert traffic(lowered, "mlp.activation.store") == traffic(lowered, "mlp.activation.restore") == one


@pytest.mark.parametrize(
    ("name", "training", "said"),
    [
        (
            "mixtral_8x7b",
            {"precision": "fp8", "communication_precision": {"dispatch": "fp8_block"}},
            "dispatch: fp8_block, but the experts read fp8, which would do, as would bf16",
        ),
        (
            "mixtral_8x7b",
            {"communication_precision": {"combine": "fp32"}},
            "combine: fp32 is neither bf16 of the passes, which would do, nor has fewer bits",
        ),
        (
            "quickstart",
            {"communication_precision": {"dispatch": "fp8"}},
            "dispatch: does nothing without a model with routed experts",
        ),
        (
            "llama3_70b_h100",
            {"communication_precision": {"tensor": "fp8"}},
            "tensor: does nothing: products read bf16, as do the passes",
        ),
        (
            "llama3_70b_h100",
            {"precision": "fp8", "communication_precision": {"tensor": "fp8_block"}},
            "tensor: fp8_block is neither fp8 of the products nor bf16 of the passes",
        ),
        ("mlp_adam", {"activation_input_precision": "bf16"}, "does nothing without a transformer"),
        ("quickstart", {"activation_input_precision": "fp32"}, "fp32 is neither bf16 of the passes"),
    ],
)
def test_what_cannot_travel_is_refused_where_it_stands(
    name: str, training: dict[str, Any], said: str
) -> None:
    changes = {f"training.{key}": value for key, value in training.items()}
    with pytest.raises((PlanError, ScenarioError)) as refused:
        check(load_scenario(shipped(name), changes))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_one_layout_serves_where_matrix_units_read_both() -> None:
    """On Blackwell fp8 with one scale a tensor is cast once, and no weight is copied by columns."""
    for system, layouts in (("dgx-h100", 2), ("dgx-b200", 1)):
        own = lower(scenario({"precision": "fp8", "parameter_precision": "fp8"}, system=system))
        cast = lower(scenario({"precision": "fp8"}, system=system))
        assert own.states[0].parts["parameter_copies"] == (layouts - 1) * MATRICES
        assert cast.states[0].parts["parameter_copies"] == layouts * MATRICES
        assert traffic(own, "optimizer.weights.transpose") == (layouts - 1) * 2 * MATRICES
        assert traffic(cast, "optimizer.weights.cast") == (2 + layouts) * MATRICES
        operand = 2 * LAYERS * 1024 * INNER
        assert traffic(cast, "mlp.down.cast") == operand * (2 + layouts)


def test_copies_of_weights_stay_or_are_made_by_each_pass() -> None:
    """Without them a byte a parameter less is kept, and every backward pass turns each weight round."""
    eight, one = {"precision": "fp8", "parameter_precision": "fp8"}, LAYERS * WIDTH * INNER
    staying = scenario(eight)
    software = staying.software.model_copy(update={"weight_copies": False})
    kept, made = (lower(each) for each in (staying, staying.model_copy(update={"software": software})))
    assert kept.states[0].parts["parameter_copies"] == MATRICES
    assert made.states[0].parts["parameter_copies"] == 0
    assert traffic(made, "optimizer.weights.transpose") == traffic(kept, "mlp.down.weight_transpose") == 0
    assert traffic(made, "mlp.down.weight_transpose") == 2 * (1 + 1) * one


@pytest.mark.parametrize("stay", [True, False])
@pytest.mark.parametrize(
    "settings", [{"weights": "fp32"}, {"weights": "fp8"}, {"weights": "bf16", "recipe": "fp8"}]
)
@pytest.mark.parametrize("name", ["llama2_7b_fsdp", "mixtral_8x7b", "deepseek_v3_2k", "t5_11b"])
def test_what_is_cast_of_weights_and_kept_is_freed(name: str, settings: dict[str, str], stay: bool) -> None:
    model = load_scenario(shipped(name)).model
    assert isinstance(model, TransformerSpec)
    source = TOKENS if model.num_encoder_layers else 0
    whole = {
        "expert_parallel": 8 if model.mixture else 1,
        "dispatch": "fp8",
        "combine": "fp8",
        "source_length": source,
    }
    shard = Shard(1, TOKENS, 2, True, "bf16", "fused", 4, weights_stay=stay, **whole, **settings)
    for dense in (True, False):
        made = layer_block(model, shard, dense=dense)
        assert made.kept_bytes == sum(node.freed_bytes for node in made.backward)
        casts = [node for node in made.forward if node.op.name.endswith("weight_cast")]
        assert bool(casts) == (settings["weights"] != "bf16" or not stay)
