"""Benchmarks of kernels and collectives to validate: told apart, scored by size, refused in place."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from simulator.cli import main
from simulator.cost.attention import AttentionKernel
from simulator.errors import ClustersimError, ScenarioError
from simulator.measurements import (
    WARM_SHARE,
    EngineAttention,
    KernelRates,
    KernelWork,
    Matmuls,
    NodeCollectives,
    PaperAttention,
    Table,
    TableCollectives,
    benchmark_of,
    device,
    misses,
)
from simulator.report import write_validation_document
from simulator.specs import Calibration
from simulator.specs.evidence import Refit
from simulator.validation import Constants, gather_evidence, validate, validate_folder

MATMUL = "id,gpu,precision,m,n,k,time_us,gflop,kernels,source"
ATTENTION = (
    "id,gpu,precision,direction,causal,batch,sequence_length,num_attention_heads,num_key_value_heads,"
    "head_dim,time_us,gflop,source"
)
NODE = "id,gpu,gpus_per_node,scale_up,n_ranks,n_nodes,collective,bytes,time_us,source"
TABLES = (
    "id,gpu,gpus_per_node,scale_up,scale_out_gbps_per_gpu,n_ranks,n_nodes,collective,bytes,time_us,in_network,"
    "hardware,source"
)
PAPERS = "id,source,gpu,kernel,precision,batch,seq_len,n_heads,head_dim,causal,direction,time_ms,tflops"
RATES = (
    "id,source,gpu,kernel,precision,m,n,k,batch,seq_len,n_heads,head_dim,causal,direction,time_ms,tflops,"
    "peak_tflops,efficiency,bandwidth_GBps,peak_bandwidth_GBps"
)
H100, A100 = "H100-SXM-80GB", "A100-SXM-80GB"


def file(folder: Path, name: str, header: str, *rows: str) -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows, ""]))
    return path


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (MATMUL, Matmuls),
        (ATTENTION, EngineAttention),
        (NODE, NodeCollectives),
        (TABLES, TableCollectives),
        (PAPERS, PaperAttention),
        (RATES, KernelRates),
    ],
)
def test_files_are_told_apart_by_their_columns(tmp_path: Path, header: str, kind: type) -> None:
    shuffled = ",".join(sorted(header.split(",")))
    assert isinstance(benchmark_of(Table(file(tmp_path, "a.csv", header))), kind)
    assert isinstance(benchmark_of(Table(file(tmp_path, "b.csv", shuffled))), kind)


def test_predictions_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "gemm.csv",
        MATMUL,
        f"big,{H100},bf16,8192,8192,8192,1600,1099,vllm,s",
        f"small,{H100},bf16,128,128,128,5,0.004,vllm,s",
        f"odd,{H100},int3,128,128,128,5,0.004,vllm,s",
    )
    out = tmp_path / "p.csv"
    assert main(["validate", str(path), "--out", str(out), "--quiet"]) == 0
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "status", "reason", "predicted_time_us"]
    assert [row["status"] for row in rows] == ["ok", "ok", "unsupported"]
    assert "int3" in rows[2]["reason"]
    # No faster than the data sheet's peak, no slower than half of it.
    peak = 2 * 8192**3 / 989.4e12 * 1e6
    assert peak < float(rows[0]["predicted_time_us"]) < 2 * peak


def test_sizes_and_groups_are_scored_apart(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "gemm.csv",
        MATMUL,
        f"a,{H100},bf16,8192,8192,8192,1,1,vllm,s",
        f"b,{H100},bf16,8192,8192,8192,1,1,trtllm,s",
        f"c,{H100},fp8,8192,8192,8192,1,1,trtllm,s",
        f"d,{A100},bf16,512,512,512,1,1,vllm,s",
    )
    found = {score.metric.name: [group.name for group in score.groups] for score in validate(path).metrics}
    assert sorted(found["bf16 above 1 GFLOP"]) == [f"{H100} bf16 trtllm", f"{H100} bf16 vllm"]
    assert found["fp8 above 1 GFLOP"] == [f"{H100} fp8 trtllm"]
    assert found["up to 1 GFLOP"] == [f"{A100} bf16 vllm"]


def test_collectives_are_scored_by_message_and_nodes(tmp_path: Path) -> None:
    mib = 2**20
    row = "{id},{gpu},8,NVLink4,400,{ranks},{nodes},all_reduce,{size},100,,H100 with NDR IB,s"
    path = file(
        tmp_path,
        "t.csv",
        TABLES,
        row.format(id="a", gpu=H100, ranks=8, nodes=1, size=mib),
        row.format(id="b", gpu=H100, ranks=16, nodes=2, size=mib),
        row.format(id="c", gpu=H100, ranks=8, nodes=1, size=mib - 1),
    )
    found = {score.metric.name: score.total.rows for score in validate(path).metrics}
    assert found == {"one node, 1 MiB and above": 1, "several nodes, 1 MiB and above": 1, "below 1 MiB": 1}
    node = file(tmp_path, "n.csv", NODE, f"a,{H100},8,NVLink4,8,1,alltoall,{4 * mib},100,s")
    assert [score.metric.name for score in validate(node).metrics] == ["4 MiB and above"]


@pytest.mark.parametrize(
    ("header", "row", "place", "said"),
    [
        (MATMUL, f"a,{H100},bf16,0,8,8,1,1,vllm,s", "2:22", "m: 0 is not a whole number"),
        (MATMUL, f"a,{H100},bf16,8,8.5,8,1,1,vllm,s", "2:24", "n: 8.5"),
        (MATMUL, f"a,{H100},bf16,8,8,,1,1,vllm,s", "2:26", "k: an empty cell"),
        (MATMUL, f"a,{H100},bf16,8,8,8,NaN,1,vllm,s", "2:28", "time_us: "),
        (MATMUL, f"a,{H100},bf16,8,8,8,-4,1,vllm,s", "2:28", "time_us: -4"),
        (MATMUL, f"a,{H100},bf16,8,8,8,0,1,vllm,s", "2:28", "time_us: 0"),
        (NODE, f"a,{H100},8,NVLink4,9,1,all_reduce,8,1,s", "2:27", "n_ranks: 9 ranks do not spread"),
        (
            ATTENTION,
            f"a,{H100},bf16,forward,True,2,64,3,8,64,5,1,s",
            "2:42",
            "num_key_value_heads: 8 does not divide num_attention_heads: 3",
        ),
        (NODE, f"a,{H100},8,NVLink4,8,1,all_reduce,1e99,1,s", "2:42", "bytes: 1e99"),
        (ATTENTION, f"a,{H100},bf16,forward,maybe,1,8,8,8,64,1,1,s", "2:30", "causal: "),
    ],
)
def test_mistakes_are_told_with_line_and_column(
    tmp_path: Path, header: str, row: str, place: str, said: str
) -> None:
    path = file(tmp_path, "m.csv", header, row)
    with pytest.raises(ScenarioError) as caught:
        validate(path)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}:{place}: {said}")


def test_a_repeated_run_finds_small_operands_in_the_cache() -> None:
    cache = 50e6 / WARM_SHARE
    assert misses(0.0, cache) == misses(50e6, cache) == 0.0
    assert misses(100e6, cache) == pytest.approx(0.7968, abs=1e-4)  # m = 1 - exp(-2 m)
    assert misses(5e9, cache) == pytest.approx(1.0, abs=1e-9)
    assert misses(1.0, None) == 1.0


@pytest.mark.parametrize("lines", [900, 1200, 1600, 3000])
def test_the_share_that_misses_is_that_of_random_replacement(lines: int) -> None:
    """Lines of a cache of 1,000 that are read in turn, counted one by one."""
    draw = Random(lines)
    held: list[int] = []
    place: dict[int, int] = {}
    missed = 0
    for turn in range(40):
        for line in range(lines):
            if line in place:
                continue
            missed += turn >= 20
            if len(held) < 1000:
                place[line] = len(held)
                held.append(line)
                continue
            victim = draw.randrange(1000)
            del place[held[victim]]
            held[victim], place[line] = line, victim
    assert missed / (20 * lines) == pytest.approx(misses(lines, 1000 / WARM_SHARE), abs=0.02)


def test_fp8_includes_the_cast_of_its_activations() -> None:
    rows, size = 65536, 65536 * 4096
    cells = {"id": "a", "gpu": H100, "precision": "fp8", "m": str(rows), "n": "4096", "k": "4096"}
    work = Matmuls().work(cells)
    assert [kernel.kind for kernel in work.kernels] == ["matmul", "elementwise"]
    cast = work.kernels[1]
    # One scale for all: the activations are read for it, and again to cast them.
    assert (cast.read_bytes, cast.write_bytes, cast.launches) == pytest.approx((4 * size, size, 2), rel=1e-6)
    # A scale for each row: one kernel, a block of threads a row.
    each = Matmuls().work(cells | {"kernels": "vllm"}).kernels[1]
    assert (each.read_bytes, each.write_bytes, each.launches) == pytest.approx((2 * size, size, 1), rel=1e-6)
    assert each.flops == rows * 2000 * 128
    # The host queues its launches ahead: an infinitely slow launching thread costs nothing.
    slow = Calibration.load().with_values(host_launch_time=1.0)
    assert work.seconds(slow) == pytest.approx(work.seconds(Calibration.load()), rel=1e-6)


def test_engines_write_keys_and_values_to_their_cache() -> None:
    cells = {
        "id": "a",
        "gpu": A100,
        "batch": "4",
        "sequence_length": "4096",
        "num_attention_heads": "32",
        "num_key_value_heads": "8",
        "head_dim": "128",
        "source": "tables VLLM 0.24.0",
    }
    keys = 2 * 4 * 4096 * 8 * 128
    queries = 2 * 4 * 4096 * 32 * 128
    plain = EngineAttention().work(cells).kernels[1]
    assert plain.read_bytes == plain.write_bytes == pytest.approx(2 * keys, rel=1e-3)
    # 512 threads for each token, a quarter of what a unit holds, for 5,000 cycles.
    assert plain.flops == 4 * 4096 * 5000 // 4 * 128
    turned = EngineAttention().work({**cells, "source": "tables TRTLLM 1.0.0"}).kernels[1]
    assert turned.read_bytes == pytest.approx(2 * keys + queries, rel=1e-3)
    assert turned.flops == 0


@pytest.mark.parametrize(
    ("gpu", "engine", "queries", "interleaved", "scheduled", "launches"),
    [
        (H100, "SGLang", 128, True, True, 3),
        (H100, "VLLM", 128, True, True, 3),
        (H100, "TRTLLM", 128, False, False, 4),
        ("L40S", "SGLang", 128, True, True, 3),
        ("L40S", "VLLM", 64, False, False, 2),
        (A100, "TRTLLM", 64, False, False, 4),
        ("B200", "TRTLLM", 128, True, False, 4),
        (A100, "another", 128, True, False, 2),
    ],
)
def test_engines_choose_their_kernels_by_the_accelerator(
    gpu: str, engine: str, queries: int, interleaved: bool, scheduled: bool, launches: int
) -> None:
    cells = {
        "gpu": gpu,
        "batch": "1",
        "sequence_length": "1024",
        "num_attention_heads": "8",
        "head_dim": "128",
        "source": f"tables {engine} 1.0",
    }
    work = EngineAttention().work(cells)
    assert work.attention == AttentionKernel(queries, interleaved, scheduled)
    assert sum(kernel.launches for kernel in work.kernels) == launches


def test_weights_that_nobody_wrote_draw_less_power() -> None:
    """Where power limits, time goes with the cube root of the energy."""
    cells = {"gpu": "L40S", "precision": "bf16", "m": "16384", "n": "16384", "k": "16384"}
    calibration = Calibration.load().with_values(roofline_softness=0.0, unwritten_energy_fraction=0.5)
    times = {
        library: Matmuls().work({**cells, "kernels": library}).seconds(calibration)
        for library in ("trtllm", "vllm")
    }
    assert times["vllm"] / times["trtllm"] == pytest.approx(0.5 ** (1 / 3), rel=1e-3)


def test_weights_take_turns_until_they_fill_the_cache() -> None:
    """8 MiB each: five are all of A100's cache; activations and result stay."""
    cells = {"gpu": A100, "precision": "bf16", "m": "64", "n": "2048", "k": "2048"}
    weights, rest = 2 * 2048 * 2048, 2 * 64 * (2048 + 2048)
    one, five, six = (
        Matmuls().work({**cells, "kernels": library}).kernels[0] for library in ("", "trtllm", "vllm")
    )
    assert one.read_bytes == 0
    assert five.read_bytes == int(misses(5 * weights + rest, 40 * 2**20) * weights)
    assert six.read_bytes == int(misses(6 * weights + rest, 40 * 2**20) * weights) > 0
    assert one.write_bytes == five.write_bytes == six.write_bytes == 0


def test_a_collective_of_one_rank_is_not_predicted(tmp_path: Path) -> None:
    path = file(tmp_path, "n.csv", NODE, f"a,{H100},8,NVLink4,1,1,all_reduce,1024,5,s")
    report = validate(path)
    assert (report.rows, report.predicted) == (1, 0)
    assert "one rank" in "; ".join(report.reasons)


def test_a_reduction_to_one_rank_takes_as_long_as_a_broadcast() -> None:
    row = {
        "id": "a",
        "gpu": A100,
        "gpus_per_node": "8",
        "scale_up": "NVLink3",
        "n_ranks": "8",
        "n_nodes": "1",
        "bytes": str(2**26),
    }
    calibration = Calibration.load()
    times = {
        name: NodeCollectives().work({**row, "collective": name}).seconds(calibration)
        for name in ("reduce", "broadcast", "all_reduce")
    }
    assert times["reduce"] == times["broadcast"] < times["all_reduce"]


def test_of_the_hardware_only_the_network_is_read() -> None:
    row = {
        "id": "a",
        "gpu": H100,
        "gpus_per_node": "8",
        "scale_up": "NVLink4",
        "scale_out_gbps_per_gpu": "400",
        "n_ranks": "16",
        "n_nodes": "2",
        "collective": "all_reduce",
        "bytes": str(2**30),
    }
    work = TableCollectives().work({**row, "hardware": "2x p5.48xlarge, EFA"})
    assert work.group.scale_out.bandwidth == 50e9
    assert work.group.scale_out.latency == pytest.approx(15e-6)
    other = TableCollectives().work({**row, "hardware": "my own cluster"})
    assert other.group.scale_out.latency < 3e-6
    sharp = TableCollectives().work({**row, "in_network": "sharp"})
    assert sharp.group.scale_out.in_network_reduction


def test_v100s_of_eight_to_a_node_have_no_switch() -> None:
    row = {"gpu": "V100-SXM2-32GB", "scale_up": "NVLink2", "n_ranks": "8", "n_nodes": "1", "bytes": "1024"}
    work = NodeCollectives().work({**row, "gpus_per_node": "8", "collective": "all_reduce"})
    assert work.group.scale_up.topology == "mesh"
    large = NodeCollectives().work({**row, "gpus_per_node": "16", "collective": "all_reduce"})
    assert large.group.scale_up.topology == "switch"


def test_the_unit_of_work_is_the_catalogues_card() -> None:
    assert device("H100-SXM5 80GB").name == "H100-SXM5-80GB"
    work = Matmuls().work({"gpu": "L40S", "precision": "bf16", "m": "8", "n": "8", "k": "8"})
    assert isinstance(work, KernelWork)
    assert work.accelerator.name == "L40S"


def test_a_folder_scores_what_it_finds_and_names_what_it_passes_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file(tmp_path, "gemm.csv", MATMUL, f"a,{H100},bf16,8192,8192,8192,1600,1099,vllm,s")
    file(tmp_path, "node.csv", NODE, f"a,{H100},8,NVLink4,8,1,alltoall,4194304,100,s")
    file(tmp_path, "prices.csv", "what,price", "gpu,1")
    out = tmp_path / "out"
    assert main(["validate", str(tmp_path), "--json", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in told["files"]] == ["matrix products", "collectives of one node"]
    assert told["passed_over"] == ["prices.csv"]
    assert sorted(path.name for path in out.iterdir()) == ["gemm.csv", "node.csv"]


def test_a_folder_with_nothing_to_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClustersimError, match="no file of measurements"):
        validate_folder(tmp_path)
    file(tmp_path, "empty.csv", "")
    with pytest.raises(ScenarioError, match=r"empty\.csv:1:1: empty file"):
        validate_folder(tmp_path)


def test_the_document_holds_every_group_and_its_misses(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "gemm.csv",
        MATMUL,
        f"good,{H100},bf16,8192,8192,8192,1600,1099,vllm,s",
        f"bad,{A100},bf16,8192,8192,8192,160000,1099,vllm,s",
        f"odd,{H100},int3,8192,8192,8192,160,1099,trtllm,s",
    )
    document = tmp_path / "docs" / "VALIDATION.md"
    document.parent.mkdir()
    files = [validate(path)]
    write_validation_document(files, Calibration.load(), document)
    first = document.read_bytes()
    write_validation_document(files, Calibration.load(), document)
    assert document.read_bytes() == first
    text = first.decode()
    names = (f"{H100} int3 trtllm", f"{A100} bf16 vllm", f"{H100} bf16 vllm")
    places = [text.index(f"| {name} |") for name in names]
    assert places == sorted(places)
    assert "int3" in text and "bad 1.6e+05" in text
    assert (document.parent / "images" / "validation.png").read_bytes().startswith(b"\x89PNG")
    document.write_text("my own notes")
    with pytest.raises(ClustersimError, match="holds something else"):
        write_validation_document(files, Calibration.load(), document)


def test_evidence_takes_each_row_from_the_fit_that_had_not_seen_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(
        tmp_path,
        "gemm.csv",
        MATMUL,
        *(f"{gpu},{gpu},bf16,8192,8192,8192,1600,1099,vllm,s" for gpu in (H100, A100)),
    )
    shared = Calibration.load()
    half = shared.constants["matmul_peak_fraction"].value / 2
    refit = Refit(left_out="accelerator H100", values={"matmul_peak_fraction": half})
    changed = shared.model_copy(update={"refits": [refit]})

    def load(self: Constants) -> Calibration:
        return changed.without(self.without) if self.without else changed

    monkeypatch.setattr(Constants, "load", load)
    (trial,) = gather_evidence(tmp_path, "shared", command="c").trials
    assert trial.measurements == "matrix products, bf16 above 1 GFLOP"
    assert trial.accelerator_left_out is not None and trial.source_left_out is not None
    # Half the rate on the H100 alone, but at a higher clock; nothing was refitted without the source.
    assert trial.accelerator_left_out.mean > trial.fitted.mean + 0.1
    assert trial.source_left_out == trial.fitted
    assert trial.fitted.low <= trial.fitted.high


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        sizes = (64 * (1 + number % 50) for number in range(count))
        rows = (f"r{number},{H100},bf16,{m},512,512,10,1,vllm,s" for number, m in enumerate(sizes))
        path = file(tmp_path, f"{count}.csv", MATMUL, *rows)
        tracemalloc.start()
        validate(path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(200)
    # Beyond the points of the chart a row costs its digest and its error, each 8 bytes, held twice at most.
    few, many = peak(3000), peak(9000)
    assert (many - few) / 6000 < 50


def test_a_file_of_many_kinds_of_kernels_is_none_of_them(tmp_path: Path) -> None:
    file(tmp_path, "gemm.csv", MATMUL, f"a,{H100},bf16,8192,8192,8192,1600,1099,vllm,s")
    file(tmp_path, "others.csv", f"{PAPERS},m,n,k", f"a,s,{H100},gemm,bf16,,,,,,,,700,8,8,8")
    found = validate_folder(tmp_path)
    assert [each.kind for each in found.files] == ["matrix products"]
    assert found.passed_over == ("others.csv",)
    assert benchmark_of(Table(tmp_path / "others.csv")) is None


def test_rates_of_kernels_are_times_of_products_and_copies(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "rates.csv",
        RATES,
        "a,s,NVIDIA H100 SXM,gemm,bf16,2048.0,2048.0,13312.0,,,,,,,,794.5,989,0.8,,",
        "b,s,V100-PCIE-32GB,memcpy_d2d,,,68000000.0,,,,,,,,,,,,762.8,900",
        "c,s,V100-PCIE-32GB,memcpy_h2d,,,68000000.0,,,,,,,,,,,,12.4,15.75",
        "d,s,H100-SXM,gemm (60 s burn),bf16/fp16,,,,,,,,,,,769.0,989,0.78,,",
    )
    report = validate(path, workers=1)
    scores = {score.metric.name: score for score in report.metrics}
    assert {name: score.total.predicted for name, score in scores.items()} == {"products": 1, "copies": 1}
    (product,) = scores["products"].worst
    assert product.measured == pytest.approx(2 * 2048 * 2048 * 13312 / 794.5e12 * 1e6)
    (copy,) = scores["copies"].worst
    assert copy.measured == pytest.approx(2 * 68e6 / 762.8e9 * 1e6)
    assert all(abs(row.error) < 0.1 for row in (product, copy))
    reasons = "; ".join(report.reasons)
    assert "memcpy_h2d" in reasons and "60 s burn" in reasons


def test_flash_attention_2_on_hopper_is_in_older_instructions() -> None:
    """Shah et al., FlashAttention-3, Fig. 5: a third to two thirds slower than the newer kernels."""
    cells = {"id": "a", "gpu": "H100-SXM5 80GB", "precision": "fp16", "batch": "2", "seq_len": "8192"}
    cells |= {"n_heads": "16", "head_dim": "128", "causal": "no", "direction": "fwd"}
    calibration = Calibration.load()
    times = {
        kernel: PaperAttention().work(cells | {"kernel": f"attention {kernel}"}).seconds(calibration)
        for kernel in ("FA2", "FA3")
    }
    assert 1.5 < times["FA2"] / times["FA3"] < 2.0
    both = PaperAttention().work(cells | {"kernel": "attention FA2", "direction": "fwd+bwd"})
    assert 3.0 < both.seconds(calibration) / times["FA2"] < 4.5
