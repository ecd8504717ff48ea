"""Training runs whose model is named and not described: its figures come from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from simulator.errors import Problem, UnsupportedError
from simulator.measurements import Metric, Row, accelerator, family, fault_of_count, problems_of_cells
from simulator.specs import Calibration
from simulator.validation._kind import MeasurementKind, measurement_kind
from simulator.validation._layer_lists import layer_list, layer_list_mapping
from simulator.validation._scenario import scenario_mapping
from simulator.validation._software import container_since
from simulator.validation._training import TrainingRuns

_STEP_TIME: Final = Metric("step time of named models", "s", "predicted_step_time_s", "model")

_COUNTS: Final = ("num_gpus", "gpus_per_node", "micro_batch_size", "global_batch_size", "sequence_length")

_UNPADDED: Final = ("unpadded", "packed variable length")
"""How notes say that samples are of different lengths, and nothing is computed for what they lack."""

_ANSWERS: Final = " (squad ft)"
"""How a name ends whose model is fine-tuned on SQuAD: it looks for answers in a text."""

_ANSWERED: Final = {"sequence_length": "384", "flash_attention": "false"}
"""What the scripts of NVIDIA's BERT have for it where a row does not say.

Source: ``--max_seq_length=384`` in PyTorch/LanguageModeling/BERT/scripts/run_squad.sh of
    NVIDIA/DeepLearningExamples, whose modeling.py writes the scores of attention.
"""

_ONE_TOKEN: Final = 1 / 384
"""Share of the positions that stands for a head of two numbers a token, start and end, in place of one that
predicts words."""

_FIGURES: Final = (
    "family",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "gated_mlp",
    "tie_word_embeddings",
)
"""What the columns of a described run say of a transformer."""


@measurement_kind
class NamedRuns(MeasurementKind):
    """Samples a second of a model by its name: data parallel, one replica a GPU.

    Transformers whose name the catalogue knows are predicted, where the row says how long a sequence is;
    models of images and speech with samples of the size that the catalogue has (`_layer_lists.py`).
    """

    name = "training runs of named models"
    required = ("id", "model", "gpu", "num_gpus", "micro_batch_size")
    measured = ("measured_samples_per_s",)
    foreign = ("num_hidden_layers",)
    predicted_columns = ("predicted_step_time_s", "predicted_samples_per_s")
    metrics = (_STEP_TIME,)

    def check(self, row: Row) -> Iterable[Problem]:
        """Cells that are not of their column's type, and required cells that are empty."""
        return problems_of_cells(row, self.required, dict.fromkeys(_COUNTS, fault_of_count))

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:  # noqa: ARG002
        """Step time [s]: the batch over the samples a second."""
        return _batch(cells) / float(cells["measured_samples_per_s"])

    def left_out(self, cells: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The accelerator's family; no constant is fitted to these runs."""
        return f"accelerator {family(accelerator(cells['gpu'], ''))}", None

    def predict(self, cells: Mapping[str, str], calibration: Calibration) -> dict[str, float]:
        """As a described run of the same figures, or as the catalogue has the model layer by layer."""
        layers = layer_list(cells["model"])
        if cells["model"].casefold().endswith(_ANSWERS):
            seconds = _step_time(answering(cells), calibration)
        elif layers is None:
            seconds = TrainingRuns().predict(described(cells), calibration)["predicted_step_time_s"]
        else:
            seconds = _step_time(layer_list_mapping(cells, layers), calibration)
        return {"predicted_step_time_s": seconds, "predicted_samples_per_s": _batch(cells) / seconds}


def _step_time(mapping: Mapping[str, Any], calibration: Calibration) -> float:
    from simulator.run import simulate
    from simulator.scenario import scenario_from_mapping

    return simulate(scenario_from_mapping(mapping), calibration=calibration).step_time_s


def answering(cells: Mapping[str, str]) -> dict[str, Any]:
    """The scenario of a model that is fine-tuned on SQuAD, with dropout, as BERT's configurations have it.

    Source: ``hidden_dropout_prob`` and ``attention_probs_dropout_prob`` 0.1 in bert_config.json.
    """
    name = cells["model"][: -len(_ANSWERS)]
    mapping = scenario_mapping(described(_ANSWERED | dict(cells) | {"model": name}))
    mapping["training"] |= {"predicted_share": _ONE_TOKEN, "dropout": True}
    return mapping


def described(cells: Mapping[str, str]) -> dict[str, str]:
    """The row with its model's figures from the catalogue, as a training file has them.

    Raises:
        UnsupportedError: The catalogue has no such transformer, or the row no length of a sequence.
    """
    from simulator.catalog import entry, names

    name = cells["model"].casefold()
    if name not in names("models"):
        raise UnsupportedError(("model",), f'"{cells["model"]}" is not in the catalogue')
    if "sequence_length" not in cells:
        raise UnsupportedError(("training", "sequence_length"), f"{cells['model']}: not given")
    if any(word in cells.get("notes", "").casefold() for word in _UNPADDED):
        message = f"up to {cells['sequence_length']} tokens without padding: how many there are is not given"
        raise UnsupportedError(("training", "sequence_length"), message)
    model: Any = entry("models", name)
    figures = {key: str(model[key]) for key in _FIGURES if key in model}
    rest = {key: text for key, text in cells.items() if key not in ("family", "measured_samples_per_s")}
    length = binned_length(int(float(cells["sequence_length"])), model["family"], cells.get("framework", ""))
    return figures | rest | {"global_batch_size": str(_batch(cells)), "sequence_length": str(length)}


_LONG: Final = 512
"""Length of sequences of which the documents of Wikipedia fill half."""

_BIN: Final = 64
"""Lengths within so many tokens share a batch, and are padded to its longest."""

_BINNED_SINCE: Final = (21, 11)
"""Year and month of the first container whose PyTorch BERT reads its samples so."""


def binned_length(longest: int, family: str, framework: str) -> int:
    """Tokens of a sequence in the mean, padding included, where samples of like length share a batch.

    Of 512 tokens of BERT's samples half are padding; in bins of 64 half a bin of it is left.

    Source: Krell et al., Packing: Towards 2x NLP BERT acceleration, arXiv:2107.02027 (more than 50 % of the
        tokens); NVIDIA/LDDL, ``--bin-size``, which the PyTorch BERT of NVIDIA/DeepLearningExamples reads.
    """
    binned = family == "encoder" and longest == _LONG and container_since(framework, _BINNED_SINCE)
    return (longest + _BIN) // 2 if binned else longest


def _batch(cells: Mapping[str, str]) -> int:
    """Samples of a step; a micro-batch a GPU where the row does not say."""
    alone = int(float(cells["micro_batch_size"])) * int(float(cells["num_gpus"]))
    return int(float(cells.get("global_batch_size", alone)))
