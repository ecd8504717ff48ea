"""Models as graphs of operators: arithmetic, traffic, parameters and activations; no hardware in sight."""

from simulator.workload.blocks import BYTES_PER_ELEMENT, STANDARD, Block, Node, Shard
from simulator.workload.ends import embedding_block, head_block
from simulator.workload.kernels import (
    AttentionShape,
    Axis,
    Collective,
    Communication,
    Kernel,
    KernelKind,
    MatmulShape,
)
from simulator.workload.layers import layer_list_blocks
from simulator.workload.memory import Transients, largest_transient, placeholder_bytes, transients
from simulator.workload.recompute import RECOMPUTED, modules_of, recomputing
from simulator.workload.state import Parameters, StateBytes, state_bytes
from simulator.workload.transformer import layer_block
from simulator.workload.update import copied_weights, quantized_weights, update_kernels

__all__ = [
    "BYTES_PER_ELEMENT",
    "RECOMPUTED",
    "STANDARD",
    "AttentionShape",
    "Axis",
    "Block",
    "Collective",
    "Communication",
    "Kernel",
    "KernelKind",
    "MatmulShape",
    "Node",
    "Parameters",
    "Shard",
    "StateBytes",
    "Transients",
    "copied_weights",
    "embedding_block",
    "head_block",
    "largest_transient",
    "layer_block",
    "layer_list_blocks",
    "modules_of",
    "placeholder_bytes",
    "quantized_weights",
    "recomputing",
    "state_bytes",
    "transients",
    "update_kernels",
]
