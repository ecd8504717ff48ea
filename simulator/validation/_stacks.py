"""What no column says of an encoder-decoder: layers of each stack, and the length of the decoder's part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SHORTER: Final = 4
"""Tokens of the encoder for each of the decoder."""


def layers_of_stacks(cells: Mapping[str, str]) -> dict[str, int]:
    """Layers of the encoder and of the decoder: half of them each, as T5 has them."""
    if cells.get("family") != "encoder-decoder":
        return {}
    layers = int(float(cells["num_hidden_layers"]))
    return {"num_encoder_layers": layers - layers // 2, "num_decoder_layers": layers // 2}


def decoder_length(cells: Mapping[str, str]) -> dict[str, int]:
    """Tokens of the decoder: a quarter of the encoder's, what T5's objective leaves in round figures.

    Spans of 3 tokens, 15 % of all, are taken out of what the encoder reads and stand behind their sentinels
    and before an end: 114 for 512, which is run with 128.

    Source: Raffel et al., arXiv:1910.10683, section 3.1.4; ``--decoder-seq-length 128`` of
        examples/pretrain_t5.sh in NVIDIA/Megatron-LM.
    """
    if cells.get("family") != "encoder-decoder":
        return {}
    return {"decoder_sequence_length": -(-int(float(cells["sequence_length"])) // _SHORTER)}
