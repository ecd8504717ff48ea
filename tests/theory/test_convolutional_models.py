"""Models given layer by layer with ways, convolutions and norms: arithmetic, traffic and memory by hand."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import pytest

from simulator import catalog
from simulator.cost import kernel_demand
from simulator.errors import ScenarioError, UnsupportedError
from simulator.run import run
from simulator.scenario import scenario_from_mapping
from simulator.specs import Calibration, LayerListSpec
from simulator.specs.layer_list import placed_layers
from simulator.specs.shapes import leaves
from simulator.workload import Block, Kernel, MatmulShape, Shard, layer_list_blocks
from simulator.workload.names import parameter_names
from simulator.workload.parameters import count_parameters
from support.inputs import catalogue_layers
from support.laws import assert_folds, assert_obeys_laws

Layers = list[dict[str, Any]]

LISTS = [name for name in catalog.names("models") if catalog.entry("models", name).get("kind") == "layers"]
SAMPLES = 4
EAGER = {"base": "pytorch-ddp", "convolution_layout": "channels_last"}


def scenario(model: Any, software: Any = "oneflow", **training: Any) -> Any:
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-a100", "nodes": 1, "gpus_per_node": 2},
            "model": model,
            "training": {
                "micro_batch_size": SAMPLES,
                "global_batch_size": 2 * SAMPLES,
                "precision": "fp16",
                "optimizer": "momentum",
                **training,
            },
            "software": software,
        }
    )


def blocks(model: Any, software: Any = "oneflow", untrained: tuple[str, ...] = (), **shard: Any) -> Any:
    made = scenario(model, software)
    given = {
        "micro_batch_size": SAMPLES,
        "sequence_length": 1,
        "tensor_parallel": 1,
        "sequence_parallel": False,
        "precision": "fp16",
        "attention": "fused",
        "gradient_bytes": 4,
        "software": made.software,
    }
    return layer_list_blocks(made.model, Shard(**{**given, **shard}), frozenset(untrained))


def layered(layers: Layers, **keys: Any) -> dict[str, Any]:
    return {"name": "list", "input": [8, 16, 16], "layers": layers, **keys}


def conv(out: int, size: int = 3, **keys: Any) -> dict[str, Any]:
    return {"type": "convolution", "out_channels": out, "kernel_size": size, "padding": size // 2, **keys}


NORM = {"type": "norm", "norm": "batchnorm"}
RELU = {"type": "activation"}
RESIDUAL: Layers = [
    conv(8),
    NORM,
    RELU,
    {"type": "block", "layers": [conv(8), NORM], "shortcut": []},
    RELU,
    {"type": "pooling", "function": "mean"},
    {"type": "linear", "out_features": 10},
    {"type": "loss"},
]


def kernels(found: tuple[Block, ...], way: str) -> list[Kernel]:
    return [node.op for block in found for node in getattr(block, way) if isinstance(node.op, Kernel)]


def named(found: tuple[Block, ...], name: str) -> Kernel:
    return next(k for way in ("forward", "backward") for k in kernels(found, way) if k.name == name)


# What papers and others print.


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        # GFLOPS as torchvision prints them, for a multiply-add each.
        ("resnet18", 1.81e9),
        ("resnet34", 3.66e9),
        ("resnet50", 4.09e9),
        ("resnet101", 7.80e9),
        ("resnet152", 11.51e9),
        ("resnext50-32x4d", 4.23e9),
        ("resnext101-32x8d", 16.41e9),
        ("vgg16", 15.47e9),
        ("mobilenet-v2", 0.30e9),
        ("efficientnet-b0", 0.39e9),
        ("efficientnet-b4", 4.39e9),
    ],
)
def test_arithmetic_of_an_image_is_what_is_published(name: str, multiply_adds: float) -> None:
    found = blocks(name)
    forward = sum(k.model_flops for k in kernels(found, "forward")) / SAMPLES / 2
    assert abs(forward - multiply_adds) <= 0.005e9 + 0.001 * multiply_adds
    # Both gradients but that of the image.
    first = named(found, "0.convolution").model_flops / SAMPLES / 2
    backward = sum(k.model_flops for k in kernels(found, "backward")) / SAMPLES / 2
    assert backward == pytest.approx(2 * forward - first)


def test_parameters_of_ssd_by_hand() -> None:
    # ResNet-50 up to its third stage: without the fourth, 1024 to 512 wide inside, and the classifier.
    stage = 1024 * 512 + 512 * 512 * 9 + 512 * 2048 + 1024 * 2048 + 2 * (2 * 512 + 2 * 2048)
    stage += 2 * (2048 * 512 + 512 * 512 * 9 + 512 * 2048 + 2 * (2 * 512 + 2048))
    backbone = 25_557_032 - stage - (2048 * 1000 + 1000)
    widths, inside, boxes = (1024, 512, 512, 256, 256, 256), (256, 256, 128, 128, 128), (4, 6, 6, 6, 4, 4)
    extra = sum(
        before * mid + mid * after * 9 + 2 * (mid + after)
        for before, mid, after in zip(widths, inside, widths[1:], strict=False)
    )
    heads = sum(9 * width * number * 85 + number * 85 for width, number in zip(widths, boxes, strict=True))
    assert count_parameters(catalogue_layers("ssd300-rn50")) == backbone + extra + heads
    # 8,732 boxes, as the paper says.
    found = leaves(placed_layers(catalogue_layers("ssd300-rn50")))
    scores = sum(item.takes.elements for item in found if item.name.endswith("loss"))
    assert scores == 8732 * 85


def test_parameters_of_unet_by_hand() -> None:
    filters = (32, 64, 128, 256, 320, 320)

    def unit(before: int, after: int) -> int:
        return 27 * before * after + 2 * after

    count = unit(1, 32) + unit(32, 32) + (32 * 3 + 3)
    for above, below in pairwise(filters):
        count += unit(above, below) + unit(below, below)
        count += 8 * below * above + above + unit(2 * above, above) + unit(above, above)
    assert count_parameters(catalogue_layers("unet3d-kits19")) == count


def test_jasper_adds_up_the_inputs_of_all_blocks_before() -> None:
    """Dense residuals: the tenth block has ten of them, and all counts are those of the authors' code."""
    model = catalogue_layers("jasper-10x5dr")
    assert count_parameters(model) == 332_632_349
    ways = [item for item in leaves(placed_layers(model)) if ".shortcut." in item.name]
    assert sum(item.name.endswith("convolution") for item in ways) == sum(range(1, 11))


def test_parameters_of_a_transducer_by_hand() -> None:
    def lstm(inputs: int, hidden: int) -> int:
        return 4 * hidden * (inputs + hidden + 2)

    encoder = lstm(240, 1024) + lstm(1024, 1024) + lstm(2048, 1024) + 2 * lstm(1024, 1024)
    prediction = 1023 * 512 + 2 * lstm(512, 512)
    joint = 1024 * 512 + 512 + 512 * 512 + 512 + 512 * 1024 + 1024
    assert count_parameters(catalogue_layers("rnn-t")) == encoder + prediction + joint


# Products.


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
def test_products_have_the_arithmetic_of_their_convolutions(name: str, precision: str) -> None:
    """Exactly where channels are whole multiples of 16 bytes; no less anywhere."""
    for kernel in kernels(blocks(name, precision=precision), "forward"):
        if kernel.kind == "convolution" and isinstance(kernel.shape, MatmulShape):
            shape = kernel.shape
            assert kernel.flops == 2 * shape.m * shape.n * shape.k * shape.batch
            if precision != "fp32":
                assert kernel.flops >= kernel.model_flops


def test_the_dimensions_of_a_convolution_s_products() -> None:
    """NVIDIA's table: N P Q x K x C R S forward, N H W x C x K R S and C R S x K x N P Q backward."""
    layers: Layers = [conv(24), conv(32, stride=2), {"type": "loss"}]
    found = blocks(layered(layers))
    n, c, k = SAMPLES, 24, 32
    assert named(found, "1.convolution").shape == MatmulShape(n * 64, k, c * 9)
    # Each input meets a quarter of the taps.
    assert named(found, "1.convolution.input_gradient").shape == MatmulShape(n * 256, c, k * 9 // 4)
    assert named(found, "1.convolution.weight_gradient").shape == MatmulShape(c * 9, k, n * 64)
    assert not any(kernel.name == "0.convolution.input_gradient" for kernel in kernels(found, "backward"))


def test_few_channels_are_padded_for_the_matrix_units() -> None:
    def inner(channels: int, precision: str) -> int:
        model = layered([conv(8, 1), {"type": "loss"}], input=[channels, 16, 16])
        shape = named(blocks(model, precision=precision), "0.convolution").shape
        assert isinstance(shape, MatmulShape)
        return shape.k

    assert [inner(channels, "fp16") for channels in (3, 4, 5, 8, 9)] == [4, 4, 8, 8, 16]
    assert [inner(channels, "tf32") for channels in (3, 4, 5, 8, 9)] == [4, 4, 8, 8, 12]
    assert [inner(channels, "fp32") for channels in (3, 4, 5, 8, 9)] == [3, 4, 5, 8, 9]


def test_vector_units_filter_minimally() -> None:
    """F(2 x 2, 3 x 3): four outputs for 16 multiply-adds a channel where 36 are needed."""
    found = blocks(layered([conv(16), conv(16), {"type": "loss"}]), precision="fp32")
    for name in ("1.convolution", "1.convolution.input_gradient", "1.convolution.weight_gradient"):
        kernel = named(found, name)
        assert kernel.flops * 36 == kernel.model_flops * 16
    for layer in (conv(16, stride=2), conv(16, 5), conv(16, dilation=2)):
        kernel = named(blocks(layered([layer, {"type": "loss"}]), precision="fp32"), "0.convolution")
        assert kernel.flops == kernel.model_flops


def test_statistics_that_the_convolution_sums_are_not_read_for() -> None:
    size = SAMPLES * 8 * 256 * 2
    summed = blocks(layered(RESIDUAL), {"base": "mxnet", "fused_norm_statistics": True})
    assert named(summed, "1.norm").read_bytes == size
    assert named(summed, "1.norm.gradient").read_bytes == 4 * size + size // 8


def test_a_transposed_convolution_is_the_gradient_of_one() -> None:
    """Twice the sides: as many multiply-adds as the convolution that makes its input of its output."""
    up = {"type": "convolution", "out_channels": 16, "kernel_size": 2, "stride": 2, "transposed": True}
    found = blocks(layered([conv(32), up, {"type": "loss"}]))
    down = {"type": "convolution", "out_channels": 32, "kernel_size": 2, "stride": 2}
    other = blocks(layered([conv(16), down, {"type": "loss"}], input=[8, 32, 32]))
    one, two = named(found, "1.convolution"), named(other, "1.convolution.input_gradient")
    assert (one.shape, one.flops) == (two.shape, two.flops)
    assert named(found, "1.convolution.input_gradient").shape == named(other, "1.convolution").shape


def test_depthwise_convolutions_leave_the_matrix_units_alone() -> None:
    found = blocks(layered([conv(8, groups=8), {"type": "loss"}]))
    kernel = named(found, "0.convolution")
    assert (kernel.kind, kernel.shape) == ("depthwise", None)
    assert kernel.flops == 2 * SAMPLES * 8 * 256 * 9
    assert kernel.read_bytes + kernel.write_bytes == (2 * SAMPLES * 8 * 256 + 8 * 9) * 2


def test_direct_kernels_take_many_instructions_for_a_multiply_add() -> None:
    """A100: 108 units of 64 lanes at 1.41 GHz do one instruction a lane and cycle."""
    found = blocks(layered([conv(8), conv(8, groups=8), {"type": "loss"}]), "pytorch-ddp")
    products = SAMPLES * 8 * 256 * 9
    expected = {"": 16, ".input_gradient": 19, ".weight_gradient": 46}
    accelerator, calibration = scenario("resnet50").cluster.node_groups[0].accelerator, Calibration.load()
    for suffix, each in expected.items():
        kernel = named(found, f"1.convolution{suffix}")
        assert kernel.instructions == products * each and kernel.model_flops == 2 * products
        seconds = kernel_demand(kernel, accelerator, calibration).amounts["vector"] / accelerator.vector_flops
        assert seconds == pytest.approx(products * each / (108 * 64 * 1.41e9), rel=0.01)


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize("ways", [1, 2])
def test_recurrent_layers_have_a_product_a_step(kind: str, gates: int, ways: int) -> None:
    hidden, inputs, steps = 64, 24, 30
    layer = {"type": kind, "hidden_size": hidden, "num_layers": 2, "bidirectional": ways == 2}
    model = layered([layer, {"type": "loss"}], input=[inputs, steps])
    found, rows = blocks(model, EAGER), SAMPLES * steps
    state = named(found, "0.lstm.1.state" if kind == "lstm" else "0.gru.1.state")
    assert (state.shape, state.steps) == (MatmulShape(SAMPLES, gates * hidden, hidden), steps)
    each = gates * hidden * (inputs + hidden) + gates * hidden * (ways + 1) * hidden
    forward = sum(kernel.model_flops for kernel in kernels(found, "forward"))
    backward = sum(kernel.model_flops for kernel in kernels(found, "backward"))
    assert forward == 2 * rows * ways * each
    assert backward == 2 * forward - 2 * rows * ways * gates * hidden * inputs
    made = scenario(model).model
    assert count_parameters(made) == ways * (each + 2 * 2 * gates * hidden)
    assert made.layers[0].model_fields_set >= {"hidden_size"} and placed_layers(made)[0].gives.channels == (
        ways * hidden
    )


def test_steps_of_a_recurrence_take_their_time_one_after_the_other() -> None:
    accelerator, calibration = scenario("resnet50").cluster.node_groups[0].accelerator, Calibration.load()

    def seconds(steps: int) -> float:
        model = layered([{"type": "lstm", "hidden_size": 512}, {"type": "loss"}], input=[64, steps])
        demand = kernel_demand(named(blocks(model), "0.lstm.state"), accelerator, calibration)
        return demand.delay + demand.amounts["tensor"] / accelerator.peak_flops["fp16"]

    assert seconds(400) == pytest.approx(4 * seconds(100), rel=0.02)


def test_each_frame_meets_each_piece() -> None:
    text: Layers = [
        {"type": "input", "shape": [1, 5]},
        {"type": "embedding", "num_embeddings": 9, "embedding_dim": 8},
    ]
    both = {"type": "block", "layers": [conv(8, 1)], "shortcut": text, "join": "outer_sum"}
    model = layered([both, {"type": "linear", "out_features": 4}, {"type": "loss"}], input=[6, 7])
    assert placed_layers(scenario(model).model)[0].gives.positions == (7, 5)
    met, back = named(blocks(model), "0.outer_sum"), named(blocks(model), "0.outer_sum.gradient")
    few, many = SAMPLES * 8 * (7 + 5) * 2, SAMPLES * 8 * 7 * 5 * 2
    assert (met.read_bytes, met.write_bytes, back.read_bytes, back.write_bytes) == (few, many, 2 * many, few)
    assert not any(kernel.name == "0.gradient_sum" for kernel in kernels(blocks(model), "backward"))


# Traffic and what is kept.


def test_a_batch_norm_reads_its_input_twice_and_with_its_gradient_twice_again() -> None:
    size = SAMPLES * 8 * 256 * 2
    found = blocks(layered(RESIDUAL), EAGER)
    norm, back = named(found, "1.norm"), named(found, "1.norm.gradient")
    assert (norm.read_bytes, norm.write_bytes) == (2 * size, size)
    assert (back.read_bytes, back.write_bytes) == (4 * size, size)
    relu, back = named(found, "2.activation"), named(found, "2.activation.gradient")
    assert (relu.read_bytes + relu.write_bytes, back.read_bytes + back.write_bytes) == (2 * size, 3 * size)
    total = named(found, "3.sum")
    assert (total.read_bytes, total.write_bytes) == (2 * size, size)


def test_fused_with_sum_and_activation_only_what_must_travels() -> None:
    size = SAMPLES * 8 * 256 * 2
    found = blocks(layered(RESIDUAL))
    names = [kernel.name for way in ("forward", "backward") for kernel in kernels(found, way)]
    assert not any("activation" in name or name.endswith(".sum") for name in names)
    norm, back = named(found, "3.1.norm"), named(found, "3.1.norm.gradient")
    # A bit of mask an element; the shortcut comes in, and its gradient goes out.
    assert (norm.read_bytes, norm.write_bytes) == (3 * size, size + size // 16)
    assert (back.read_bytes, back.write_bytes) == (4 * size + size // 8, 2 * size)


def test_each_tensor_is_kept_once() -> None:
    """Eager: the image, what convolutions give (for norms), what activations give, the pooled features."""
    size, features = SAMPLES * 8 * 256 * 2, SAMPLES * 8 * 2
    statistics, scores = 2 * 8 * 4, SAMPLES * 10 * 4
    found = blocks(layered(RESIDUAL), EAGER)
    assert sum(block.kept_bytes for block in found) == 5 * size + 2 * statistics + features + scores
    # Fused, a bit an element besides; what the sum's activation gives is of no use to anybody.
    fused = sum(block.kept_bytes for block in blocks(layered(RESIDUAL)))
    assert fused == 4 * size + 2 * size // 16 + 2 * statistics + features + scores


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("software", ["oneflow", "pytorch-ddp"])
def test_what_is_kept_is_freed(name: str, software: str) -> None:
    found = blocks(name, software)
    for block in found:
        assert block.kept_bytes == sum(node.freed_bytes for node in block.backward), block.name
    assert sum(block.parameters for block in found) == count_parameters(catalogue_layers(name))


def test_frozen_layers_keep_nothing_below_the_first_that_is_trained() -> None:
    model = catalogue_layers("resnet50")
    fixed = tuple(name for name in parameter_names(model) if not name.startswith(("layers.12", "layers.17")))
    found = blocks("resnet50", EAGER, untrained=fixed)
    first = next(place for place, block in enumerate(found) if block.backward)
    assert found[first].name.startswith("12.") and not any(block.kept_bytes for block in found[:first])
    assert all(block.kept_bytes == sum(n.freed_bytes for n in block.backward) for block in found)
    trained = sum(block.trained[0] for block in found)
    assert trained == sum(block.parameters for block in found if block.name.startswith(("12.", "17.")))


def test_channels_first_are_brought_into_order_around_each_convolution() -> None:
    first = {"base": "pytorch-ddp", "convolution_layout": "channels_first"}
    orders = [k for k in kernels(blocks(layered(RESIDUAL), first), "forward") if k.name.endswith("layout")]
    tensors = 2 * SAMPLES * 8 * 256 + 8 * 8 * 9
    assert [k.read_bytes for k in orders] == [k.write_bytes for k in orders] == [2 * tensors] * 2
    assert not any(
        "layout" in k.name for k in kernels(blocks(layered(RESIDUAL), first, precision="fp32"), "forward")
    )


def test_gradients_that_come_back_on_two_ways_are_added() -> None:
    size = SAMPLES * 8 * 256 * 2
    side = {"type": "side", "layers": [conv(4, 1), {"type": "loss"}]}
    found = blocks(layered([conv(8), side, {"type": "loss"}]))
    added = named(found, "1.gradient_sum")
    assert (added.read_bytes, added.write_bytes) == (2 * size, size)
    # Of an image, nobody wants the gradient.
    below = kernels(blocks(layered([side, *RESIDUAL])), "backward")
    assert not any(kernel.name == "0.gradient_sum" for kernel in below)


def test_channels_side_by_side() -> None:
    inner = {"type": "block", "layers": [conv(24)], "shortcut": [], "join": "concatenate"}
    model = scenario(layered([inner, conv(4, 1), {"type": "loss"}])).model
    assert isinstance(model, LayerListSpec)
    assert placed_layers(model)[0].gives.channels == 24 + 8
    assert count_parameters(model) == 9 * 8 * 24 + 32 * 4


def test_squeeze_and_excitation() -> None:
    """What is scaled is read again for the gradient of what scales it; it is kept once."""
    size = SAMPLES * 8 * 256 * 2
    squeeze = [
        {"type": "pooling", "function": "mean"},
        conv(8, 1),
        {"type": "activation", "function": "sigmoid"},
    ]
    excited = {"type": "block", "layers": squeeze, "shortcut": [], "join": "scale"}
    found = blocks(layered([conv(8), excited, conv(4, 1), {"type": "loss"}]))
    scaled, back = named(found, "1.scale"), named(found, "1.scale.gradient")
    assert (scaled.read_bytes, scaled.write_bytes) == (size, size)
    assert (back.read_bytes, back.write_bytes) == (3 * size, size)
    kept = {block.name: block.kept_bytes for block in found}
    assert kept["1.scale"] == kept["2.convolution"] == kept["0.convolution"] == size
    assert all(block.kept_bytes == sum(node.freed_bytes for node in block.backward) for block in found)


# Whole steps.


@pytest.mark.parametrize(
    "layers",
    [
        RESIDUAL,
        [
            conv(8),
            {"type": "norm", "norm": "batchnorm", "synchronized": True},
            RELU,
            conv(4, 1),
            {"type": "loss"},
        ],
        [
            conv(8, dilation=2),
            {"type": "block", "repeat": 3, "layers": [conv(8, groups=8), {"type": "mask"}], "shortcut": []},
            {"type": "dropout"},
            {"type": "pooling", "kernel_size": 2},
            {"type": "upsampling"},
            {"type": "side", "layers": [conv(4), {"type": "loss", "function": "smooth_l1"}]},
            {"type": "loss", "function": "ctc"},
        ],
        [
            {"type": "pooling", "output_size": [1, 16]},
            conv(8, kernel_size=[1, 1], padding=0),
            {"type": "linear", "in_features": 128, "out_features": 12},
            {"type": "lstm", "hidden_size": 8, "num_layers": 2, "bidirectional": True},
            {"type": "gru", "hidden_size": 8},
            {"type": "loss", "function": "transducer"},
        ],
    ],
    ids=["residual", "synchronized", "everything", "recurrent"],
)
@pytest.mark.parametrize("software", ["oneflow", "pytorch-ddp"])
def test_steps_obey_the_laws_and_fold(layers: Layers, software: str) -> None:
    outcome = run(scenario(layered(layers), software))
    assert_obeys_laws(outcome)
    assert_folds(outcome.lowered)


def test_synchronized_norms_exchange_two_sums_a_channel() -> None:
    layers: Layers = [conv(8), {**NORM, "synchronized": True}, conv(4, 1), {"type": "loss"}]
    program = run(scenario(layered(layers))).lowered.program
    names = [label.name for label in program.classes.labels]
    assert {"1.norm.all_reduce", "1.norm.gradient.all_reduce"} <= set(names)


def test_activations_are_most_of_the_memory_and_grow_with_the_batch() -> None:
    peaks = [
        run(scenario("resnet50", EAGER, micro_batch_size=n, global_batch_size=2 * n)).result.memory_by_part
        for n in (32, 64)
    ]
    one, two = (parts["activations"] for parts in peaks)
    assert two == pytest.approx(2 * one, rel=0.01)
    # Of each convolution what it reads and what it gives to a norm, in 16 bits, and little else.
    found = leaves(placed_layers(catalogue_layers("resnet50")))
    outputs = sum(
        prod((i.gives.channels, *i.gives.positions)) for i in found if i.name.endswith("convolution")
    )
    assert 1.7 * outputs * 2 < one / 32 < 2.2 * outputs * 2


# What is refused.


@pytest.mark.parametrize("key", ["tensor_parallel", "pipeline_parallel", "context_parallel"])
def test_only_the_batch_is_split(key: str) -> None:
    mapping = scenario("resnet50").model_dump(mode="json") | {"parallelism": {key: 2}}
    with pytest.raises((UnsupportedError, ScenarioError), match="data-parallel only"):
        run(scenario_from_mapping(mapping))


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            [{"type": "block", "layers": [conv(8, stride=2)], "shortcut": []}],
            "model.layers.0.shortcut: block 0: its layers give 8 x 8 x 8 = 512, its shortcut 8 x 16 x 16",
        ),
        (
            [
                {
                    "type": "block",
                    "repeat": 2,
                    "layers": [{"type": "block", "layers": [conv(8, in_channels=9)]}],
                }
            ],
            "model.layers.0.layers.0.layers.0.in_channels: layer 0.0.0.0 (convolution) takes 9 channels",
        ),
        ([{"type": "side", "layers": [conv(8)]}], "must end in a loss"),
        ([{"type": "block", "layers": [conv(8)], "join": "concatenate"}], "does nothing without a shortcut"),
        ([{"type": "block", "repeat": 30_000, "layers": [conv(8)]}], "more than 20,000 layers"),
        ([conv(8, 33, padding=0)], "has a kernel of 33 that does not fit an input of 16 + 2 x 0"),
        ([conv(9, groups=4)], "has 4 groups, which do not divide out_channels 9"),
        ([{"type": "norm", "norm": "layernorm", "synchronized": True}], "does nothing for layernorm"),
        ([{"type": "convolution", "out_channels": 8, "kernel_size": [3, 3, 3]}], "3 dimensions"),
        ([{"type": "linear", "in_features": 8, "out_features": 4}, conv(4, input_size=5)], "4 x 5 x 5 = 100"),
        ([{"type": "pooling", "kernel_size": 2, "output_size": 2}], "both kernel_size and output_size"),
        ([{"type": "pooling", "stride": 2}], "has a stride without kernel_size"),
        ([conv(8), {"type": "input", "shape": [8]}], "can only be the first of a shortcut"),
        ([{"type": "block", "layers": [conv(8)], "shortcut": [], "join": "scale"}], "what scales has one"),
        ([{"type": "lstm", "hidden_size": 8}], "takes one sequence of positions, but the input gives 8 x 16"),
        ([{"type": "stack", "factor": 17}], "cannot stack 17 x 17 positions of 8 x 16 x 16"),
    ],
)
def test_what_does_not_fit_is_told_where_it_stands(layers: Layers, said: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario(layered(layers))
    assert said in str(refused.value)


CONV, POOL = conv(8), {"type": "pooling", "kernel_size": 2}
WAYS = {"type": "block", "layers": [conv(8)], "shortcut": [conv(8, 1)]}
LSTM = {"type": "lstm", "hidden_size": 8}


@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        (CONV, {"out_channels": 9}),
        (CONV, {"kernel_size": 5}),
        (CONV, {"stride": 2}),
        (CONV, {"padding": 2}),
        (CONV, {"dilation": 2}),
        (CONV, {"groups": 2}),
        (conv(8, stride=2), {"transposed": True}),
        (CONV, {"bias": True}),
        (POOL, {"kernel_size": 3}),
        (POOL, {"stride": 1}),
        (POOL, {"padding": 1}),
        (POOL, {"function": "mean"}),
        ({"type": "pooling"}, {"output_size": 2}),
        ({"type": "upsampling"}, {"factor": 3}),
        ({"type": "stack"}, {"factor": 4}),
        ({"type": "norm", "norm": "batchnorm"}, {"norm": "layernorm"}),
        ({"type": "norm", "norm": "batchnorm"}, {"synchronized": True}),
        ({"type": "activation"}, {"function": "gelu"}),
        (WAYS, {"repeat": 2}),
        (WAYS, {"shortcut": []}),
        (WAYS, {"join": "concatenate"}),
        ({**WAYS, "repeat": 2}, {"dense": True}),
        (LSTM, {"hidden_size": 16}),
        (LSTM, {"num_layers": 2}),
        (LSTM, {"bidirectional": True}),
        (LSTM, {"type": "gru"}),
    ],
    ids=str,
)
def test_every_key_of_a_layer_counts(layer: dict[str, Any], changes: dict[str, Any]) -> None:
    side = [16] if layer["type"] == "lstm" else [16, 16]

    def told(each: dict[str, Any]) -> list[tuple[int, int, int, int]]:
        # The product behind it sees the shape that it gives.
        ends = conv(8, kernel_size=1, padding=0)
        found = blocks(layered([ends, each, ends, {"type": "loss"}], input=[8, *side]))
        work = [k for way in ("forward", "backward") for k in kernels(found, way)]
        met = sum(len(block.forward) + len(block.backward) for block in found)
        return [(k.flops, k.read_bytes, k.write_bytes, met) for k in work]

    assert told(layer) != told(layer | changes)


def test_nothing_says_what_the_first_layer_takes() -> None:
    with pytest.raises(ScenarioError, match="in_channels and input_size, or give the input of the model"):
        scenario({"name": "list", "layers": [conv(8), {"type": "loss"}]})
