"""Sweep files: what they mean, and what they are told when they are wrong."""

import itertools
import math

import pytest

from simulator.errors import ClustersimError, ScenarioError
from simulator.report.charts.sweeps import KINDS as DRAWN
from simulator.sweep import load_sweep_file, planned, run_sweep
from simulator.sweep.expressions import ExpressionError, read_expression
from simulator.sweep.keys import key_facts
from simulator.sweep.plots import KINDS
from support.inputs import shipped

BASE = shipped("quickstart")
BANDWIDTH = "cluster.accelerator.memory_bandwidth"


def sweep(tmp_path, text, **overrides):
    file = tmp_path / "s.yaml"
    file.write_text(f"scenario: {BASE}\n{text}")
    return load_sweep_file(file, overrides)


def values(tmp_path, text, key, **overrides):
    return [point.overrides[key] for point in planned(sweep(tmp_path, text, **overrides))]


def told(tmp_path, text):
    with pytest.raises(ScenarioError) as error:
        sweep(tmp_path, text)
    return [(p.line, p.column, p.message) for p in error.value.problems]


def test_axes_are_crossed_and_the_last_one_changes_fastest(tmp_path):
    text = "axes: {cluster.nodes: [1, 2], training.micro_batch_size: [1, 2, 4]}"
    found = [tuple(point.overrides.values()) for point in planned(sweep(tmp_path, text))]
    assert found == list(itertools.product([1, 2], [1, 2, 4]))


def test_a_logarithmic_range_has_equal_ratios_and_exact_ends(tmp_path):
    text = f"axes: {{{BANDWIDTH}: {{from: 1 TB/s, to: 16 TB/s, points: 9, scale: log}}}}"
    read = [key_facts(BANDWIDTH).number(v) for v in values(tmp_path, text, BANDWIDTH)]
    assert (read[0], read[-1], len(read)) == (1e12, 16e12, 9)
    assert [b / a for a, b in itertools.pairwise(read)] == pytest.approx([math.sqrt(2)] * 8, rel=1e-5)


def test_a_linear_range_by_points_and_by_step(tmp_path):
    assert values(tmp_path, "axes: {cluster.nodes: {from: 2, to: 10, points: 5}}", "cluster.nodes") == [
        2, 4, 6, 8, 10,
    ]  # fmt: skip
    assert values(tmp_path, "axes: {cluster.nodes: {from: 1, to: 10, step: 4}}", "cluster.nodes") == [1, 5, 9]


def test_zipped_axes_go_together(tmp_path):
    text = "zip: [{cluster.nodes: [1, 2], training.global_batch_size: [16, 32]}]"
    assert [tuple(p.overrides.values()) for p in planned(sweep(tmp_path, text))] == [(1, 16), (2, 32)]


def test_grids_follow_one_another_and_share_what_stands_above(tmp_path):
    text = (
        "axes: {cluster.nodes: [1, 2]}\n"
        "grids: [{axes: {training.micro_batch_size: [1, 2]}}, {axes: {training.micro_batch_size: [2, 4]}}]"
    )
    found = [tuple(p.overrides.values()) for p in planned(sweep(tmp_path, text))]
    assert found == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (1, 4),
        (2, 4),
    ]  # (n, 2) of the second grid is there already


@pytest.mark.parametrize("method", ["sobol", "latin_hypercube", "random"])
def test_samples_lie_inside_and_depend_on_the_seed_alone(tmp_path, method):
    if method != "random":
        pytest.importorskip("scipy")
    text = (
        f"axes: {{{BANDWIDTH}: {{from: 1 TB/s, to: 16 TB/s, scale: log}}, cluster.nodes: [1, 2]}}\n"
        "sample: {method: %s, points: 16, seed: %d}"
    )
    once, again, other = (values(tmp_path, text % (method, seed), BANDWIDTH) for seed in (3, 3, 4))
    assert once == again != other
    read = [key_facts(BANDWIDTH).number(v) for v in once]
    assert len(read) == 32 and all(1e12 <= v <= 16e12 for v in read)
    if method != "random":
        # One sample in each sixteenth of the interval: what both promise for 16 points in one dimension.
        assert sorted({math.floor(math.log2(v / 1e12) * 4) for v in read}) == list(range(16))


def test_constraints_and_derived_keys_see_the_cluster_of_each_point(tmp_path):
    text = (
        "axes: {cluster.nodes: [1, 2, 4, 8]}\n"
        'derive: {training.global_batch_size: "2 * num_gpus"}\n'
        'where: ["num_gpus <= 32", "training.global_batch_size > 16"]'
    )
    found = [tuple(p.overrides.values()) for p in planned(sweep(tmp_path, text))]
    assert found == [(2, 32), (4, 64)]


def test_quantities_compare_across_units(tmp_path):
    text = f"axes: {{{BANDWIDTH}: [1 TB/s, 2000 GB/s, 4 TB/s]}}\nwhere: ['{BANDWIDTH} >= \"2 TB/s\"']"
    assert values(tmp_path, text, BANDWIDTH) == ["2000 GB/s", "4 TB/s"]


def test_a_derived_figure_keeps_its_unit(tmp_path):
    text = f"axes: {{cluster.nodes: [1]}}\nderive: {{{BANDWIDTH}: cluster.accelerator.memory_bandwidth * 2}}"
    assert values(tmp_path, text, BANDWIDTH) == ["6.7 TB/s"]


def test_what_cannot_be_derived_is_a_row_with_its_reason(tmp_path):
    text = "axes: {cluster.nodes: [1, 2]}\nderive: {training.global_batch_size: num_gpus / 16}"
    first, second = planned(sweep(tmp_path, text))
    assert "0.5 is no whole number" in first.wrong
    assert second.wrong is None and second.overrides["training.global_batch_size"] == 1


def test_the_command_line_outranks_an_axis(tmp_path):
    text = "axes: {cluster.nodes: [1, 2], training.micro_batch_size: [1, 2]}"
    found = planned(sweep(tmp_path, text, **{"cluster.nodes": 4}))
    assert [tuple(p.overrides.values()) for p in found] == [(4, 1), (4, 2)]


def test_identity_of_a_point_is_its_base_and_its_overrides(tmp_path):
    text = "axes: {cluster.nodes: [1, 2]}"
    first, second = planned(sweep(tmp_path, text))
    assert first.key != second.key
    assert [p.key for p in planned(sweep(tmp_path, text))] == [first.key, second.key]
    assert first.key not in [p.key for p in planned(sweep(tmp_path, text + "\nset: {training.steps: 2}"))]
    assert first.key in [p.key for p in planned(sweep(tmp_path, "axes: {cluster.nodes: [4, 1]}"))]


def test_every_mistake_has_its_place(tmp_path):
    assert told(tmp_path, f"axes:\n  {BANDWIDTH}: []\n  cluster.nodes: {{from: 4, to: 2, points: 3}}\n") == [
        (3, 41, f"axes.{BANDWIDTH}: an axis without values"),
        (4, 25, 'axes.cluster.nodes.from: "from" must be below "to"'),
    ]
    zero = told(tmp_path, f"axes:\n  {BANDWIDTH}: {{from: 0 TB/s, to: 2 TB/s, points: 3}}\n")[0]
    assert zero[0] == 3 and "more than zero" in zero[2]
    line, column, message = told(tmp_path, "axes:\n  cluster.accelerator.memory_bandwith: [1 TB/s]\n")[0]
    assert (line, column) == (3, 3) and 'did you mean "memory_bandwidth"' in message
    line, column, message = told(tmp_path, f"axes:\n  {BANDWIDTH}: [1 TB/s, 3]\n")[0]
    assert (line, column) == (3, 50) and "has no unit" in message
    assert (
        'did you mean "num_gpus"' in told(tmp_path, "axes: {cluster.nodes: [1]}\nwhere: [numgpus < 3]")[0][2]
    )


def test_derived_keys_exist_and_are_no_axes(tmp_path):
    derived = "derive:\n  training.global_batch_sise: 8 * num_gpus\n  cluster.nodes: 2\n"
    assert told(tmp_path, f"axes: {{cluster.nodes: [1, 2]}}\n{derived}") == [
        (4, 3, 'training.global_batch_sise: unknown key; did you mean "global_batch_size"?'),
        (5, 3, "derive.cluster.nodes: is an axis already"),
    ]


def test_quoted_text_measures_what_its_key_does(tmp_path):
    text = f"axes: {{cluster.nodes: [1, 2]}}\nwhere: ['num_gpus > 4 and {BANDWIDTH} > \"2 TB\"']"
    assert told(tmp_path, text) == [
        (3, 9, f'where.0: {BANDWIDTH} is compared with "2 TB"; a bandwidth with its unit is wanted')
    ]


def test_a_method_that_needs_scipy_says_so_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    text = f"axes: {{{BANDWIDTH}: {{from: 1 TB/s, to: 4 TB/s}}}}\nsample: {{method: sobol, points: 4}}"
    ((line, column, message),) = told(tmp_path, text)
    assert (line, column) == (3, 9) and "clustersim[search]" in message


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "axes: {}",
        "axes: [1]",
        "axes: {cluster.nodes: 3}",
        "axes: {cluster.nodes: {from: 1, to: 4}}",
        "axes: {cluster.nodes: {from: 1, to: 4, points: 9}}",
        "axes: {cluster.nodes: {from: 1, to: 4, points: 2, step: 1}}",
        "axes: {cluster.nodes: {from: 1, to: 4, points: 2, scale: cubic}}",
        f"axes: {{{BANDWIDTH}: {{from: 1, to: 4, points: 2}}}}",
        f"axes: {{{BANDWIDTH}: {{from: 1 GB, to: 4 GB, points: 2}}}}",
        "axes: {cluster.fabric.oversubscription: {from: 0, to: 4, points: 2, scale: log}}",
        "axes: {cluster.nodes: [1]}\nzip: [{cluster.nodes: [1], training.steps: [1]}]",
        "zip: [{cluster.nodes: [1, 2], training.steps: [1]}]",
        "axes: {cluster.nodes: [1]}\nsample: {points: 4}",
        "axes: {cluster.nodes: {from: 1, to: 4}}\nsample: {points: 0}",
        "axes: {cluster.nodes: {from: 1, to: 4}}\nsample: {points: 4, method: magic}",
        "axes: {cluster.nodes: [1]}\nwhere: ['(lambda: 1)()']",
        "axes: {cluster.nodes: [1]}\nderive: {training.steps: __import__('os').getpid()}",
        "axes: {cluster.nodes: [1]}\nplots: {x: y}",
        "grids: []",
        "axes: {cluster.accelerator: [H1000]}",
        "axes: {nothing.at.all: [1]}",
        "set: {cluster.nods: 2}\naxes: {cluster.nodes: [1]}",
    ],
)
def test_nonsense_is_refused_with_a_place(tmp_path, text):
    for line, _, message in told(tmp_path, text):
        assert line and message


def test_a_missing_scenario_is_named(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("scenario: nowhere.yaml\naxes: {cluster.nodes: [1]}")
    with pytest.raises(ScenarioError, match=r"s\.yaml:1:11: scenario: no file .*nowhere\.yaml"):
        load_sweep_file(file)


def test_a_milliard_of_points_is_refused_with_the_count(tmp_path):
    axis = "{from: 1, to: 1000, step: 1}"
    text = f"axes: {{cluster.nodes: {axis}, training.steps: {axis}, training.global_batch_size: {axis}}}"
    big = sweep(tmp_path, text)
    with pytest.raises(ClustersimError, match=r"s\.yaml:2:1: 1,000,000,000 points"):
        planned(big)
    assert len(planned(big, limit=5)) == 5


def test_mistakes_in_axes_are_told_together(tmp_path):
    text = "axes: {cluster.acelerator: [1], training.steps: [], cluster.nodes: [1, 0, two]}"
    told_of = told(tmp_path, f"{text}\nzip: 3\nplot: {{kind: pie}}")
    found = {(line, column): message for line, column, message in told_of}
    assert [place[0] for place in sorted(found)] == [2, 2, 2, 2, 3, 4]
    assert any("an axis without values" in message for message in found.values())
    assert any("unknown key" in message for message in found.values())


@pytest.mark.parametrize(
    ("plot", "column", "words"),
    [
        ("x: nodse", 11, "did you mean nodes"),
        ("y: tokens_per_second", 11, "did you mean tokens_per_s"),
        ("y: pipeline_bubble", 11, "in none of"),
        ("by: steps_", 12, "neither an axis nor a figure"),
        ("kind: pie", 14, "must be one of line, bar"),
        ("z: mfu", 8, "unknown key"),
        ("x: 3", 11, "expected some text"),
    ],
)
def test_a_wrong_chart_is_told_before_any_point_runs(tmp_path, plot, column, words):
    found = told(tmp_path, f"axes: {{cluster.nodes: [1, 2], training.steps: [1, 2]}}\nplot: {{{plot}}}")
    assert [(line, at) for line, at, _ in found] == [(3, column)] and words in found[0][2]


@pytest.mark.parametrize(
    "plot",
    [
        "x: nodes, y: mfu, by: steps",
        "x: cluster.nodes",
        "y: breakdown.pipeline_bubble",
        "y: plan.data_parallel",
        "y: limited_by.tensor, kind: bar",
        "y: usd_per_hour",
    ],
)
def test_a_chart_may_show_axes_by_their_ends_and_figures_in_full(tmp_path, plot):
    sweep(tmp_path, f"axes: {{cluster.nodes: [1, 2], training.steps: [1, 2]}}\nplot: {{{plot}}}")


def test_the_kinds_of_chart_that_a_file_may_ask_for_are_those_that_there_are():
    assert KINDS == DRAWN


def test_many_points_must_be_asked_for(tmp_path):
    text = "axes: {cluster.nodes: {from: 1, to: 25, step: 1}, training.steps: {from: 1, to: 1000, step: 1}}"
    many = sweep(tmp_path, text)
    with pytest.raises(ClustersimError, match=r"s\.yaml:2:1: 25,000 points; --yes"):
        planned(many)
    assert len(planned(many, many=True)) == 25_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4 / 2", 5),
        ("7 // 2 + 7 % 3", 4),
        ("-(2 - 5)", 3),
        ("1 < 2 <= 2 and not 3 == 4", True),
        ("a.b == 'x' or a.c", 7),
        ("'3.35 TB/s' / '1 TB/s'", 3.35),
    ],
)
def test_expressions_come_to_what_python_would_make_of_them(text, value):
    assert read_expression(text).value({"a.b": "y", "a.c": 7}.get) in (value, bool(value))


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "f(2)", "a[0]", "[1, 2]", "lambda: 0", "a if b else c", "2 ** 9", "f'{a}'", "(" * 300, "1j"],
)
def test_nothing_but_the_allowed_is_read(text):
    with pytest.raises(ExpressionError):
        read_expression(text)


@pytest.mark.parametrize("text", ["1 / 0", "a + 1", "a < 1", "1e200 * 1e200", "1 % 0"])
def test_an_expression_without_a_value_says_why(text):
    with pytest.raises(ExpressionError):
        read_expression(text).value({"a": "text"}.get)


SHIPPED = sorted((BASE.parent / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_every_shipped_sweep_is_right_and_its_first_point_runs(path, tmp_path):
    shipped = load_sweep_file(path)
    assert len(planned(shipped)) > 30
    summary = run_sweep(shipped, tmp_path / "out", workers=0, limit=1)
    assert sum(summary.counts.values()) == 1 and not summary.failed
