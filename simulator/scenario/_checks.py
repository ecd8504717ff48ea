"""Checks between blocks that need no plan."""

from __future__ import annotations

from simulator.scenario._findings import Findings
from simulator.scenario._scenario import Scenario
from simulator.workload.precision import base_precision, matrix_precision


def check(scenario: Scenario, findings: Findings) -> None:
    """Note what cannot be true together."""
    _positions(scenario, findings)
    _precisions(scenario, findings)
    _storage(scenario, findings)


def _positions(scenario: Scenario, findings: Findings) -> None:
    model, length = scenario.model, scenario.training.sequence_length
    if model.kind == "transformer" and model.family == "encoder-decoder":
        findings.add(("model", "family"), "models of two stacks are not laid out on stages yet")
    if model.kind != "transformer" or model.position_embedding != "learned":
        return
    if length > model.max_position_embeddings:
        rows = model.max_position_embeddings
        limit = f"learned positions for {rows:,} (max_position_embeddings)"
        message = f"{length:,} tokens, but {model.name} has {limit}"
        findings.add(("training", "sequence_length"), message)


def _precisions(scenario: Scenario, findings: Findings) -> None:
    precision = scenario.training.precision
    for group in scenario.cluster.node_groups:
        has = group.accelerator.peak_flops
        needed = (matrix_precision(precision), base_precision(precision))
        wanted = next((each for each in needed if each not in has), None)
        if wanted is not None:
            message = (
                f'{group.accelerator.name} has no figure for "{wanted}"; it has {", ".join(sorted(has))}'
            )
            findings.add(("training", "precision"), message)
            return


def _storage(scenario: Scenario, findings: Findings) -> None:
    if scenario.cluster.storage is not None:
        return
    for key, block in (("data", scenario.data), ("checkpoint", scenario.checkpoint)):
        if block is not None:
            findings.add((key,), "needs cluster.storage, and the cluster has none", "key")
