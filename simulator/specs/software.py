"""The training framework as a set of mechanisms: what it fuses, what it overlaps, how it launches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simulator.specs._base import Bytes, Count, Spec
from simulator.specs.figures import Figure

NormKernel = Literal["single_pass", "fused", "separate"]
"""``single_pass``: one read of its operands backward; ``fused``: one kernel forward, two passes backward;
``separate``: one kernel an arithmetic step."""

ExpertDispatch = Literal["all_to_all", "deduplicated"]
"""``all_to_all``: every copy of a token travels to its expert on its own; ``deduplicated``: a token travels
to each node once, by the rank of the same place, and from there to each rank once over the scale-up links; on
the way back, results are summed where it was passed on."""

Launcher = Literal["python", "native"]
"""Who launches kernels: an interpreter, operator by operator, or compiled code."""


RecordedPart = Literal["attention", "router"]
"""Parts of a layer that frameworks record by themselves."""

Allocator = Literal["caching", "planned"]
"""``caching``: blocks are kept and handed out again by size; ``planned``: every tensor's place is laid down
before the first step, and chains of operations work in place."""


class SoftwareSpec(Spec):
    """A framework's mechanisms; each changes traffic, launches or order, none is an efficiency."""

    name: str
    """Name, as shown in reports."""
    attention: Literal["fused", "unfused"] = "fused"
    """Attention where `training.attention` does not say."""
    attention_generation: Literal["first", "second", "native"] = "native"
    """Kernels of fused attention: `first` (FlashAttention), `second` (FlashAttention-2, in instructions that
    every GPU since 2020 has), or written for the accelerator."""
    dropout: bool = False
    """Whether models without a gated MLP (GPT, BERT) are trained with dropout where training does not say."""
    fused_linear_bias: bool = True
    """Biases are added, and their gradients summed, inside the matrix products."""
    fused_activation: bool = True
    """Bias and activation, or gate and activation, are one kernel."""
    fused_norm_activation: bool = True
    """A batch norm, the sum of a residual block behind it and a ReLU are one kernel, in models given layer by
    layer."""
    fused_norm_statistics: bool = False
    """A convolution on the matrix units sums the statistics of the batch norm behind it while it writes its
    output, in models given layer by layer."""
    depthwise_kernels: Literal["tuned", "direct"] = "tuned"
    """Depthwise convolutions as a library tunes them, or as loops over the kernel for each output (`direct`),
    which compute addresses and bounds for every multiply-add."""
    convolution_layout: Literal["channels_last", "channels_first"] = "channels_last"
    """Order of tensors in memory; where channels come first, the library brings what convolutions on the
    matrix units read and write into the other order, and back."""
    fused_dropout_residual: bool = True
    """Bias, dropout and residual are one kernel."""
    norm: NormKernel = "single_pass"
    """How norms are computed."""
    fused_softmax: bool = True
    """Scale, mask and softmax of unfused attention are one kernel."""
    fused_softmax_multiple: Count = 1
    """That kernel takes the scores of so many heads and sequences at a time, or multiples of it; others are
    masked and normalised in fp32, between conversions."""
    fused_softmax_keys: Count | None = None
    """Most keys that it takes; any number if not given."""
    transposed_heads: bool = False
    """Kernels of their own bring queries, keys and values of unfused attention head by head into memory, and
    the gradient of what the heads make of them; else products read them where they are."""
    fused_rotary: bool = True
    """Rotary positions are one kernel."""
    fused_cross_entropy: bool = True
    """The loss reads the logits once and leaves their gradient in place; else a chain of fp32 kernels."""
    loss_chunks: Count = 1
    """Parts of the logits that a fused loss converts to fp32, one after the other."""
    fused_gradient_accumulation: bool = True
    """Weight gradients are added to the accumulated ones by the matrix product itself."""
    gradients: Literal["fp32", "passes", "added_in_fp32"] = "fp32"
    """Precision of accumulated gradients where training does not say: `fp32`, or that of the passes, which
    bf16 is too coarse for (fp32 then); `added_in_fp32`: the latter unless several micro-batches are added."""
    reductions_in_flight: Count = 2
    """Buckets of gradients that are filled or reduced at a time where only a share of them stays: a backward
    pass waits before it fills one more."""
    flat_parameters: bool = False
    """Sharded parameters of a layer are one flat tensor, whose gradient takes in frozen ones."""
    bucket_copies: bool = False
    """Gradients that all replicas keep whole are reduced in buckets that stand beside them, or into
    tensors of their own."""
    flat_gradients: bool = False
    """Where the optimizer's state alone is sharded, gradients are copied side by side to be reduced."""
    gradient_placeholders: bool = False
    """Where the product itself accumulates, autograd is handed an empty tensor of the weight's shape."""
    overlap_gradient_reduction: bool = True
    """Gradients are reduced while the backward pass goes on, where `parallelism` does not say."""
    overlap_tensor_parallel: bool = True
    """Tensor-parallel collectives of the backward pass run beside the gradient that does not need them."""
    pipelined_tensor_parallel: bool = False
    """Products in front of and behind tensor-parallel gathers and reductions work on pieces of the sequence,
    beside the transfers of the others (Userbuffers), where the sequence is split between the matrices."""
    blocking_sends: bool = False
    """Host and compute stream wait for each transfer between pipeline stages."""
    own_transfers: bool = False
    """Stages send by the framework's own transport: there is no communicator along the pipeline."""
    weight_copies: bool = True
    """What products in few bits read of weights besides what is kept (casts, copies by columns) stays from
    step to step; else each pass makes its own."""
    fused_optimizer: bool = True
    """Clipping, update and the passes' copy of the parameters are one kernel; else gradients are unscaled and
    converted, clipped, and parameters copied by kernels of their own."""
    expert_dispatch: ExpertDispatch = "all_to_all"
    """How tokens travel to their experts and back."""
    grouped_products: Literal["one_kernel", "one_each"] = "one_kernel"
    """Products of all experts of a GPU, and the casts before them: one launch, or one an expert."""
    padded_experts: bool = False
    """Tokens of each expert are copied to a number of rows that products in fewer bits can take, and results
    back, unless a capacity fixes it or the dispatcher does so on its way."""
    host_counts_tokens: bool = False
    """The launching thread waits for the numbers of tokens of each expert, unless a capacity fixes them."""
    launcher: Launcher = "python"
    """Who launches kernels."""
    loads_all_kernels: bool = False
    """The code of all kernels lies in device memory from the start, not only of those that are used."""
    allocator: Allocator = "caching"
    """Who places tensors in device memory."""
    pipeline_slots: Count | None = None
    """Micro-batches for whose activations a stage has room from the start, over the number of stages; as many
    as it holds at a time if not given."""
    sharding_buckets: Bytes | None = None
    """Buffer through which sharded gradients and parameters are reduced and gathered, as far as there are so
    many; none if not given."""
    cuda_graphs: bool = False
    """Passes are recorded once and launched as a whole."""
    recorded_parts: tuple[RecordedPart, ...] = ()
    """Parts of a layer that are recorded and launched as one each, where whole passes are not: `attention`
    with its norm, projections and residual; `router` with its norm and the counts of tokens."""
    figures: dict[str, Figure] = Field(default_factory=dict)
    """Source and basis by key; `default` for all others."""
