from __future__ import annotations

import dataclasses
import io
import math
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from test_report_sample import GIB, make_result

from simulator.analysis.result import Bottleneck, Result
from simulator.report import print_report
from simulator.report.text import apportion, cause_label, family, grouped, shown, told

GOLDEN = Path(__file__).parent.parent / "golden"
NASTY = "\x1b[31m<script>$x^2$[bold]\u202e\r\nname\ud800\x00"


def report(result: Result, width: int = 80, encoding: str = "utf-8", colour: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
    )
    print_report(result, Path("results/sample"), console)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_the_report_reads_like_this() -> None:
    assert report(make_result()) == (GOLDEN / "report.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [20, 40, 61, 80, 120, 300])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp437"])
def test_no_line_is_wider_than_the_terminal(width: int, encoding: str) -> None:
    result = dataclasses.replace(
        make_result(), fits=False, tokens_per_s=None, model="m" * 90, warnings=["w" * 300]
    )
    text = report(result, width, encoding)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_a_pipe_gets_no_colours_and_a_terminal_does() -> None:
    assert "\x1b" not in report(make_result())
    assert "\x1b[" in report(make_result(), colour=True)


def test_a_terminal_without_utf8_gets_bars_of_ascii() -> None:
    text = report(make_result(), encoding="ascii")
    assert text.isascii()
    assert "####" in text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_cannot_steer_the_terminal(encoding: str) -> None:
    result = dataclasses.replace(
        make_result(), name=NASTY, model=NASTY, accelerator=NASTY, warnings=[NASTY], player=NASTY,
        breakdown={NASTY: 0.2}, memory_by_part={NASTY: GIB}, bottlenecks=[Bottleneck(NASTY, 1.0, 1.0)],
    )  # fmt: skip
    text = report(result, 120, encoding)
    assert not set(text) & set("\x1b\u202e\r\x00")
    assert "[bold]" in text


def test_the_figures_of_the_breakdown_add_up_as_printed() -> None:
    text = report(make_result())
    part = text.split("Where the time of a step went")[1].split("\n\n")[0]
    rows = re.findall(r"([\d.]+) ms +([\d.]+) %", part)
    *causes, step = [(round(10 * float(ms)), round(10 * float(share))) for ms, share in rows]
    assert len(causes) >= 8
    assert (sum(ms for ms, _ in causes), sum(share for _, share in causes)) == step
    assert step[1] == 1000


def test_a_model_that_does_not_fit_is_a_verdict_with_the_whole_budget() -> None:
    parts = {"parameters": 15 * GIB, "optimizer": 60 * GIB, "activations": 18 * GIB}
    result = dataclasses.replace(
        make_result(), fits=False, tokens_per_s=None, tokens_per_s_per_gpu=None, samples_per_s=None,
        mfu=None, hfu=None, model_tflops_per_gpu=None, memory_by_part=parts, peak_memory_bytes=93 * GIB,
        memory_capacity_bytes=80 * GIB,
    )  # fmt: skip
    text = " ".join(report(result).split())
    assert "llama3-8b does not fit on 8 x H100-SXM5-80GB" in text
    assert "needs 93.0 GiB, has 80.0 GiB: 13.0 GiB short" in text
    assert "what holds it: optimizer state 60.0 GiB, activations 18.0 GiB" in text
    assert "tokens/s per GPU -" in text
    parts = {"parameters": 15 * GIB, "optimizer": 70 * GIB, "activations": 6 * GIB, "transient": 2 * GIB}
    text = " ".join(report(dataclasses.replace(result, memory_by_part=parts)).split())
    assert "when: from the start, for what stays between steps is 5.0 GiB too much" in text
    assert "what holds it: optimizer state 70.0 GiB, parameters 15.0 GiB" in text


def offloaded(capacity: int) -> Result:
    return dataclasses.replace(
        make_result(),
        fits=capacity >= 96 * GIB,
        host_memory_bytes=96 * GIB,
        host_memory_capacity_bytes=capacity,
        host_memory_by_part={"optimizer": 90 * GIB, "gradients": 6 * GIB},
        drives_by_part={"parameters": 12 * GIB},
    )


def test_what_lies_on_the_host_is_told() -> None:
    text = report(offloaded(128 * GIB))
    told_by_part = text[text.index("Offloaded, per node") :].splitlines()
    assert re.match(r"  optimizer state +90\.0 GiB  70\.3 %", told_by_part[1])
    assert re.match(r"  gradients +6\.0 GiB   4\.7 %", told_by_part[2])
    assert re.match(r"  parameters on drives +12\.0 GiB", told_by_part[3])
    assert "fits: 32.0 GiB free" in told_by_part[5]
    assert "Offloaded" not in report(make_result())


def test_a_host_that_is_too_small_is_the_verdict() -> None:
    text = report(offloaded(64 * GIB))
    needs = "needs 96.0 GiB of a host's memory, has 64.0 GiB: 32.0 GiB short"
    assert " ".join(text.split("\n\n")[0].split()).endswith(f"{needs}.")
    assert f"does not fit: {needs}" in " ".join(text.split())


@pytest.mark.parametrize(("stall", "said"), [(0.049, False), (0.051, True)])
def test_a_job_that_starves_on_storage_says_so(stall: float, said: bool) -> None:
    step = 10.0
    breakdown = {"data_stall": stall * step, "compute.matmul": (1 - stall) * step}
    text = " ".join(report(dataclasses.replace(make_result(), step_time_s=step, breakdown=breakdown)).split())
    assert ("starves on storage" in text) is said


def test_starving_on_decoding_blames_the_cpus() -> None:
    breakdown = {"data_stall": 1.0, "compute.matmul": 1.0}
    cpus = [Bottleneck("cpu", 0.5), Bottleneck("storage_read", 0.1)]
    text = report(dataclasses.replace(make_result(), step_time_s=2.0, breakdown=breakdown, bottlenecks=cpus))
    assert "starves on the CPUs" in text
    assert "50.0 %" in text


def test_what_more_of_a_bottleneck_is_worth_is_ten_times_its_elasticity() -> None:
    text = report(dataclasses.replace(make_result(), bottlenecks=[Bottleneck("tensor", 0.9, 0.61)]), 120)
    assert "+10 % tensor cores -> +6.1 % throughput" in text


@pytest.mark.parametrize("amounts", [[1.0, 1.0, 1.0], [0.1] * 7, [1e-12, 1.0], [3.0], [2.0, 0.5, 0.25, 1e9]])
def test_apportioned_figures_add_up_and_stay_within_one(amounts: list[float]) -> None:
    parts = apportion(amounts, 1000)
    assert sum(parts) == 1000
    exact = [amount / math.fsum(amounts) * 1000 for amount in amounts]
    assert all(abs(part - value) < 1 for part, value in zip(parts, exact, strict=True))


def test_told_figures_survive_an_empty_and_a_zero_step() -> None:
    assert told([], 0.0) == []
    assert told([("a", 0.0)], 0.0) == [("0.000 us", "0.0 %")]


def test_small_causes_are_added_up_in_one_row() -> None:
    amounts = {f"c{index:02}": float(index) for index in range(30)}
    rows = grouped(amounts, 5)
    assert len(rows) == 5
    assert rows[0] == ("c29", 29.0)
    assert math.fsum(value for _, value in rows) == math.fsum(amounts.values())


@pytest.mark.parametrize(
    ("text", "harmless"),
    [("a\nb", "a?b"), ("\x1b[0m", "?[0m"), ("\u202ea", "?a"), ("né漢", "né漢"), ("$x$", "$x$")],
)
def test_shown_names(text: str, harmless: str) -> None:
    assert shown(text) == harmless


@pytest.mark.parametrize("limit", [5, 8, 200])
def test_long_names_are_cut_in_the_middle(limit: int) -> None:
    cut = shown("a" * 300 + "z", limit)
    assert len(cut) == limit
    assert "..." in cut


@pytest.mark.parametrize(
    ("cause", "kind", "label"),
    [
        ("compute.matmul", "compute", "compute: matmul"),
        ("communication.all_reduce", "communication", "communication: all-reduce"),
        ("pipeline_bubble", "bubble", "pipeline bubble"),
        ("data_stall", "data", "waiting for training data"),
        ("checkpoint", "checkpoint", "writing checkpoints"),
        ("something_new.else", "other", "something new: else"),
    ],
)
def test_causes_in_plain_words(cause: str, kind: str, label: str) -> None:
    assert family(cause) == kind
    assert cause_label(cause) == label


def test_what_is_worth_nothing_is_named_without_a_figure() -> None:
    items = [
        Bottleneck("tensor", 0.9, 0.9),
        Bottleneck("pcie", 0.0001, 0.0),
        Bottleneck("scale_out", 0.0, 0.02),
    ]
    text = report(dataclasses.replace(make_result(), bottlenecks=items), 120)
    assert "of no account: PCIe\n" in text
    assert "+0.2 % throughput" in text


def test_negligible_causes_share_one_row() -> None:
    amounts = {"large": 1.0, "small": 0.01, "tiny": 1e-5, "tinier": 1e-6}
    assert [name for name, _ in grouped(amounts, 10)] == ["large", "small", "other (2)"]
    assert [name for name, _ in grouped({"large": 1.0, "tiny": 1e-5}, 10)] == ["large", "tiny"]


@pytest.mark.parametrize(
    ("encoding", "model"), [("ascii", "model-??"), ("latin-1", "model-é?"), ("utf-8", "model-é漢")]
)
def test_letters_that_the_terminal_lacks_become_question_marks(encoding: str, model: str) -> None:
    text = report(dataclasses.replace(make_result(), model="model-é漢", warnings=["漢"]), 120, encoding)
    assert f"train {model} at" in text


def test_images_are_samples_and_no_tokens() -> None:
    result = make_result()
    text = report(dataclasses.replace(result, tokens_per_s=result.samples_per_s))
    assert "samples/s per GPU" in text and "tokens/s" not in text
