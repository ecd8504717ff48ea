"""Runs of models that the catalogue gives layer by layer: images, detection, segmentation, speech.

| what no column says | taken |
|---|---|
| size of a sample | that of the catalogue's model (224 x 224, 300 x 300, 128^3, 16.7 s of speech) |
| optimizer | SGD with momentum; NovoGrad keeps as much |
| input pipeline | faster than the GPUs; where it was not, the prediction is too fast |
| framework | the table below |

| row | profile |
|---|---|
| MLPerf, images and segmentation | mxnet, statistics of norms summed by the convolutions |
| MLPerf, others | pytorch-ddp, channels last |
| MXNet of NVIDIA's containers, OneFlow, TensorFlow: 16 bits | mxnet |
| the same: other precisions; MXNet elsewhere | mxnet, channels first, nothing fused with norms |
| NVIDIA's example for classification: 16 bits | pytorch-ddp, channels last |
| NVIDIA's example for detection: all but fp32 | pytorch-ddp, channels last |
| any other | pytorch-ddp (channels first) |

Sources: ``NETWORK="resnet-v1b-stats-fl"`` in the configurations of NVIDIA's submissions, whose directories
    say which framework a benchmark has (mlcommons/training_results_v2.1, NVIDIA/benchmarks);
    ``--conv-layout NHWC --fuse-bn-relu 1 --fuse-bn-add-relu 1`` with float16 alone, ``--memory-format`` nhwc
    with AMP (PyTorch/Classification/ConvNets/configs.yml), ``--data-layout`` channels_last but for
    ``SSD300_FP32_8GPU.sh`` (PyTorch/Detection/SSD) in NVIDIA/DeepLearningExamples; Lambda's runs give neither
    option (lambdal/deeplearning-benchmark, pytorch/scripts/config_v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from simulator.validation._cluster import cluster, count

_GRAPHS: Final = ("mxnet", "oneflow", "tensorflow")
"""Frameworks that lay a static graph down before the first step."""

_HALF: Final = ("fp16", "bf16")
"""Precisions of 16 bits."""

_SUBMISSION: Final = "mlperf closed division"
"""How notes say that a run is a submission to MLPerf, most of which run NVIDIA's code."""


def layer_list(name: str) -> str | None:
    """The catalogue's name of a model that is given layer by layer; None if it has no such model."""
    from simulator.catalog import UnknownEntry, entry

    try:
        found = entry("models", name)
    except UnknownEntry:
        return None
    return str(found["name"]) if found.get("kind") == "layers" else None


def layer_list_mapping(cells: Mapping[str, str], model: str) -> dict[str, Any]:
    """The scenario of one row, as `scenario_from_mapping` takes it.

    Args:
        cells: Column -> text, empty cells missing; the types are checked already.
        model: The catalogue's name of its model.

    Raises:
        UnsupportedError: The row says something that a scenario cannot say, and what.
    """
    batch = count(cells, "micro_batch_size", 1)
    return {
        "name": cells["id"],
        "cluster": cluster(cells),
        "model": model,
        "training": {
            "micro_batch_size": batch,
            "global_batch_size": count(cells, "global_batch_size", batch * count(cells, "num_gpus", 1)),
            "precision": cells.get("precision", "fp16"),
            "optimizer": "momentum",
            "gradient_clipping": False,
        },
        "software": _software(cells),
    }


def _software(cells: Mapping[str, str]) -> dict[str, Any]:
    """The profile of a row, and what its framework does otherwise with convolutions."""
    name, family = cells.get("framework", "").casefold(), cells.get("family", "")
    half = cells.get("precision") in _HALF
    if _SUBMISSION in cells.get("notes", "").casefold():
        if family in ("cnn", "segmentation"):
            return {"base": "mxnet", "fused_norm_statistics": True}
        return _eager(last=True)
    if any(word in name for word in _GRAPHS):
        tuned = half and ("mxnet" not in name or "ngc" in name)
        first = {"fused_norm_activation": False, "convolution_layout": "channels_first"}
        return {"base": "mxnet"} if tuned else {"base": "mxnet", **first}
    example = "ngc" in name and "dali" in name
    return _eager(last=example and (half or (family == "detection" and cells.get("precision") != "fp32")))


def _eager(*, last: bool) -> dict[str, Any]:
    return {"base": "pytorch-ddp", "convolution_layout": "channels_last" if last else "channels_first"}
