"""Runs of convolutional models: which framework of a row lays tensors out and fuses how."""

from __future__ import annotations

import pytest

from simulator.scenario import scenario_from_mapping
from simulator.specs import Calibration
from simulator.validation import NamedRuns
from simulator.validation._layer_lists import layer_list, layer_list_mapping

CELLS = {
    "id": "row",
    "family": "cnn",
    "model": "resnet50-v1.5",
    "gpu": "A100-SXM-80GB",
    "num_gpus": "4",
    "gpus_per_node": "4",
    "precision": "fp16",
    "micro_batch_size": "64",
    "measured_samples_per_s": "10000",
}


@pytest.mark.parametrize(
    ("changes", "profile", "layout", "fused", "summed"),
    [
        ({"framework": "PyTorch 21.03 NGC + DALI"}, "pytorch-ddp", "channels_last", False, False),
        (
            {"framework": "PyTorch 21.03 NGC + DALI", "precision": "tf32"},
            "pytorch-ddp",
            "channels_first",
            False,
            False,
        ),
        (
            {"framework": "PyTorch 22.10 NGC + DALI", "precision": "tf32", "family": "detection"},
            "pytorch-ddp",
            "channels_last",
            False,
            False,
        ),
        ({"framework": "NGC PyTorch"}, "pytorch-ddp", "channels_first", False, False),
        ({"framework": "NGC MXNet"}, "mxnet", "channels_last", True, False),
        ({"framework": "NGC MXNet", "precision": "fp32"}, "mxnet", "channels_first", False, False),
        ({"framework": "MXNet"}, "mxnet", "channels_first", False, False),
        (
            {"framework": "NGC MXNet 22.09, NGC PyTorch 22.09", "notes": "MLPerf closed division"},
            "mxnet",
            "channels_last",
            True,
            True,
        ),
        (
            {"framework": "PyTorch Release 22.09", "notes": "MLPerf closed division", "family": "speech"},
            "pytorch-ddp",
            "channels_last",
            False,
            False,
        ),
    ],
)
def test_layouts_and_fusions_follow_the_framework(
    changes: dict[str, str], profile: str, layout: str, fused: bool, summed: bool
) -> None:
    found = scenario_from_mapping(layer_list_mapping(CELLS | changes, "resnet50")).software
    assert (found.name, found.convolution_layout) == (profile, layout)
    assert (found.fused_norm_activation, found.fused_norm_statistics) == (fused, summed)


def test_names_of_the_catalogue_and_of_others() -> None:
    assert layer_list("ResNet-50 v1.5") == layer_list("resnet50-v1.5") == "resnet50"
    assert layer_list("bert-large") is None and layer_list("mask-rcnn-r50") is None


def test_a_micro_batch_a_gpu_where_the_batch_is_not_given() -> None:
    predicted = NamedRuns().predict(CELLS | {"framework": "NGC MXNet"}, Calibration.load())
    step, rate = predicted["predicted_step_time_s"], predicted["predicted_samples_per_s"]
    assert rate == pytest.approx(256 / step)
