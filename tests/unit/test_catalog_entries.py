"""What every entry of the catalogue must be, and figures that other tables get wrong by a factor of two."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from simulator import catalog
from simulator.specs import (
    AcceleratorSpec,
    ClusterSpec,
    HostSpec,
    LinkSpec,
    NodeGroupSpec,
    SoftwareSpec,
    StorageSpec,
)
from simulator.units import parse
from simulator.workload.parameters import active_parameters, count_parameters
from support.inputs import catalogue_layers, catalogue_model

PUBLISHED = Path(__file__).parents[1] / "reference" / "published_parameters.csv"
SPECS: dict[str, type[BaseModel]] = {
    "accelerators": AcceleratorSpec,
    "interconnects": LinkSpec,
    "hosts": HostSpec,
    "storage": StorageSpec,
    "software": SoftwareSpec,
}
NOT_A_FIGURE = {"name", "vendor", "kind", "family", "topology"}
EVERY = [(kind, name) for kind in catalog.KINDS for name in catalog.names(kind)]
LEAST = {
    "accelerators": 40,
    "interconnects": 40,
    "hosts": 20,
    "storage": 20,
    "systems": 30,
    "models": 60,
    "software": 8,
}


def leaves(block: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def group(name: str) -> NodeGroupSpec:
    block = catalog.entry("systems", name)
    parts = {
        "accelerator": "accelerators",
        "scale_up": "interconnects",
        "scale_out": "interconnects",
        "host": "hosts",
    }
    kept = {key: block[key] for key in ("nodes", "gpus_per_node", "scale_up_domain") if key in block}
    return NodeGroupSpec.model_validate(
        kept | {key: catalog.entry(kind, block[key]) for key, kind in parts.items()}
    )


@pytest.mark.parametrize(("kind", "least"), LEAST.items())
def test_the_catalogue_is_not_small(kind: catalog.Kind, least: int) -> None:
    assert len(catalog.names(kind)) >= least


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_figure_has_a_source(kind: catalog.Kind, name: str) -> None:
    block = catalog.entry(kind, name)
    figures = block.pop("figures")
    assert isinstance(figures, Mapping)
    known = [key for key in leaves(block) if key not in NOT_A_FIGURE]
    for key in known:
        ground = catalog.figure({"figures": figures}, key)
        assert ground is not None, key
        assert ground["basis"] in ("datasheet", "measured", "assumed")
        assert len(ground["source"]) >= 10
        if ground["basis"] == "datasheet":
            assert "https://" in ground["source"], key
    spoken_for = {"default", *known, *(key.split(".")[0] for key in known)}
    assert set(figures) <= spoken_for, "a source without its figure"


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_an_entry_bears_its_file_s_name(kind: catalog.Kind, name: str) -> None:
    assert catalog.entry(kind, name)["name"] == name


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in EVERY if kind in SPECS])
def test_an_entry_is_of_its_spec(kind: catalog.Kind, name: str) -> None:
    SPECS[kind].model_validate(catalog.entry(kind, name))


@pytest.mark.parametrize("name", catalog.names("systems"))
def test_a_system_is_made_of_entries(name: str) -> None:
    block = catalog.entry("systems", name)
    made = group(name)
    storage = (
        StorageSpec.model_validate(catalog.entry("storage", block["storage"])) if "storage" in block else None
    )
    fabric = block.get("fabric", {})
    cluster = ClusterSpec(name=name, node_groups=(made,), fabric=fabric, storage=storage)
    assert made.domain <= cluster.num_gpus
    assert made.domain % made.gpus_per_node == 0


@pytest.mark.parametrize("name", catalog.names("accelerators"))
def test_rates_of_an_accelerator_make_sense_together(name: str) -> None:
    peak = AcceleratorSpec.model_validate(catalog.entry("accelerators", name)).peak_flops
    # fp16 runs on the matrix units at the rate of bf16, on Gaudi 3 at that of tf32.
    if "bf16" in peak and "fp16" in peak:
        assert peak["fp16"] in (peak["bf16"], peak.get("tf32"))
    steps = [peak[key] for key in ("fp32", "tf32", "bf16", "fp8", "fp4") if key in peak]
    assert all(wide <= narrow for wide, narrow in pairwise(steps)), "narrower numbers are never slower"


TERA, GIGA = 1e12, 1e9


@pytest.mark.parametrize(
    ("name", "precision", "rate"),
    [
        ("H200-SXM-141GB", "bf16", 989.4 * TERA),
        ("H100-SXM5-80GB", "bf16", 989.4 * TERA),
        ("H100-NVL-94GB", "bf16", 835.5 * TERA),
        ("GH200-96GB", "bf16", 989.4 * TERA),
        ("A10G", "bf16", 70 * TERA),
        ("RTX-3090", "bf16", 71 * TERA),
        ("RTX-4090", "bf16", 165.2 * TERA),
        ("V100-SXM2-32GB", "fp16", 125 * TERA),
        ("V100-PCIe-32GB", "fp16", 112 * TERA),
        ("A100-SXM4-80GB", "bf16", 312 * TERA),
        ("MI355X", "bf16", 2516.6 * TERA),
        ("MI250X-GCD", "bf16", 191.5 * TERA),
    ],
)
def test_rates_are_dense_and_of_one_device(name: str, precision: str, rate: float) -> None:
    peak = catalog.entry("accelerators", name)["peak_flops"]
    assert isinstance(peak, Mapping)
    assert parse(peak[precision], "compute") == pytest.approx(rate)


@pytest.mark.parametrize(
    ("name", "precision"), [("A100-SXM4-80GB", "fp8"), ("V100-SXM2-32GB", "bf16"), ("V100-SXM2-32GB", "tf32")]
)
def test_a_precision_that_is_not_built_is_not_listed(name: str, precision: str) -> None:
    assert precision not in AcceleratorSpec.model_validate(catalog.entry("accelerators", name)).peak_flops


def test_memories_of_like_names() -> None:
    def figures(name: str) -> tuple[float, float]:
        spec = AcceleratorSpec.model_validate(catalog.entry("accelerators", name))
        return spec.memory_capacity, spec.memory_bandwidth

    assert figures("V100-SXM2-16GB")[0] == 16 * 2**30
    assert figures("H100")[1] == pytest.approx(3350 * GIGA)
    assert figures("GB200")[1] == pytest.approx(8000 * GIGA)
    # 2.1 to 2.3 TB on a board of eight, whatever a page copied from its predecessor says.
    assert 2.1e12 <= 8 * figures("B300")[0] <= 2.4e12


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVLink3", 300),
        ("NVLink4", 450),
        ("NVLink5", 900),
        ("xGMI-MI300X", 448),
        ("InfiniBand-NDR", 50),
        ("ICI-v5p", 600),
    ],
)
def test_bandwidths_are_of_one_direction(name: str, bandwidth: float) -> None:
    assert LinkSpec.model_validate(catalog.entry("interconnects", name)).bandwidth == bandwidth * GIGA


@pytest.mark.parametrize(
    ("system", "each"),
    [
        ("dgx-a100", 25),
        ("dgx-h100", 50),
        ("dgx-1", 6.25),
        ("aws-p4d", 6.25),
        ("aws-p5", 50),
        ("jean-zay-a100", 6.25),
    ],
)
def test_the_scale_out_network_is_one_accelerator_s_share(system: str, each: float) -> None:
    assert group(system).scale_out.bandwidth == each * GIGA


@pytest.mark.parametrize(
    ("system", "gpus"),
    [
        ("selene", 4480),
        ("eos", 4608),
        ("alps", 10752),
        ("perlmutter", 7168),
        ("gb200-nvl72", 72),
        ("tpu-v5p-pod", 8960),
    ],
)
def test_systems_have_their_published_size(system: str, gpus: int) -> None:
    assert group(system).num_gpus == gpus


def test_shapes_that_other_tables_get_wrong() -> None:
    bloom, llama, thirteen, xl = (
        catalogue_model(name) for name in ("bloom-176b", "llama-65b", "gpt3-13b", "gpt3-xl-1.3b")
    )
    assert (bloom.num_hidden_layers, bloom.hidden_size, bloom.num_attention_heads) == (70, 14336, 112)
    assert llama.intermediate_size == 22016
    assert thirteen.hidden_size == 5120
    assert xl.num_attention_heads * xl.head_dim == xl.hidden_size


LISTS = {name for name in catalog.names("models") if catalog.entry("models", name).get("kind") == "layers"}
"""Models that are given layer by layer."""
COUNTED_BY_HAND = {"rnn-t", "ssd300-rn50", "unet3d-kits19"}
"""Models whose number of parameters nobody prints; see tests/theory/test_convolutional_models.py."""


@pytest.mark.parametrize("name", sorted(set(catalog.names("models")) - LISTS))
def test_a_model_can_be_laid_out(name: str) -> None:
    spec = catalogue_model(name)
    assert spec.num_attention_heads % spec.num_key_value_heads == 0
    assert spec.gated_mlp == (spec.hidden_act == "silu" or name in ("grok-1", "t5-v1.1-xxl"))


def published() -> list[dict[str, str]]:
    with PUBLISHED.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_model_has_a_published_count() -> None:
    rows = published()
    assert {row["model"] for row in rows} == set(catalog.names("models")) - COUNTED_BY_HAND
    assert len({row["model"] for row in rows}) == len(rows)
    assert all(re.match("https://", row["source"]) for row in rows)


@pytest.mark.parametrize("row", published(), ids=lambda row: row["model"])
def test_parameters_agree_with_what_is_published(row: dict[str, str]) -> None:
    spec = (catalogue_layers if row["model"] in LISTS else catalogue_model)(row["model"])
    count, printed = count_parameters(spec), Decimal(row["total"])
    if "e" not in row["total"]:
        assert count == int(printed)
        return
    # Rounded figures: half a unit of the last digit that is printed, or one percent.
    unit = Decimal(1).scaleb(int(printed.as_tuple().exponent))
    assert abs(count - printed) <= max(unit / 2, printed / 100)


@pytest.mark.parametrize("row", [row for row in published() if row["active"]], ids=lambda row: row["model"])
def test_active_parameters_agree_with_what_is_published(row: dict[str, str]) -> None:
    # Publishers disagree on whether the embedding is active: up to 3 % of the whole.
    assert active_parameters(catalogue_model(row["model"])) == pytest.approx(float(row["active"]), rel=0.03)
