"""Looking up entries by name."""

from __future__ import annotations

import pytest

from simulator import catalog
from simulator.catalog import UnknownEntry, _files


@pytest.mark.parametrize(
    ("kind", "name", "stem"),
    [
        ("accelerators", "H100", "H100-SXM5-80GB"),
        ("accelerators", "h100_sxm_80gb", "H100-SXM5-80GB"),
        ("accelerators", "A100-SXM-80GB", "A100-SXM4-80GB"),
        ("accelerators", "A100-SXM-40GB", "A100-SXM4-40GB"),
        ("accelerators", "RTX4090", "RTX-4090"),
        ("accelerators", "V100-SXM2-32GB", "V100-SXM2-32GB"),
        ("accelerators", "B200-180GB", "B200-SXM-180GB"),
        ("interconnects", "NVLink3", "NVLink3"),
        ("interconnects", "nv link 4", "NVLink4"),
        ("interconnects", "PCIe4", "PCIe4"),
        ("interconnects", "infiniband_ndr", "InfiniBand-NDR"),
        ("systems", "DGX A100", "dgx-a100"),
        ("models", "Llama-3-8B", "llama3-8b"),
        ("models", "meta-llama/Llama-3.1-8B", "llama3.1-8b"),
        ("models", "GPT3_175B", "gpt3-175b"),
    ],
)
def test_names_are_found_whatever_their_spelling(kind: catalog.Kind, name: str, stem: str) -> None:
    assert catalog.path(kind, name).name == f"{stem}.yaml"


def test_a_dot_within_a_number_counts() -> None:
    assert catalog.path("models", "gpt3-13b").name == "gpt3-13b.yaml"
    assert catalog.path("models", "gpt3-1.3b").name == "gpt3-xl-1.3b.yaml"
    with pytest.raises(UnknownEntry):
        catalog.entry("models", "llama3-18b")


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownEntry, match="did you mean") as caught:
        catalog.entry("accelerators", "H100-SXM6-80GB")
    error = caught.value
    assert (error.kind, error.name, error.suggestions[0]) == (
        "accelerators",
        "H100-SXM6-80GB",
        "H100-SXM5-80GB",
    )
    with pytest.raises(LookupError) as nothing:
        catalog.entry("storage", "zzzzzzzz")
    assert "did you mean" not in str(nothing.value)


def test_a_very_long_name_makes_a_short_message() -> None:
    with pytest.raises(UnknownEntry) as caught:
        catalog.entry("models", "x" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["", "aliases", "../models/llama3-8b", "NVLink4.yaml"])
def test_files_are_not_reached_by_paths(name: str) -> None:
    with pytest.raises(UnknownEntry):
        catalog.entry("interconnects", name)


def test_an_unknown_kind_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no kind"):
        catalog.entry("gpus", "H100")  # type: ignore[arg-type]


def test_names_are_canonical_and_sorted() -> None:
    names = catalog.names("accelerators")
    assert names == sorted(names, key=str.casefold)
    assert "H100-SXM5-80GB" in names
    assert "H100" not in names
    assert "aliases" not in names


def test_an_entry_may_be_changed_by_who_took_it() -> None:
    mine = catalog.entry("accelerators", "H100")
    peak = mine["peak_flops"]
    assert isinstance(peak, dict)
    peak.clear()
    assert catalog.entry("accelerators", "H100")["peak_flops"] != {}


def test_one_name_reads_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = _files._parse
    monkeypatch.setattr(_files, "_parse", lambda kind, stem: read.append(stem) or parse(kind, stem))
    for cached in (_files._canonical, _files._alias_keys, _files._read):
        cached.cache_clear()
    catalog.entry("accelerators", "H100-SXM5-80GB")
    catalog.entry("accelerators", "H100-SXM5-80GB")
    assert read == ["H100-SXM5-80GB"]
    catalog.entry("accelerators", "H100")
    assert read == ["H100-SXM5-80GB", "aliases"]


def test_a_name_for_two_files_names_both() -> None:
    with pytest.raises(ValueError, match=r"hosts/a-1\.yaml and hosts/A_1\.yaml"):
        _files._index("hosts", [("a-1", "a-1"), ("A_1", "A_1")])


def test_a_figure_is_spoken_for_by_its_longest_prefix() -> None:
    ground = {"basis": "assumed", "source": "x"}
    block = {"figures": {"default": {"basis": "datasheet", "source": "y"}, "peak_flops": ground}}
    assert catalog.figure(block, "peak_flops.bf16") == ground
    assert catalog.figure(block, "tdp") == {"basis": "datasheet", "source": "y"}
    assert catalog.figure({"figures": {"tdp": ground}}, "peak_flops.bf16") is None
    assert catalog.figure({}, "tdp") is None
