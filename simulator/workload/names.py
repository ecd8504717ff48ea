"""Names of a model's parameters, operator by operator, and patterns that choose some of them.

A transformer has ``embedding``, ``layers.<number>.<operator>``, ``head.norm`` and ``head.projection``; the
layers of an encoder-decoder are those of ``encoder`` and of ``decoder``. A model given layer by layer has
``layers.<number>.<type>``, and below a block's number those of its repetition, if it has several, and of the
layer in it (``layers.4.0.1.convolution``); those of its shortcut are ``layers.4.0.shortcut.0.convolution``.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from simulator.specs.layer_list import placed_layers
from simulator.specs.model import LayerListSpec, ModelSpec, TransformerSpec
from simulator.specs.shapes import leaves
from simulator.specs.training import TrainingSpec
from simulator.workload.parameters import layer_parameters

_MOST_LAYERS: Final = 100_000
"""Numbers that a range may have."""


def parameter_names(model: ModelSpec) -> tuple[str, ...]:
    """Names of all that has parameters, in the order in which a sample visits them."""
    if isinstance(model, LayerListSpec):
        return tuple(f"layers.{item.name}" for item in leaves(placed_layers(model)) if layer_parameters(item))
    found = ["encoder.front_end" if model.num_mel_bins else "embedding"]
    biased = model.relative_attention_num_buckets > 0
    for number in range(model.num_hidden_layers):
        stack = stack_of(model, number)
        if number == (model.num_encoder_layers or 0) and stack:
            found += ["encoder.norm"] * model.final_norm
            found += ["embedding"] * (model.num_mel_bins > 0)
        if biased and number in (0, model.num_encoder_layers):
            found.append(f"{stack}position_bias")
        found += [f"{layer_name(model, number)}.{operator}" for operator in layer_operators(model, number)]
    found += ["head.transform"] * (model.family == "encoder") + ["head.norm"] * model.final_norm
    return (*found, *(() if model.tie_word_embeddings else ("head.projection",)))


def stack_of(model: ModelSpec, number: int) -> str:
    """The prefix of a layer's stack; empty where there is one."""
    if isinstance(model, LayerListSpec) or model.num_encoder_layers is None:
        return ""
    return "encoder." if number < model.num_encoder_layers else "decoder."


def layer_name(model: ModelSpec, number: int) -> str:
    """Name of a layer; those of a decoder behind an encoder count from 0 again."""
    stack = stack_of(model, number)
    if isinstance(model, TransformerSpec) and stack == "decoder.":
        number -= model.num_encoder_layers or 0
    return f"{stack}layers.{number}"


def layer_operators(model: TransformerSpec, number: int) -> list[str]:
    """Operators of a layer that have parameters."""
    found = ["attention.norm"]
    if model.latent_attention is None:
        found += ["attention.qkv", *(["attention.query_key_norm"] * model.qk_norm)]
    else:
        found += ["attention.down", "attention.latent_norm", "attention.query_up", "attention.key_value_up"]
    found.append("attention.output")
    if stack_of(model, number) == "decoder.":
        found += [f"cross_attention.{name}" for name in ("norm", "query", "key_value", "output")]
    if model.norms_per_layer > 1:
        found.append("mlp.norm")
    mixture = model.mixture
    if mixture is None or not model.has_experts(number):
        return [*found, "mlp.up", "mlp.down"]
    shared = ["shared.up", "shared.down"] if mixture.num_shared_experts else []
    return [*found, "router", "experts.up", "experts.down", *shared]


def frozen_names(model: ModelSpec, training: TrainingSpec) -> frozenset[str]:
    """Names of what is not trained; with adapters, of the layers that have none.

    Raises:
        LookupError: A pattern names nothing.
    """
    found = frozenset[str]()
    for number in range(training.frozen_layers):
        prefix = f"{layer_name(model, number)}."
        found |= {name for name in parameter_names(model) if name.startswith(prefix)}
    if training.frozen_layers and not training.lora_rank and isinstance(model, TransformerSpec):
        found |= {"embedding"}
    return found | chosen(training.frozen, model, found) if training.frozen else found


def chosen(
    patterns: tuple[str, ...], model: ModelSpec, before: frozenset[str] = frozenset()
) -> frozenset[str]:
    """The names that patterns choose.

    ``*`` stands for any characters, ``0-15`` for the numbers from 0 to 15; a name chooses all below it, too.

    Args:
        patterns: Patterns.
        model: Whose parameters they name.
        before: Names that are chosen already.

    Raises:
        LookupError: A pattern chooses nothing that those before it do not; the message names the nearest.
    """
    names, found = parameter_names(model), set(before)
    for pattern in patterns:
        match = _compiled(pattern)
        new = {name for name in names if match.fullmatch(name)} - found
        if not new:
            raise LookupError(_nothing(pattern, names))
        found |= new
    return frozenset(found)


def _nothing(pattern: str, names: tuple[str, ...]) -> str:
    if any(_compiled(pattern).fullmatch(name) for name in names):
        return f'"{pattern}" names nothing that is not frozen without it'
    parts = (_starred(name).split(".") for name in names)
    levels = dict.fromkeys(".".join(each[:depth]) for each in parts for depth in range(1, len(each) + 1))
    near = get_close_matches(_starred(pattern), list(levels), 3, 0.3) or [names[0], names[-1]]
    numbers = [int(number) for name in names for number in re.findall(r"layers\.(\d+)", name)]
    counted = f"; its layers are 0 to {max(numbers)}" if numbers and re.search(r"\d", pattern) else ""
    return f'"{pattern}" names no parameters of the model; nearest are {", ".join(near)}{counted}'


def _starred(name: str) -> str:
    """A name for all layers."""
    return re.sub(r"layers\.[\d-]+", "layers.*", name)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    segments = []
    for segment in pattern.split("."):
        ends = re.fullmatch(r"(\d{1,9})-(\d{1,9})", segment)
        if ends and int(ends[2]) - int(ends[1]) < _MOST_LAYERS:
            numbers = "|".join(str(number) for number in range(int(ends[1]), int(ends[2]) + 1))
            segments.append(f"(?:{numbers or '(?!)'})")
        else:
            segments.append("*".join(re.escape(piece) for piece in segment.split("*")))
    first, *others = r"\.".join(segments).split("*")
    # What stands between two stars is looked for once, from the left: no pattern takes long.
    between = "".join(f"(?>.*?{piece})" for piece in others[:-1])
    return re.compile(first + between + "".join(f".*{piece}" for piece in others[-1:]) + r"(?:\..*)?")
