"""Runs of models that are named and not described: figures from the catalogue, reasons for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.errors import ScenarioError, UnsupportedError
from simulator.specs import Calibration
from simulator.validation import NamedRuns, TrainingRuns, scenario_mapping, validate
from simulator.validation._other import answering, binned_length, described

HEADER = (
    "id,group,model,gpu,num_gpus,gpus_per_node,precision,micro_batch_size,global_batch_size,sequence_length,"
    "framework,measured_samples_per_s"
)
BERT = "bert,g,bert-large,A100-SXM-80GB,8,8,fp16,32,4096,128,PyTorch 21.11 NGC,3000"


def write(folder: Path, *rows: str) -> Path:
    path = folder / "named.csv"
    path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return path


def test_a_named_model_is_that_of_the_catalogue(tmp_path: Path) -> None:
    found = validate(write(tmp_path, BERT), out=tmp_path / "out.csv")
    assert (found.kind, found.predicted) == ("training runs of named models", 1)
    described = {
        "id": "same",
        "family": "encoder",
        "num_hidden_layers": "24",
        "hidden_size": "1024",
        "num_attention_heads": "16",
        "vocab_size": "30522",
        "tie_word_embeddings": "true",
        "sequence_length": "128",
        "micro_batch_size": "32",
        "global_batch_size": "4096",
        "gpu": "A100-SXM-80GB",
        "num_gpus": "8",
        "precision": "fp16",
        "flash_attention": "false",
        "framework": "PyTorch 21.11 NGC",
    }
    same = TrainingRuns().predict(described, Calibration.load())["predicted_step_time_s"]
    line = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    assert float(line[-2]) == pytest.approx(same, rel=1e-6)
    assert float(line[-1]) == pytest.approx(4096 / same, rel=1e-6)
    assert found.metrics[0].total.bias == pytest.approx(same * 3000 / 4096 - 1, rel=1e-6)


def test_what_is_not_predicted_says_why(tmp_path: Path) -> None:
    rows = (
        BERT.replace("bert,", "a,").replace("bert-large", "mask-rcnn-r50"),
        BERT.replace("bert,", "b,").replace(",128,", ",,"),
    )
    found = validate(write(tmp_path, *rows))
    assert found.predicted == 0
    assert set(found.reasons) == {
        'model: "mask-rcnn-r50" is not in the catalogue',
        "training.sequence_length: bert-large: not given",
    }


def test_the_batch_is_a_micro_batch_a_gpu_where_it_is_not_given() -> None:
    cells = {"micro_batch_size": "32", "num_gpus": "8", "measured_samples_per_s": "512"}
    assert NamedRuns().measurement(cells, NamedRuns.metrics[0]) == 0.5


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"named.csv:2:.*micro_batch_size"):
        validate(write(tmp_path, BERT.replace(",32,4096", ",0,4096")))


@pytest.mark.parametrize(("release", "attention"), [("21.11", "unfused"), ("23.04", None)])
def test_early_pytorch_has_no_fused_attention(release: str, attention: str | None) -> None:
    cells = {
        "id": "x",
        "num_hidden_layers": "2",
        "hidden_size": "64",
        "num_attention_heads": "1",
        "vocab_size": "100",
        "sequence_length": "64",
        "micro_batch_size": "1",
        "gpu": "A100-SXM-80GB",
        "num_gpus": "1",
        "framework": f"PyTorch {release} NGC",
    }
    assert scenario_mapping(cells)["training"].get("attention") == attention


def test_samples_without_padding_are_refused_for_their_unknown_lengths() -> None:
    row = dict(zip(HEADER.split(","), BERT.split(","), strict=True)) | {"notes": "unpadded, up to 512"}
    with pytest.raises(UnsupportedError, match="tokens without padding"):
        NamedRuns().predict(row, Calibration.load())


def test_models_that_look_for_answers_have_no_head_of_words() -> None:
    row = dict(zip(HEADER.split(","), BERT.split(","), strict=True))
    asked = row | {"model": "bert-large (SQuAD ft)"}
    del asked["sequence_length"]
    words = scenario_mapping(described(row | {"sequence_length": "384"}))
    answers = answering(asked)
    assert answers["model"] == words["model"]
    assert answers["training"]["sequence_length"] == 384 and answers["training"]["dropout"]
    assert answers["training"]["predicted_share"] * 384 == 1
    assert NamedRuns().predict(asked, Calibration.load())["predicted_samples_per_s"] > 0


def test_sixteen_v100_of_a_node_are_those_of_a_machine_with_switches() -> None:
    row = dict(zip(HEADER.split(","), BERT.split(","), strict=True))
    sixteen = described(row | {"gpu": "V100-SXM2-32GB", "num_gpus": "16", "gpus_per_node": "16"})
    cluster = scenario_mapping(sixteen)["cluster"]
    assert (cluster["scale_up"], cluster["accelerator"]) == ("NVLink2", "V100-SXM3-32GB")


@pytest.mark.parametrize(
    ("longest", "family", "framework", "length"),
    [
        (512, "encoder", "PyTorch 21.11 NGC", 288),  # half of 512, and half a bin of 64
        (128, "encoder", "PyTorch 21.11 NGC", 128),
        (512, "encoder", "PyTorch 20.06 NGC", 512),
        (512, "encoder", "TF2 21.02 NGC + XLA", 512),
        (512, "decoder", "PyTorch 21.11 NGC", 512),
    ],
)
def test_samples_of_like_length_share_a_batch(longest: int, family: str, framework: str, length: int) -> None:
    assert binned_length(longest, family, framework) == length
