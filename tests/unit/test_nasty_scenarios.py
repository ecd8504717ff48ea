"""Scenario files that nobody should write: each is refused in its place, or means what is documented."""

import os
import time

import pytest

from simulator.errors import EXIT_USER, ScenarioError
from simulator.scenario import load_scenario, slug

# Line by line, so that a test can replace one and knows where it stands.
GOOD = {
    "name": "name: nasty",
    "cluster": "cluster:",
    "nodes": "  nodes: 2",
    "gpus": "  gpus_per_node: 8",
    "accelerator": "  accelerator: H100-SXM5-80GB",
    "scale_up": "  scale_up: {name: up, bandwidth: 450 GB/s, latency: 1 us}",
    "scale_out": "  scale_out: InfiniBand-NDR",
    "host": "  host: dgx-h100",
    "model": "model: llama3-8b",
    "training": "training:",
    "micro": "  micro_batch_size: 1",
    "global": "  global_batch_size: 64",
}


def text_of(**changed):
    return "\n".join({**GOOD, **changed}.values()) + "\n"


def line_of(key):
    return list(GOOD).index(key) + 1


@pytest.fixture
def load(tmp_path):
    def load(text, **overrides):
        path = tmp_path / "s.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return load_scenario(path, overrides)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """The problems of a text as (line, column, message); a refusal is quick and each problem one line."""

    def refused(text):
        started = time.process_time()
        with pytest.raises(ScenarioError) as caught:
            load(text)
        assert time.process_time() - started < 2
        assert caught.value.exit_code == EXIT_USER
        problems = caught.value.problems
        assert str(caught.value).count("\n") == len(problems) - 1
        assert all(problem.file == str(tmp_path / "s.yaml") for problem in problems)
        return [(problem.line, problem.column, problem.message) for problem in problems]

    return refused


def group_of(scenario):
    return scenario.cluster.node_groups[0]


def test_the_good_file_is_good(load):
    assert load(text_of()).cluster.num_gpus == 16


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 1, 1, "empty scenario"),
        ("# nothing\n\n# here\n", 1, 1, "empty scenario"),
        ("- a\n", 1, 1, "expected a mapping"),
        ("42\n", 1, 1, "expected a mapping"),
        ("null\n", 1, 1, "expected a mapping"),
        (text_of() + "---\n" + text_of(), 13, 1, "second document"),
        (text_of(gpus="  gpus_per_node: 8\n  gpus_per_node: 16"), 5, 3, "it stands at 4:3 already"),
        (text_of(gpus="\tgpus_per_node: 8"), 4, 1, "tab"),
        (text_of(nodes="  nodes: [2"), 4, 16, "flow sequence that starts at 3:10"),
        (b"name: a\x00b\n", 1, 8, "NUL byte at byte offset 7"),
        (b"name: a\x01b\n", 1, 8, "control character U+0001 at byte offset 7"),
        (b"name: caf\xe9\n", 1, 10, "byte 0xe9 at offset 9"),
        (text_of().encode("utf-16"), 0, 0, "UTF-16"),
        ("[" * 100_000, 1, 65, "nested more than"),
        ("a: &a [*a]\n", 1, 8, "inside what it names"),
        ("1: a\n", 1, 1, "a key must be text"),
        ("null: a\n", 1, 1, "a key must be text"),
        ("? [a]\n: b\n", 1, 3, "a key must be text"),
    ],
)
def test_files_that_are_no_scenario(refused, text, line, column, words):
    found = refused(text)
    assert found[0][:2] == (line, column)
    assert words in found[0][2]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + text_of().encode(),
        text_of().replace("\n", "\r\n").encode(),
        text_of().rstrip("\n").encode(),
        b"---\n" + text_of().encode() + b"...\n",
    ],
)
def test_byte_order_marks_and_line_ends_do_not_matter(load, text):
    assert load(text) == load(text_of())


def test_laughs_are_counted_not_told(refused):
    laugh = "".join(f"  x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}'] * 9)}]\n" for i in range(8))
    found = refused(text_of() + "x:\n  x0: &x0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + laugh)
    assert "expands to more than 1,000,000 nodes" in found[0][2]
    assert found[0][0] == 20
    assert len(found[0][2]) < 200


def test_what_is_no_small_file(tmp_path):
    large = tmp_path / "large.yaml"
    with large.open("wb") as stream:
        stream.truncate(200_000_000)
    scalar = tmp_path / "scalar.yaml"
    scalar.write_text("name: " + "x" * 10_000_000)
    os.mkfifo(tmp_path / "fifo")
    expected = {
        large: "200,000,000 bytes",
        scalar: "10,000,006 bytes",
        tmp_path / "fifo": "not a regular file",
        tmp_path: "is a directory",
        "/dev/zero": "not a regular file",
        tmp_path / "none.yaml": "no such file",
    }
    for path, words in expected.items():
        with pytest.raises(ScenarioError) as caught:
            load_scenario(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("key", "written", "column", "words"),
    [
        ("gpus", "9" * 5000, 18, "5,000 characters"),
        ("gpus", "0x" + "f" * 4000, 18, "4,002 characters"),
        ("gpus", "1e400", 18, "must be finite"),
        ("gpus", ".inf", 18, "must be finite"),
        ("gpus", "-.inf", 18, "must be finite"),
        ("gpus", ".nan", 18, "must be finite"),
        ("gpus", "1_000", 18, 'expected a whole number, not the text "1_000"; write 1000'),
        ("gpus", "010", 18, "octal to some readers"),
        ("gpus", "1:30", 18, 'expected a whole number, not the text "1:30"'),
        ("gpus", "on", 18, 'expected a whole number, not the text "on"'),
        ("gpus", "no", 18, 'expected a whole number, not the text "no"'),
        ("gpus", "9e11", 18, "must be 1 to 1,000,000,000"),
        ("gpus", "true", 18, "expected a whole number, not true"),
        ("gpus", '"8"', 18, 'expected a whole number, not the text "8"; write 8'),
        ("gpus", "8.5", 18, "expected a whole number, not 8.5"),
        ("gpus", "null", 18, "expected a whole number, not null"),
        ("gpus", "[8]", 18, "expected a whole number, not a list"),
        ("gpus", "0", 18, "must be 1 to 1,000,000,000, not 0"),
        ("gpus", "-1", 18, "must be 1 to 1,000,000,000, not -1"),
        ("gpus", "1" + "0" * 30, 18, "must be 1 to 1,000,000,000, not 1000"),
        ("gpus", '!!python/object/apply:os.system ["id"]', 18, "nothing is constructed"),
        ("gpus", "!gpu 8", 18, 'tag "!gpu" is not supported'),
        ("accelerator", "{<<: 5}", 21, "<<: expected a mapping"),
        ("accelerator", "H100-SXM5-80", 16, 'did you mean "H100-SXM5-80GB"'),
        ("accelerator", "42", 16, "expected a name of the catalogue or a mapping, not 42"),
        ("accelerator", "{base: H100-SXM5-80}", 23, 'did you mean "H100-SXM5-80GB"'),
        ("accelerator", "{base: 5}", 23, "expected a name of the catalogue, not 5"),
        ("model", "lama3-8b", 8, 'did you mean "llama3-8b"'),
        ("model", "{base: llama3-8b, num_hidden_layers: 0}", 45, "must be 1 to"),
        ("model", "{name: none, layers: []}", 29, "must not be empty"),
        ("micro", "0", 21, "must be 1 to"),
        ("global", "0.0", 22, "must be 1 to"),
        ("training", "5", 11, "expected a mapping, not 5"),
    ],
)
def test_values_that_are_refused(refused, key, written, column, words):
    indent = GOOD[key].split(":")[0]
    cut = {} if key != "training" else {"micro": "", "global": ""}
    (found,) = refused(text_of(**{key: f"{indent}: {written}", **cut}))
    assert found[:2] == (line_of(key), column)
    assert words in found[2]


@pytest.mark.parametrize("written", ["8", "8.0", "0o10", "0x8", "8e0", "+8"])
def test_counts_that_are_accepted(load, written):
    assert group_of(load(text_of(gpus=f"  gpus_per_node: {written}"))).gpus_per_node == 8


@pytest.mark.parametrize(
    ("bandwidth", "words"),
    [
        ("0 GB/s", "out of range"),
        ("-1 GB/s", "out of range"),
        ("-0.0 GB/s", "out of range"),
        ("5e-324 GB/s", "out of range"),
        ("1e-300 GB/s", "out of range"),
        ("1e300 GB/s", "out of range"),
        ("1e9999 GB/s", "out of range"),
        ("450", "has no unit"),
        ("4.5e11", "has no unit"),
        ("450 GB", "measures bytes, not bandwidth"),
        ("450 furlong", 'unknown unit "furlong"'),
        ("fast", "is not a quantity"),
        ("true", "has no unit"),
    ],
)
def test_bandwidths_that_are_refused(refused, bandwidth, words):
    (found,) = refused(text_of(scale_up=f"  scale_up: {{name: up, bandwidth: {bandwidth}, latency: 1 us}}"))
    assert found[:2] == (line_of("scale_up"), 35)
    assert words in found[2]


def test_latency_may_be_zero_but_not_for_ever(load, refused):
    line = "  scale_up: {{name: up, bandwidth: 450 GB/s, latency: {}}}"
    assert group_of(load(text_of(scale_up=line.format("0 s")))).scale_up.latency == 0
    (found,) = refused(text_of(scale_up=line.format("1e18 s")))
    assert found[:2] == (line_of("scale_up"), 54)
    assert "out of range" in found[2]


@pytest.mark.parametrize(
    ("written", "value"),
    [("400 Gb/s", 5e10), ("400 GB/s", 4e11), ("400 GiB/s", 400 * 2.0**30), ("400 Gbps", 5e10)],
)
def test_bits_and_bytes_are_told_apart(load, written, value):
    made = load(text_of(scale_up=f"  scale_up: {{name: up, bandwidth: {written}, latency: 1 us}}"))
    assert group_of(made).scale_up.bandwidth == value


def test_gib_is_not_gb(load):
    line = "  accelerator: {{base: H100-SXM5-80GB, memory_capacity: {}}}"
    sizes = [
        group_of(load(text_of(accelerator=line.format(s)))).accelerator.memory_capacity
        for s in ("80 GB", "80 GiB")
    ]
    assert sizes == [8e10, 85_899_345_920.0]


def test_sparse_rates_are_halved_with_a_warning(load):
    made = load(
        text_of(accelerator="  accelerator: {base: H100-SXM5-80GB, peak_flops: {bf16: 5 TFLOPS (sparse)}}")
    )
    assert group_of(made).accelerator.peak_flops["bf16"] == 2.5e12
    assert "half" in made.warnings[0]


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("tp", "tensor_parallel"),
        ("tensor_model_parallel_size", "tensor_parallel"),
        ("tensor_paralel", "tensor_parallel"),
        ("Tensor-Parallel", "tensor_parallel"),
        ("pp", "pipeline_parallel"),
        ("dp", "data_parallel"),
        ("cp", "context_parallel"),
        ("ep", "expert_parallel"),
        ("zero", "data_parallel_sharding"),
        ("seq_length", "training.sequence_length"),
        ("seq_len", "training.sequence_length"),
        ("mbs", "training.micro_batch_size"),
        ("gbs", "training.global_batch_size"),
        ("num_gpus", "cluster.gpus_per_node"),
        ("hbm", "cluster.accelerator.memory_capacity"),
        ("precision", "training.precision"),
        ("num_layers", "model.num_hidden_layers"),
    ],
)
def test_near_misses_name_the_right_key(refused, key, right):
    (found,) = refused(text_of() + f"parallelism:\n  {key}: 1\n")
    assert found == (14, 3, f'parallelism.{key}: unknown key; did you mean "{right}"?')


@pytest.mark.parametrize(
    ("key", "line", "written", "right"),
    [
        ("gpus", "  gpus: 8", "cluster.gpus", "gpus_per_node"),
        ("gpus", "  num_gpus: 8", "cluster.num_gpus", "gpus_per_node"),
        ("nodes", "  num_nodes: 8", "cluster.num_nodes", "nodes"),
        (
            "scale_up",
            "  scale_up: {name: up, bandwith: 1 GB/s, latency: 1 us}",
            "cluster.scale_up.bandwith",
            "bandwidth",
        ),
        (
            "accelerator",
            "  accelerator: {base: H100-SXM5-80GB, bandwith: 1 GB/s}",
            "cluster.accelerator.bandwith",
            "memory_bandwidth",
        ),
        (
            "accelerator",
            "  accelerator: {base: H100-SXM5-80GB, hbm: 1 GB}",
            "cluster.accelerator.hbm",
            "memory_capacity",
        ),
        ("model", "model: {base: llama3-8b, n_layer: 3}", "model.n_layer", "num_hidden_layers"),
        ("training", "trainning:", "trainning", "training"),
    ],
)
def test_near_misses_elsewhere(refused, key, line, written, right):
    found = refused(text_of(**{key: line}))
    assert (line_of(key), f'{written}: unknown key; did you mean "{right}"?') in [(f[0], f[2]) for f in found]
    # The right key is missing because the wrong one stands there: that is one mistake, not two.
    assert len(found) == 1 or key == "training"


def test_dates_and_words_stay_text(load):
    assert load(text_of(name="name: 2024-01-01")).name == "2024-01-01"
    assert load(text_of(name="name: on")).name == "on"
    assert load(text_of(name="name: 1:30")).name == "1:30"


def test_a_number_is_no_name(refused):
    (found,) = refused(text_of(name="name: 12"))
    assert found[:2] == (1, 7)
    assert "quote it" in found[2]


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "javascript:alert(1)",
        "${7*7}",
        "</style>",
        "=HYPERLINK(1)",
        "+cmd|x",
        "@SUM(1)",
        "../../etc/passwd",
        "CON",
        "a/b",
        "x" * 300,
        "\N{GRINNING FACE}",
        "\u202egnp",
        "two\nlines",
    ],
)
def test_names_are_free_text_and_their_files_are_safe(load, name):
    import json

    made = load(text_of(name=f"name: {json.dumps(name)}"))
    assert made.name == name
    assert slug(made.name).replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert len(slug(made.name)) <= 80


def test_lone_surrogates_are_refused(refused):
    (found,) = refused(text_of(name='name: "\\ud800"'))
    assert found[:2] == (1, 7)
    assert "lone surrogate" in found[2]
    # As raw bytes a surrogate is no UTF-8 at all.
    (found,) = refused(text_of(name="name: \ud800"))
    assert found[:2] == (1, 7)


def test_merge_keys_override(load):
    text = "include: []\n" + text_of(
        accelerator="  accelerator: &a {base: H100-SXM5-80GB, tdp: 1 kW, memory_bandwidth: 1 TB/s}",
        scale_out="  scale_out: InfiniBand-NDR\n  storage: null",
    )
    assert group_of(load(text)).accelerator.tdp == 1000
    groups = (
        "cluster:\n  system: dgx-h100\n  node_groups:\n"
        "  - {nodes: 1, accelerator: &a {base: H100-SXM5-80GB, tdp: 1 kW, memory_bandwidth: 1 TB/s}}\n"
        "  - {nodes: 1, accelerator: {<<: *a, memory_bandwidth: 2 TB/s}}\n"
    )
    made = load(groups + "model: llama3-8b\ntraining: {micro_batch_size: 1, global_batch_size: 64}\n")
    second = made.cluster.node_groups[1].accelerator
    assert (second.tdp, second.memory_bandwidth) == (1000, 2e12)


@pytest.mark.parametrize(
    "target",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "https://example.org/s.yaml",
        "outside.yaml",
        "file:///etc/passwd",
    ],
)
def test_includes_stay_in_the_folder(refused, tmp_path, target):
    (tmp_path / "outside.yaml").symlink_to("/etc/passwd")
    (found,) = refused(f"include: {target}\n" + text_of())
    assert found[:2] == (1, 10)
    assert "outside the scenario folder" in found[2]


def test_include_chains_are_told(refused, load, tmp_path):
    (tmp_path / "b.yaml").write_text("model: llama3-8b\ninclude: s.yaml\n")
    with pytest.raises(ScenarioError) as caught:
        load("include: b.yaml\n" + text_of())
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(tmp_path / "b.yaml"), 2, 10)
    assert f"included from {tmp_path}/s.yaml:1:10" in problem.message
    assert "includes itself" in refused("include: s.yaml\n")[0][2]
    assert "no such file" in refused("include: gone.yaml\n")[0][2]
    for index in range(65):
        (tmp_path / f"d{index}.yaml").write_text(f"include: d{index + 1}.yaml\n")
    with pytest.raises(ScenarioError, match="files deep"):
        load("include: d0.yaml\n")


def test_mistakes_in_an_included_file_stand_there(load, tmp_path):
    (tmp_path / "b.yaml").write_text("training:\n  gbs: 5\n")
    with pytest.raises(ScenarioError) as caught:
        load("include: b.yaml\n" + text_of())
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(tmp_path / "b.yaml"), 2, 3)


def test_a_precision_that_the_accelerator_lacks(refused):
    (found,) = refused(text_of(accelerator="  accelerator: V100-SXM2-32GB", global_="  precision: bf16"))
    assert found[:2] == (13, 14)
    assert 'V100-SXM2-32GB has no figure for "bf16"; it has' in found[2]
    assert "fp16" in found[2]


def test_all_mistakes_are_told_in_the_order_of_the_file(refused):
    found = refused(
        text_of(
            nodes="  nodes: 0",
            gpus="  gpus: 8",
            accelerator="  accelerator: H100",
            model="model: lama3-8b",
            micro="  micro_batch_size: x",
        )
        + "paralelism: {}\n"
    )
    lines = [line for line, _, _ in found]
    assert lines == sorted(lines)
    assert {3, 4, 9, 11, 13} <= set(lines)


def test_blocks_that_are_missing_are_named(refused):
    found = refused("name: a\n")
    assert [message for _, _, message in found] == [
        'missing block "cluster"',
        'missing block "model"',
        'missing block "training"',
    ]
    assert {found[:2] for found in found} == {(1, 1)}


def test_a_thousand_mistakes_are_not_all_told(refused):
    found = refused(text_of() + "".join(f"x{index}: 1\n" for index in range(1000)))
    assert len(found) == 101
    assert any("and 900 more mistakes" in message for _, _, message in found)
