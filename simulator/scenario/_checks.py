"""Checks between blocks that need no plan."""

from __future__ import annotations

from simulator.scenario._findings import Findings
from simulator.scenario._precisions import check_precisions
from simulator.scenario._scenario import Scenario


def check(scenario: Scenario, findings: Findings) -> None:
    """Note what cannot be true together."""
    _lengths(scenario, findings)
    _positions(scenario, findings)
    _distillation(scenario, findings)
    check_precisions(scenario, findings)
    _storage(scenario, findings)
    _campaign(scenario, findings)


def _positions(scenario: Scenario, findings: Findings) -> None:
    model, training = scenario.model, scenario.training
    if model.kind != "transformer" or model.position_embedding != "learned":
        return
    rows = model.max_position_embeddings
    for key in ("sequence_length", "decoder_sequence_length"):
        length = getattr(training, key)
        heard = key == "sequence_length" and model.num_mel_bins > 0  # those positions are not learned
        if length is not None and length > rows and not heard:
            limit = f"learned positions for {rows:,} (max_position_embeddings)"
            findings.add(("training", key), f"{length:,} tokens, but {model.name} has {limit}")


def _lengths(scenario: Scenario, findings: Findings) -> None:
    model, length = scenario.model, scenario.training.decoder_sequence_length
    both = model.kind == "transformer" and model.family == "encoder-decoder"
    key = ("training", "decoder_sequence_length")
    if both and length is None:
        findings.add(key, f"missing; {model.name} has a decoder beside its encoder")
    if not both and length is not None:
        findings.add(key, "only a model of family: encoder-decoder has a decoder beside an encoder")


def _distillation(scenario: Scenario, findings: Findings) -> None:
    taught, student = scenario.distillation, scenario.model
    if taught is None:
        return
    teacher, path = taught.teacher, ("distillation", "teacher")
    if student.kind != "transformer":
        findings.add(
            path, f"{student.name} is given layer by layer: its outputs are no tokens of {teacher.name}"
        )
        return
    if teacher.family != student.family:
        said = f"{teacher.name} is of family: {teacher.family}, {student.name} of family: {student.family}"
        findings.add(path, said)
    if teacher.vocab_size != student.vocab_size:
        said = f"{teacher.name} has vocab_size: {teacher.vocab_size:,}, {student.name} {student.vocab_size:,}"
        findings.add(path, f"{said}; logits over two vocabularies cannot be compared")
    if taught.top_k is not None and taught.top_k >= teacher.vocab_size:
        said = f"{taught.top_k:,} of vocab_size: {teacher.vocab_size:,}; without it, all are compared"
        findings.add(("distillation", "top_k"), said)
    length = scenario.training.sequence_length
    if teacher.position_embedding == "learned" and length > teacher.max_position_embeddings:
        rows = teacher.max_position_embeddings
        findings.add(path, f"{length:,} tokens, but {teacher.name} has learned positions for {rows:,}")


def _campaign(scenario: Scenario, findings: Findings) -> None:
    campaign = scenario.campaign
    if campaign is None:
        return
    if campaign.failures and scenario.checkpoint is None:
        said = "a failure would undo all that was trained, as no checkpoints are written; give checkpoint"
        findings.add(("campaign", "failures"), said, "key")
    if campaign.spare_nodes and not any(failure.repair for failure in campaign.failures.values()):
        said = "no node is ever away: no cause in campaign.failures has a repair time"
        findings.add(("campaign", "spare_nodes"), said)


def _storage(scenario: Scenario, findings: Findings) -> None:
    offload = scenario.training.offload
    if scenario.cluster.drives and "nvme" not in (offload.activations, offload.parameters, offload.optimizer):
        findings.warn(("cluster", "drives"), "changes nothing: training.offload puts nothing on nvme")
    if scenario.cluster.storage is not None:
        return
    for key, block in (("data", scenario.data), ("checkpoint", scenario.checkpoint)):
        if block is not None:
            findings.add((key,), "needs cluster.storage, and the cluster has none", "key")
