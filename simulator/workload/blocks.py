"""Blocks: the forward and backward pass of one layer as a short list of kernels and communications."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil
from typing import Final

from simulator.specs.software import SoftwareSpec
from simulator.workload.kernels import Communication, Kernel
from simulator.workload.precision import FORMATS, RECIPES, Format, matrix_precision, sized

BYTES_PER_ELEMENT = {"fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1, "fp4": 1}
"""Bytes that one stored element takes, by precision of the arithmetic (tf32 is stored as fp32)."""


BLOCKS_KNOWN: Final = 256
"""Blocks of which the process remembers what follows from them."""

STANDARD = SoftwareSpec(name="standard")
"""Every mechanism at its default: fused kernels, communication beside compute."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One GPU's part of one micro-batch.

    Attributes:
        micro_batch_size: Sequences (samples) in the micro-batch.
        sequence_length: Tokens in a sequence.
        tensor_parallel: GPUs that each matrix is split over.
        sequence_parallel: Whether what lies between the matrices is split along the sequence.
        precision: Precision of the arithmetic.
        attention: ``fused`` or ``unfused``.
        gradient_bytes: Bytes of one accumulated gradient.
        weights: Precision in which weights are there when a pass begins; that which it reads if empty.
        one_layout: Whether products read operands in fp8 by rows and by columns alike.
        weights_stay: Whether whole weights stay on the GPU between passes, with what products read of them.
        matrix_gradient: Precision of accumulated gradients of the layers' matrices, if that has fewer bits.
        dropout: Whether residuals and attention weights are dropped out, with a byte of mask an element.
        software: Which kernels are fused, and what runs beside what.
        recipe: How the layers' matrices are multiplied in fewer bits; empty for not.
        context_parallel: GPUs that each sequence is split over.
        context_method: ``ring``, ``all_to_all`` or ``all_gather``.
        expert_parallel: GPUs that the experts are spread over.
        expert_tensor_parallel: GPUs that each expert is split over.
        expert_load: Slots of the busiest GPU's experts over the mean that an even spread would bring.
        expert_capacity: Whether every expert has a fixed number of slots.
        dispatch: Precision of tokens on their way to their experts; that of the passes if empty.
        combine: The same on their way back.
        tensor: Precision in which tensor-parallel GPUs gather operands; that of their products if empty.
        activation_input: Precision in which the input of an MLP's activation is kept; that of the passes if
            empty.
        lora_rank: Rank of the adapters beside frozen matrices; 0 where everything is trained.
        lora_targets: Matrices, or modules of them, that have an adapter.
        lora_modules: Modules of each matrix, which can have adapters of their own, and their parts of it.
        frozen: Operators whose parameters are not trained.
        source_frozen: Whether nothing of the encoder whose output this decoder attends to is trained.
        source_length: Tokens in a sequence of the encoder whose output this decoder attends to; 0 for none.
        predicted_share: Share of an encoder's positions that its head works on.
    """

    micro_batch_size: int
    sequence_length: int
    tensor_parallel: int
    sequence_parallel: bool
    precision: str
    attention: str
    gradient_bytes: int
    dropout: bool = False
    software: SoftwareSpec = field(default=STANDARD, hash=False)
    recipe: str = ""
    context_parallel: int = 1
    context_method: str = "ring"
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    expert_load: float = 1.0
    expert_capacity: bool = False
    dispatch: str = ""
    combine: str = ""
    tensor: str = ""
    activation_input: str = ""
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = ()
    lora_modules: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    frozen: frozenset[str] = frozenset()
    source_frozen: bool = False
    source_length: int = 0
    predicted_share: float = 1.0
    matrix_gradient: str = ""
    weights: str = ""
    weights_stay: bool = True
    one_layout: bool = False

    def trains(self, name: str) -> bool:
        """Whether the parameters of an operator are trained."""
        return not self.lora_rank and name not in self.frozen

    @property
    def tokens(self) -> int:
        """Tokens of the micro-batch that this GPU's tensor-parallel group works on."""
        return self.micro_batch_size * self.sequence_length // self.context_parallel

    @property
    def casts(self) -> bool:
        """Whether operands of the layers' matrices are cast to fewer bits."""
        return self.recipe in RECIPES

    @property
    def matrix_precision(self) -> str:
        """Precision of the layers' matrix products."""
        return matrix_precision(self.recipe) if self.casts else self.precision

    @property
    def operand(self) -> Format:
        """How an input of a layer's matrix is kept."""
        return FORMATS[self.recipe if self.casts else self.precision]

    @property
    def layouts(self) -> int:
        """Layouts in which the layers' products want operands: by rows and, for gradients, by columns."""
        return 1 if self.one_layout and not self.operand.block else 2

    def operand_bytes(self, elements: int) -> int:
        """Bytes of so many numbers of an input of a layer's matrix as it is kept."""
        return sized(elements, self.operand.number_bytes)

    @property
    def element_bytes(self) -> int:
        """Bytes of one activation."""
        return BYTES_PER_ELEMENT[self.precision]

    @property
    def residual_tokens(self) -> int:
        """Tokens of the residual stream that this GPU holds."""
        return self.tokens // (self.tensor_parallel if self.sequence_parallel else 1)

    def predicted(self, tokens: int) -> int:
        """Of so many tokens of this GPU, those that head and loss work on."""
        return tokens if self.predicted_share == 1.0 else ceil(tokens * self.predicted_share)

    @property
    def source_tokens(self) -> int:
        """Tokens of the encoder's output that this GPU's tensor-parallel group attends to."""
        return self.micro_batch_size * self.source_length // self.context_parallel

    def calls(self, batch: int) -> int:
        """Launches of a product, or of a cast before it, for as many experts."""
        return batch if self.software.grouped_products == "one_each" else 1

    def called(self, product: Kernel, batch: int) -> Kernel:
        """A product of as many experts' weights with its launches, of which compiled code makes all but one.

        Weights of fewer bits are objects of the interpreter, which looks up each; so are gradients, which
        autograd and the hooks of the data parallelism hand on one by one.

        Source: ``te_general_grouped_gemm`` loops over the experts; ``get_weight_workspace`` for each weight
            (pytorch/module/grouped_linear.py and base.py of Transformer Engine).
        """
        launches = self.calls(batch)
        return replace(product, launches=launches, looped=0 if self.casts else launches - 1)

    @property
    def residual_source_tokens(self) -> int:
        """Tokens of it that this GPU holds."""
        return self.source_tokens // (self.tensor_parallel if self.sequence_parallel else 1)


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a pass.

    Attributes:
        op: What is done.
        after: Earlier nodes of the same pass that must have ended; besides, nodes of one stream run in order.
        kept_bytes: Activations that come to stay until the backward pass [B].
        freed_bytes: Kept activations that the end of this node releases [B].
        role: ``weight_gradient`` is what no other node of the pass waits for, ``recompute`` what a backward
            pass does again of the forward pass.
        held_bytes: What a weight gradient that is put off must keep: its inputs [B].
        kept_input: Of `kept_bytes`, its own input [B].
        kept_output: Of `kept_bytes`, an output that others need: it stays though this is computed again [B].
        modules: What recomputation may choose (``layernorm:mlp`` is one of several ``layernorm``): of a
            forward pass what the node belongs to, of a backward pass what it is the first to need.
        read_by_host: Whether the launching thread waits for the result before it goes on.
    """

    op: Kernel | Communication
    after: tuple[int, ...] = ()
    kept_bytes: int = 0
    freed_bytes: int = 0
    role: str = ""
    held_bytes: int = 0
    kept_input: int = 0
    kept_output: int = 0
    modules: tuple[str, ...] = ()
    read_by_host: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A layer, the embedding or the head, as one GPU sees it.

    Equal layers of a model are one object, so what follows from a block is worked out once an object.

    Attributes:
        name: Such as ``layer``, ``embedding``, ``head``.
        forward: Nodes of the forward pass.
        backward: Nodes of the backward pass.
        parameters: Parameters that this GPU holds of it.
        input_bytes: Its input on this GPU, which full recomputation keeps in place of all else [B].
        sequential_parameters: Of `parameters`, those that tensor parallelism replicates.
        expert_parameters: Of `parameters`, those of routed experts, which other replicas may hold others of.
        frozen_parameters: Of `parameters`, those that are not trained.
        frozen_experts: Of them, those of routed experts.
        matrices: Of `parameters`, those of matrices that the layers' products read, but for routed experts;
            those of these.
        trained_matrices: Of them, those that are trained.
        read_parameters: Parameters of another block that this one reads (a head that shares the embedding).
        carried_bytes: Gradients that pass through its backward pass besides that of its input: those of what
            all layers of a stack read (an encoder's output, a bias of positions) [B].
        teacher: Whether it is a teacher's, which is never trained and stands in no checkpoint.
    """

    name: str
    forward: tuple[Node, ...]
    backward: tuple[Node, ...]
    parameters: int
    input_bytes: int
    sequential_parameters: int = 0
    expert_parameters: int = 0
    frozen_parameters: int = 0
    frozen_experts: int = 0
    read_parameters: int = 0
    carried_bytes: int = 0
    teacher: bool = False
    matrices: tuple[int, int] = (0, 0)
    trained_matrices: tuple[int, int] = (0, 0)

    @property
    def trained(self) -> tuple[int, int]:
        """Trained parameters that all replicas hold, and those of routed experts."""
        experts = self.expert_parameters - self.frozen_experts
        return self.parameters - self.frozen_parameters - experts, experts

    @property
    def kept_bytes(self) -> int:
        """Activations that the forward pass keeps for the backward pass [B]."""
        return _kept_bytes(self)


@lru_cache(maxsize=BLOCKS_KNOWN)
def _kept_bytes(block: Block) -> int:
    return sum(node.kept_bytes for node in block.forward)


@dataclass(slots=True)
class PassBuilder:
    """Collects the nodes of one pass; a node follows the one before it unless told otherwise.

    What runs beside the next product is no such node; `join` makes what follows wait for it, too.
    """

    nodes: list[Node] = field(default_factory=list)
    last: int = -1
    beside: tuple[int, ...] = ()
    joined: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    @contextmanager
    def of(self, *modules: str) -> Iterator[None]:
        """What is added inside belongs to these modules, too."""
        before = self.modules
        self.modules = (*before, *modules)
        yield
        self.modules = before

    def needs(self, *modules: str) -> None:
        """The next node of this backward pass is the first that needs these modules."""
        self.needed += modules

    def add_beside(self, op: Communication) -> None:
        """Appends what runs beside all that is added until `join`."""
        before = self.last
        self.beside += (self.add(op),)
        self.last = before

    def join(self) -> None:
        """The next node waits for what has run beside."""
        self.joined += self.beside
        self.beside = ()

    def add(
        self,
        op: Kernel | Communication | None,
        *,
        after: tuple[int, ...] | None = None,
        kept: int = 0,
        freed: int = 0,
        role: str = "",
        held: int = 0,
        kept_input: int = 0,
        kept_output: int = 0,
        read_by_host: bool = False,
    ) -> int:
        """Appends a node and returns its index; `None` appends nothing and returns the last index."""
        if op is None:
            return self.last
        previous = (self.last,) if self.last >= 0 else ()
        before, modules = previous if after is None else after, (*self.modules, *self.needed)
        before, self.joined = (*before, *self.joined), ()
        self.nodes.append(
            Node(op, before, kept, freed, role, held, kept_input, kept_output, modules, read_by_host)
        )
        self.needed, self.last = (), len(self.nodes) - 1
        return self.last

    def done(self) -> tuple[Node, ...]:
        """The finished pass."""
        return tuple(self.nodes)
