"""How the model is trained and laid out: batches, precision, optimizer, parallelism, data, checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from simulator.specs._base import Bytes, Count, CountOrZero, PositiveFraction, Seconds, Spec
from simulator.specs.precision import (
    CommunicationPrecision,
    CommunicationPrecisionSpec,
    OptimizerPrecision,
    OptimizerPrecisionSpec,
    StoredPrecision,
    TrainingPrecision,
)
from simulator.specs.uncertainty import JitterSpec

Optimizer = Literal[
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "adam_8bit",
    "adafactor",
    "lamb",
    "lion",
    "muon",
]
Recompute = Literal["none", "selective", "full"]
RecomputeModule = Literal[
    "core_attention", "layernorm", "mla_up_projection", "mlp", "moe", "moe_activation", "shared_experts"
]
Sharding = Literal["none", "optimizer", "gradients", "parameters"]
PipelineSchedule = Literal[
    "gpipe", "1f1b", "interleaved_1f1b", "zb-1p", "zb-2p", "zb-v", "dualpipe", "dualpipe-v"
]
Axis = Literal["tensor", "context", "data", "pipeline"]
LoraTarget = Literal[
    "attention.qkv",
    "attention.output",
    "mlp.up",
    "mlp.down",
    "experts.up",
    "experts.down",
    "shared.up",
    "shared.down",
    "router",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "q_a_proj",
    "q_b_proj",
    "kv_a_proj_with_mqa",
    "kv_b_proj",
    "all-linear",
]
Place = Literal["host", "nvme"]


class OffloadSpec(Spec):
    """What lies in host memory, or on the node's drives, instead of device memory."""

    activations: Place | None = None
    """Where what layers keep for their backward passes waits for them; on the GPU if not given."""
    activation_layers: Count | None = None
    """First layers of each stage (or chunk of it) whose activations go there; all if not given."""
    parameters: Place | None = None
    """Where the passes' parameters lie; they come layer by layer, `parallelism.gather_prefetch` ahead. A
    teacher's stay on the GPU."""
    gradients: Literal["host"] | None = None
    """Where gradients are accumulated; they leave the GPU as the backward pass completes them."""
    optimizer: Place | None = None
    """Where the optimizer's state lies, fp32 copies of the parameters included."""
    optimizer_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Part of the optimizer's state that lies there; the rest is kept and updated on the GPU."""
    optimizer_step: Literal["host", "gpu"] = "host"
    """Who updates what lies there: the host's cores, or the GPU, through which its state passes then."""


class TrainingSpec(Spec):
    """Batches, precision, optimizer, steps."""

    sequence_length: Count = 1
    """Tokens in one sample; 1 for a model without a sequence. Of an encoder-decoder, those of the encoder."""
    decoder_sequence_length: Count | None = None
    """Tokens of the decoder of an encoder-decoder in one sample."""
    micro_batch_size: Count
    """Sequences that one replica processes at once."""
    global_batch_size: Count
    """Sequences between two updates of the parameters, all replicas together."""
    precision: TrainingPrecision = "bf16"
    """Precision of forward and backward passes. With `fp8` (one scale a tensor, which earlier steps say),
    `fp8_current` (its own largest number says it), `fp8_block` (one a block), `mxfp8` and `nvfp4` only the
    layers' matrix products have fewer bits; all else is in bf16."""
    parameter_precision: StoredPrecision | None = None
    """Precision in which parameters are kept and gathered; that of the passes if not given. Below 16 bits it
    is that of the layers' matrices alone, which are cast once, behind the update; it must be `precision`."""
    master_parameters: bool | None = None
    """Whether the optimizer keeps copies of parameters in 16 bits or fewer; yes if not given."""
    optimizer_precision: OptimizerPrecision = OptimizerPrecisionSpec()
    """Precision of the optimizer's moments, or a mapping."""
    communication_precision: CommunicationPrecision = CommunicationPrecisionSpec()
    """Precision in which gradients are reduced, or a mapping of what travels."""
    lora_rank: CountOrZero = 0
    """Rank of low-rank adapters beside frozen matrices; 0 trains all parameters."""
    lora_targets: tuple[LoraTarget, ...] = ("attention.qkv", "attention.output", "mlp.up", "mlp.down")
    """Matrices that have an adapter; with latent attention, `attention.qkv` are all that make queries, keys
    and values; `experts` are routed, `shared` those that every token visits. Or modules of them, as PEFT's
    `target_modules` calls them, each with an adapter of its own (`gate_proj`, `up_proj` and `down_proj` of
    MLPs and experts alike); `all-linear` are all in the layers."""
    frozen_layers: CountOrZero = 0
    """First layers that are not trained, with the embedding before them; adapters stand above them only.
    `frozen` names anything else."""
    frozen: tuple[str, ...] = ()
    """Parameters that are not trained, by name: `embedding`, `layers.0-15` and all below them,
    `*.attention.*`, `*.mlp.down`, `head`; of an encoder-decoder `encoder`, `decoder.layers.0`. `*` stands for
    any characters."""
    optimizer: Optimizer = "adamw"
    """Update rule."""
    gradient_precision: StoredPrecision | None = None
    """Precision in which gradients are accumulated and reduced; the software's if not given. Below 16 bits it
    is that of the layers' matrices alone."""
    activation_input_precision: StoredPrecision | None = None
    """Precision in which the input of an MLP's activation function is kept for the backward pass; that of the
    passes if not given."""
    recompute: Recompute = "none"
    """Activations computed again in the backward pass: none, those of some modules, or of whole layers."""
    recompute_modules: tuple[RecomputeModule, ...] | None = None
    """Modules that `recompute: selective` is for; `core_attention` if not given. `layernorm`: the norms of
    the residual stream; `mla_up_projection`: queries, keys and values from latent vectors, with their norms;
    `mlp`: the dense MLP with its norm; `moe`: router, exchanges and experts; `moe_activation`: the activation
    function of routed experts; `shared_experts`."""
    recompute_num_layers: Count | None = None
    """Layers of each stage (or chunk of it) that `recompute: full` is for; all of them if not given."""
    recompute_method: Literal["block", "uniform"] | None = None
    """Which layers: `block`, the first so many, as if not given; `uniform`, all, in groups of so many that
    keep the input of their first."""
    attention: Literal["fused", "unfused"] | None = None
    """`fused` (FlashAttention: scores never reach memory) or `unfused` (scores are written and kept); the
    software's if not given."""
    dropout: bool | None = None
    """Whether residuals and attention weights are dropped out, which costs traffic and masks; if not given,
    the software's default for models without a gated MLP (GPT, BERT), no for others (Llama)."""
    predicted_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of an encoder's positions whose tokens it predicts, where head and loss work on those alone
    (masked language modelling); 1 if they work on all positions."""
    offload: OffloadSpec = OffloadSpec()
    """What lies in host memory or on drives."""
    gradient_clipping: bool = True
    """Whether the norm of all gradients is taken before the update."""
    steps: Count = 1
    """Steps that are measured."""


class ParallelismSpec(Spec):
    """How the model and the batch are split over the GPUs."""

    tensor_parallel: Count = 1
    """GPUs that each matrix is split over."""
    sequence_parallel: bool = False
    """Whether norms and dropout are split along the sequence in the tensor-parallel group."""
    pipeline_parallel: Count = 1
    """Stages that the layers are split into."""
    encoder_pipeline_parallel: Count | None = None
    """Of them, stages that hold the layers of an encoder-decoder's encoder, the others those of its decoder;
    if not given, all layers are split as evenly as they go."""
    virtual_pipeline: Count = 1
    """Model chunks per stage (interleaved schedule)."""
    pipeline_schedule: PipelineSchedule | None = None
    """Order of passes; follows from `virtual_pipeline` if not given."""
    pipeline_order: tuple[str, ...] | None = None
    """One's own order, a line a stage: `F0 F1 B0 B1`; `I`, `W` are the halves of `B`, `F0.1` is chunk 1.
    `pipeline_schedule` then only says where the chunks lie. It may stand in a file that is included."""
    pipeline_layers: tuple[CountOrZero, ...] | None = None
    """Layers of each part (stage, or chunk of it) in the model's order; as even as they go if not given."""
    overlap_point_to_point: bool | None = None
    """Whether a stage computes on while it sends to its neighbours."""
    optimizer_post_validation: bool = False
    """Whether stages of a pipeline update their parameters before all have met: the norm that clips is looked
    at afterwards, an update taken back where it should have clipped. Steps of the stages then overlap."""
    context_parallel: Count = 1
    """GPUs that each sequence is split over."""
    context_parallel_method: Literal["ring", "all_to_all", "all_gather"] = "ring"
    """How their attention meets: keys go round, heads are split instead, or keys are gathered."""
    expert_parallel: Count = 1
    """GPUs that the experts are spread over. Those of a stage (tensor x context x data) are
    `expert_tensor_parallel` x `expert_parallel` x copies of the experts."""
    expert_tensor_parallel: Count | None = None
    """GPUs that each expert is split over, whatever the other layers' `tensor_parallel`, which it is if not
    given."""
    expert_capacity_factor: PositiveFraction | None = None
    """Slots of an expert over the mean of its tokens; tokens beyond are dropped. No limit if not given."""
    overlap_expert_exchange: bool | None = None
    """Whether a forward and a backward pass run side by side to hide exchanges; if not given, where the
    schedule is made for it (DualPipe)."""
    expert_imbalance: PositiveFraction = 1.0
    """Tokens of the busiest GPU's experts over the mean, 1 or more, where there is no capacity factor."""
    data_parallel: Count | None = None
    """Replicas; what is left of the GPUs if not given."""
    data_parallel_sharding: Sharding = "none"
    """What replicas share out instead of keeping whole: ZeRO-1, 2, 3 are optimizer, gradients, parameters."""
    sharding_group_size: Count | None = None
    """Replicas that share out one copy of it (HSDP); all of them if not given."""
    reshard_after_forward: bool = True
    """Whether gathered parameters are let go behind the forward pass and gathered again for the backward."""
    gather_prefetch: CountOrZero = 1
    """Layers whose sharded parameters are gathered ahead of the one that is computed."""
    gather_prefetch_backward: CountOrZero | None = None
    """The same in backward passes; as in forward passes if not given."""
    reduce_each_micro_batch: bool | None = None
    """Whether gradients are reduced after each micro-batch, not only the last; so if they are sharded."""
    gradient_bucket: Bytes | None = None
    """Gradients reduced together; if not given, 40 million, or a million a replica where that is more."""
    overlap_gradient_reduction: bool | None = None
    """Whether gradients are reduced while the backward pass goes on; as the software does if not given."""
    order: tuple[Axis, ...] = ("tensor", "context", "data", "pipeline")
    """How ranks are numbered: the first axis has its members next to one another, in one node if they fit."""


class DataSpec(Spec):
    """Where samples come from."""

    sample_size: Bytes
    """Bytes read from storage for one sample (sequence)."""
    samples_per_file: Count = 1
    """Samples in one file; each file costs one request."""
    read_size: Bytes | None = None
    """Bytes of one read request; the whole file if not given."""
    decode_time: Seconds | None = None
    """CPU time to decode one sample on one core; none if not given."""
    loader_workers: Count = 4
    """Loader processes per GPU, each on one core."""
    prefetch: CountOrZero = 2
    """Global batches read ahead of the step that uses them."""


class CheckpointSpec(Spec):
    """A checkpoint of parameters and optimizer state, each written once."""

    interval: Count
    """Steps between checkpoints."""
    asynchronous: bool = False
    """Whether training goes on once the state is in the host's memory, while it is written; if not given, it
    waits until all is written."""


class SimulationSpec(Spec):
    """How the simulation is run; no figure of the system."""

    player: Literal["auto", "reference", "compiled"] = "auto"
    """Which player runs the program."""
    seed: CountOrZero = 0
    """Seed of everything random."""
    calibration: str = "shared"
    """Constants of the cost models: a name from the catalogue, or the path of a calibration file."""
    warmup_steps: CountOrZero | None = None
    """Steps before the measured ones; if not given, one where samples are loaded, else none."""
    fold: Literal["auto", "off"] = "auto"
    """Whether ranks that do the same at the same time are simulated once (`auto`) or each by itself."""
    jitter: JitterSpec | None = None
    """How much times vary from replica to replica."""
    seeds: Annotated[Count, Field(le=100_000)] = 1
    """Monte Carlo draws of what is random."""
    max_memory: Bytes | None = None
    """Memory that the simulation itself may take; what the machine has free if not given."""
