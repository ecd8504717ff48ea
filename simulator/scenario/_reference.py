"""The reference of all keys, written from the specs themselves."""

from __future__ import annotations

import json
from typing import Any, Final, get_origin

from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from simulator.scenario._kinds import GROUP_PARTS
from simulator.specs import (
    AcceleratorSpec,
    ActivationLayer,
    AttentionLayer,
    BlockLayer,
    CampaignSpec,
    CheckpointSpec,
    CommunicationPrecisionSpec,
    ConvolutionLayer,
    DataSpec,
    DistillationSpec,
    DistributionSpec,
    DropoutLayer,
    EmbeddingLayer,
    FabricSpec,
    FailureSpec,
    Figure,
    HostSpec,
    InputLayer,
    JitterSpec,
    LatentAttentionSpec,
    LayerListSpec,
    LinearLayer,
    LinkSpec,
    LossLayer,
    MaskLayer,
    MixtureSpec,
    NodeGroupSpec,
    NormLayer,
    OffloadSpec,
    OptimizerPrecisionSpec,
    ParallelismSpec,
    PoolingLayer,
    RecurrentLayer,
    SideLayer,
    SimulationSpec,
    SlowGpusSpec,
    SoftwareSpec,
    StackLayer,
    StorageSpec,
    TrainingSpec,
    TransformerSpec,
    UpsamplingLayer,
    meanings,
    parts_of,
)
from simulator.specs._base import Quantity
from simulator.specs.precision import OneFor
from simulator.units import example

_OPENING: Final = """# Keys of a scenario

A scenario is a YAML 1.2 (or JSON) file of these blocks. `cluster`, `model` and `training` must be there.
Quantities are text with a unit. GB is not GiB, Gb is not GB; bandwidths are per direction.

Of `accelerator`, `scale_up`, `scale_out`, `host`, `storage`, `drives` each is one of
- a name of the catalogue: `accelerator: H100-SXM5-80GB`;
- a name with changed figures: `accelerator: {base: H100-SXM5-80GB, memory_bandwidth: 6 TB/s}`;
- a mapping with `name:` and all figures, for hardware that the catalogue does not have.

`cluster.system` names a system of the catalogue that gives what the cluster leaves out. Several kinds of node
stand in `cluster.node_groups`, a list of mappings with the node keys. `model` is a name of the catalogue,
`{base: NAME, ...}` with changes, `{config: PATH}` of a Hugging Face config.json (with changes, too), a
transformer in full, or `{name: ..., layers: [...]}`. `software` is a
name of the catalogue or `{base: NAME, ...}` with changed mechanisms. `include: PATH` (or a list) at the top
puts files of the same folder beneath this one.

Precedence: catalogue < included files < file < override (`--set key=value`).
"""

_SECTIONS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("cluster (and each of cluster.node_groups)", NodeGroupSpec),
    *((f"cluster.{key}", part.spec) for key, part in GROUP_PARTS.items() if key != "scale_out"),
    ("cluster.fabric", FabricSpec),
    ("cluster.storage, cluster.drives", StorageSpec),
    ("figures.NAME (in any part of the cluster; NAME is a key, or default)", Figure),
    ("model (transformer)", TransformerSpec),
    ("model.mixture", MixtureSpec),
    ("model.latent_attention", LatentAttentionSpec),
    ("model (list of layers)", LayerListSpec),
    *(
        (f"model.layers: {kind}", layer)
        for kind, layer in (
            ("linear", LinearLayer),
            ("embedding", EmbeddingLayer),
            ("norm", NormLayer),
            ("activation", ActivationLayer),
            ("convolution", ConvolutionLayer),
            ("pooling", PoolingLayer),
            ("upsampling", UpsamplingLayer),
            ("dropout", DropoutLayer),
            ("mask", MaskLayer),
            ("stack", StackLayer),
            ("input", InputLayer),
            ("lstm, gru", RecurrentLayer),
            ("attention", AttentionLayer),
            ("loss", LossLayer),
            ("block", BlockLayer),
            ("side", SideLayer),
        )
    ),
    ("distillation", DistillationSpec),
    ("training", TrainingSpec),
    ("training.communication_precision", CommunicationPrecisionSpec),
    ("training.optimizer_precision", OptimizerPrecisionSpec),
    ("training.offload", OffloadSpec),
    ("parallelism", ParallelismSpec),
    ("software (megatron-core if not given)", SoftwareSpec),
    ("data", DataSpec),
    ("checkpoint", CheckpointSpec),
    ("campaign", CampaignSpec),
    ("campaign.failures.NAME", FailureSpec),
    ("simulation", SimulationSpec),
    ("simulation.jitter", JitterSpec),
    ("simulation.jitter.kernels, nodes, links", DistributionSpec),
    ("cluster.slow_gpus", SlowGpusSpec),
)


def write_reference() -> str:
    """A Markdown page of every key: what it takes, its default, what it means."""
    return "\n".join([_OPENING, *(_section(title, spec) for title, spec in _SECTIONS)])


def _section(title: str, spec: type[BaseModel]) -> str:
    title = title.replace("cluster.scale_up", "cluster.scale_up, cluster.scale_out")
    lines = [
        f"## {title}",
        "",
        spec.__doc__ or "",
        "",
        "| key | takes | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, field in spec.model_fields.items():
        meaning = " ".join(meanings(spec).get(key, "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {_takes(field)} | {_default(field)} | {meaning} |")
    return "\n".join([*lines, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        return "see there"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _takes(field: FieldInfo) -> str:
    if field.annotation in (AcceleratorSpec, LinkSpec, HostSpec, StorageSpec):
        return "a name or a mapping"
    parts = list(parts_of(field))
    for part in parts:
        if isinstance(part, Quantity):
            by = " by precision" if get_origin(field.annotation) is dict else ""
            return f"{part.dimension.replace('_', ' ')}{by}, as {example(part.dimension).split(' or ')[0]}"
    one = next((part for part in parts if isinstance(part, OneFor)), None)
    if one is not None:
        return "one of them, or a mapping"
    literals = [part for part in parts if isinstance(part, str)]
    if any(isinstance(part, WithJsonSchema) for part in parts):
        return "a whole number, or a list"
    if get_origin(field.annotation) is tuple:
        return "a list"
    if get_origin(field.annotation) is dict or any(_is_spec(part) for part in parts):
        return "a mapping"
    if literals:
        return ", ".join(f"`{option}`" for option in dict.fromkeys(literals))
    for kind, words in ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "text")):
        if kind in parts:
            return words
    return "text"


def _is_spec(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
