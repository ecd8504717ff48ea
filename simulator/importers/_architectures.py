"""What each architecture of the transformers library is, beyond what its config says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a ``model_type`` leaves unsaid.

    Attributes:
        family: ``decoder`` or ``encoder``.
        activation: Default activation of the MLP.
        gated: Whether the MLP has a gate.
        norm: Kind of norm.
        norms: Norms in a layer.
        position: How positions enter.
        tied: Default of ``tie_word_embeddings``.
        biases: Where biases are: ``""`` nowhere, ``qkv``, ``attention``, or ``all``.
        bias_key: Config key that switches `biases`, if there is one.
        mlp_bias_key: Config key that switches the MLP's biases, if it is another.
        grouped: Whether keys and values may have fewer heads.
        qk_norm: Whether queries and keys are normed.
        experts: Whether it has routed experts: no, ``always``, or ``maybe`` (as the config says).
        latent: Whether attention is latent.
        parallel: Whether attention and MLP stand side by side.
        window: Layers that ``sliding_window`` holds in: none, ``always`` all, or ``some``.
        falcon: Whether key heads are told as Falcon tells them.
        default_inner: Whether the MLP is four times as wide as the model unless told otherwise.
        default_positions: Longest sequence if the config has none.
        defaults: Values that published configs of it leave to the library.
        names: Other names of sizes, by the usual one.
        remarks: Warnings that always hold, by key.
    """

    family: Literal["decoder", "encoder"] = "decoder"
    activation: str = "silu"
    gated: bool = True
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norms: int = 2
    position: Literal["rotary", "learned", "alibi"] = "rotary"
    tied: bool = False
    biases: Literal["", "qkv", "attention", "all"] = ""
    bias_key: str = ""
    mlp_bias_key: str = ""
    grouped: bool = True
    qk_norm: bool = False
    experts: Literal["", "always", "maybe"] = ""
    latent: bool = False
    parallel: bool = False
    window: Literal["", "always", "some"] = ""
    falcon: bool = False
    default_inner: bool = False
    default_positions: int | None = None
    defaults: dict[str, object] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[tuple[str, str], ...] = ()

    def also(self, key: str) -> tuple[str, ...]:
        """Other names of a size in this architecture's configs."""
        return self.names.get(key, ())


_GPT2_NAMES: Final = {
    "hidden_size": ("n_embd",),
    "num_attention_heads": ("n_head",),
    "num_hidden_layers": ("n_layer",),
    "intermediate_size": ("n_inner",),
    "max_position_embeddings": ("n_positions", "n_ctx"),
    "hidden_act": ("activation_function",),
}

_LLAMA: Final = Architecture(biases="attention", bias_key="attention_bias", mlp_bias_key="mlp_bias")

_GEMMA: Final = Architecture(
    activation="gelu_pytorch_tanh",
    tied=True,
    biases="attention",
    bias_key="attention_bias",
    names={"hidden_act": ("hidden_activation",)},
)

_GEMMA2: Final = replace(_GEMMA, norms=4, window="some")

_GEMMA3: Final = replace(
    _GEMMA2,
    qk_norm=True,
    defaults={
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
)

_DEEPSEEK: Final = Architecture(experts="maybe", latent=True)

_BERT: Final = Architecture(
    family="encoder",
    activation="gelu",
    gated=False,
    norm="layernorm",
    position="learned",
    tied=True,
    biases="all",
    grouped=False,
)

ARCHITECTURES: Final[dict[str, Architecture]] = {
    "bert": _BERT,
    "bloom": Architecture(
        activation="gelu",
        gated=False,
        norm="layernorm",
        position="alibi",
        tied=True,
        biases="all",
        grouped=False,
        default_inner=True,
        default_positions=2048,
        names={
            "hidden_size": ("n_embed",),
            "num_attention_heads": ("n_head",),
            "num_hidden_layers": ("n_layer",),
            "max_position_embeddings": ("seq_length",),
        },
    ),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "falcon": Architecture(
        activation="gelu",
        gated=False,
        norm="layernorm",
        tied=True,
        biases="all",
        bias_key="bias",
        parallel=True,
        falcon=True,
        default_inner=True,
        default_positions=2048,
        names={"intermediate_size": ("ffn_hidden_size",), "hidden_act": ("activation",)},
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gpt2": Architecture(
        activation="gelu_new",
        gated=False,
        norm="layernorm",
        position="learned",
        tied=True,
        biases="all",
        grouped=False,
        default_inner=True,
        names=_GPT2_NAMES,
    ),
    "gpt_neox": Architecture(
        activation="gelu",
        gated=False,
        norm="layernorm",
        biases="all",
        grouped=False,
        parallel=True,
        default_inner=True,
    ),
    "gpt_oss": Architecture(
        biases="attention",
        bias_key="attention_bias",
        experts="always",
        window="some",
        remarks=(("model_type", "attention sinks and the biases of experts are left out"),),
    ),
    "llama": _LLAMA,
    "mistral": Architecture(window="always"),
    "mixtral": Architecture(window="always", experts="always"),
    "nemotron": Architecture(
        activation="relu2",
        gated=False,
        norm="layernorm",
        biases="attention",
        bias_key="attention_bias",
        mlp_bias_key="mlp_bias",
    ),
    "olmo2": Architecture(
        qk_norm=True,
        biases="attention",
        bias_key="attention_bias",
        remarks=(("model_type", "norms of queries and keys are counted for one head, not for all together"),),
    ),
    "opt": Architecture(
        activation="relu",
        gated=False,
        norm="layernorm",
        position="learned",
        tied=True,
        biases="all",
        bias_key="enable_bias",
        grouped=False,
        names={"intermediate_size": ("ffn_dim",), "hidden_act": ("activation_function",)},
    ),
    "phi3": Architecture(window="always"),
    "qwen2": Architecture(biases="qkv"),
    "qwen3": Architecture(qk_norm=True, biases="attention", bias_key="attention_bias"),
    "qwen3_moe": Architecture(qk_norm=True, biases="attention", bias_key="attention_bias", experts="always"),
    "roberta": _BERT,
    "starcoder2": Architecture(
        activation="gelu_pytorch_tanh",
        gated=False,
        norm="layernorm",
        tied=True,
        biases="all",
        bias_key="use_bias",
        window="always",
    ),
}
