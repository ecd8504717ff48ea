"""Scenarios: short forms, precedence, what a change marks, what is written back."""

import json
import pickle
import time

import pytest

from simulator import catalog
from simulator.documents import load_document, parse_document
from simulator.errors import PlanError, ScenarioError
from simulator.scenario import (
    Variations,
    json_schema,
    load_scenario,
    resolved_yaml,
    scenario_from_mapping,
    slug,
    write_reference,
)
from simulator.units import parse
from support.inputs import shipped

QUICKSTART = shipped("quickstart")

TRAINING = {"sequence_length": 2048, "micro_batch_size": 1, "global_batch_size": 64}
ACCELERATOR = {
    "name": "Paper-1",
    "peak_flops": {"bf16": "2 PFLOP/s"},
    "vector_flops": "100 TFLOP/s",
    "memory_capacity": "200 GB",
    "memory_bandwidth": "6 TB/s",
}


def mapping(**cluster):
    return {"cluster": {"system": "dgx-h100", **cluster}, "model": "llama3-8b", "training": TRAINING}


def messages(data, overrides=None):
    with pytest.raises(ScenarioError) as caught:
        scenario_from_mapping(data, overrides)
    return [problem.message for problem in caught.value.problems]


def test_a_system_gives_what_the_cluster_leaves_out():
    group = scenario_from_mapping(mapping(nodes=4)).cluster.node_groups[0]
    system = catalog.entry("systems", "dgx-h100")
    assert group.nodes == 4
    assert group.gpus_per_node == system["gpus_per_node"]
    assert group.accelerator.name == system["accelerator"]
    assert group.scale_out.name == system["scale_out"]


def test_three_forms_of_a_part():
    h100 = catalog.entry("accelerators", "H100-SXM5-80GB")
    by_name = scenario_from_mapping(mapping(accelerator="H100-SXM5-80GB")).cluster.node_groups[0].accelerator
    assert by_name.memory_bandwidth == parse(h100["memory_bandwidth"], "bandwidth")
    changed = {"base": "H100-SXM5-80GB", "memory_bandwidth": "6 TB/s", "peak_flops": {"bf16": "1 PFLOP/s"}}
    by_base = scenario_from_mapping(mapping(accelerator=changed)).cluster.node_groups[0].accelerator
    assert by_base.memory_bandwidth == 6e12
    assert by_base.peak_flops == by_name.peak_flops | {"bf16": 1e15}
    assert by_base.memory_capacity == by_name.memory_capacity
    full = scenario_from_mapping(mapping(accelerator=ACCELERATOR)).cluster.node_groups[0].accelerator
    assert (full.name, full.peak_flops) == ("Paper-1", {"bf16": 2e15})


def test_a_mapping_without_base_changes_what_the_system_has():
    made = scenario_from_mapping(mapping(accelerator={"memory_bandwidth": "6 TB/s"}))
    assert made.cluster.node_groups[0].accelerator.memory_bandwidth == 6e12
    without = {"nodes": 1, "gpus_per_node": 8, "accelerator": {"memory_bandwidth": "6 TB/s"}}
    told = messages({"cluster": without, "model": "llama3-8b", "training": TRAINING})
    assert any('give "base"' in message for message in told)


def test_changes_are_marked_as_assumed_by_the_scenario():
    changed = {"base": "H100-SXM5-80GB", "memory_bandwidth": "6 TB/s", "peak_flops": {"bf16": "1 PFLOP/s"}}
    figures = scenario_from_mapping(mapping(accelerator=changed)).cluster.node_groups[0].accelerator.figures
    for key in ("memory_bandwidth", "peak_flops.bf16"):
        assert (figures[key].basis, figures[key].source) == ("assumed", "scenario")
    assert figures["default"].basis == "datasheet"


def test_a_hypothetical_part_is_assumed_unless_it_says_otherwise():
    part = scenario_from_mapping(mapping(accelerator=ACCELERATOR)).cluster.node_groups[0].accelerator
    assert part.figures["default"].basis == "assumed"
    figures = {"default": {"basis": "datasheet", "source": "https://example.org/paper-1"}}
    told = scenario_from_mapping(mapping(accelerator={**ACCELERATOR, "figures": figures}))
    assert told.cluster.node_groups[0].accelerator.figures["default"].basis == "datasheet"


def test_node_groups():
    slow = {"base": "A100-SXM4-80GB", "memory_bandwidth": "1 TB/s"}
    groups = [
        {"name": "new", "nodes": 2},
        {"name": "old", "nodes": 3, "system": "dgx-a100", "accelerator": slow},
    ]
    data = {
        "cluster": {"system": "dgx-h100", "node_groups": groups},
        "model": "llama3-8b",
        "training": TRAINING,
    }
    new, old = scenario_from_mapping(data).cluster.node_groups
    assert (new.num_gpus, old.num_gpus) == (16, 24)
    assert new.accelerator.name == "H100-SXM5-80GB"
    assert old.accelerator.memory_bandwidth == 1e12
    told = messages({**data, "cluster": {"nodes": 1, **data["cluster"]}})
    assert told == ["cluster.nodes: belongs in each of the node_groups"]


def test_model_forms(tmp_path):
    layers = [{"type": "linear", "in_features": 10, "out_features": 2}, {"type": "loss", "features": 2}]
    by_layers = scenario_from_mapping({**mapping(), "model": {"name": "mlp", "layers": layers}}).model
    assert by_layers.kind == "layers"
    changed = scenario_from_mapping(
        {**mapping(), "model": {"base": "llama3-8b", "num_hidden_layers": 16}}
    ).model
    assert (changed.num_hidden_layers, changed.hidden_size) == (16, 4096)
    full = {
        "name": "own",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "max_position_embeddings": 4096,
    }
    own = scenario_from_mapping({**mapping(), "model": full}).model
    assert (own.num_key_value_heads, own.head_dim) == (4, 16)


CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
}


def test_a_config_of_hugging_face(tmp_path):
    (tmp_path / "Own-8B").mkdir()
    (tmp_path / "Own-8B" / "config.json").write_text(json.dumps(CONFIG))
    path = tmp_path / "s.yaml"
    model = "{config: Own-8B/config.json, num_hidden_layers: 16}"
    path.write_text(f"cluster: {{system: dgx-h100}}\nmodel: {model}\ntraining: {json.dumps(TRAINING)}\n")
    made = load_scenario(path).model
    assert (made.name, made.num_hidden_layers, made.hidden_size) == ("Own-8B", 16, 4096)


def test_a_mistake_in_a_config_stands_in_the_config(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG | {"vocab_size": "many"}, indent=1))
    path = tmp_path / "s.yaml"
    path.write_text(
        f"cluster: {{system: dgx-h100}}\nmodel: {{config: config.json}}\ntraining: {json.dumps(TRAINING)}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(config), 8, 16)
    config.unlink()
    with pytest.raises(ScenarioError, match=r"s\.yaml:2:17: model\.config: .*no such file"):
        load_scenario(path)


def test_overrides_are_above_the_file():
    overrides = {
        "cluster.accelerator.memory_bandwidth": "6 TB/s",
        "cluster.nodes": 16,
        "training.global_batch_size": "256",
        "model.num_hidden_layers": 16,
        "checkpoint": "{interval: 100}",
        "data": {"sample_size": "32 KiB"},
        "simulation.seed": 7,
    }
    data = mapping(accelerator="H100-SXM5-80GB", nodes=1)
    made = scenario_from_mapping(data, overrides)
    assert made.cluster.node_groups[0].accelerator.memory_bandwidth == 6e12
    assert made.cluster.node_groups[0].accelerator.name == "H100-SXM5-80GB"
    assert made.cluster.node_groups[0].nodes == 16
    assert made.training.global_batch_size == 256
    assert made.model.num_hidden_layers == 16
    assert made.checkpoint.interval == 100
    assert made.data.sample_size == 32 * 1024
    assert data == mapping(accelerator="H100-SXM5-80GB", nodes=1)


def test_overrides_of_node_groups():
    groups = [{"nodes": 2}, {"nodes": 3}]
    two = {**mapping(), "cluster": {"system": "dgx-h100", "node_groups": groups}}
    made = scenario_from_mapping(two, {"cluster.node_groups.1.accelerator.tdp": "1 kW"})
    assert made.cluster.node_groups[1].accelerator.tdp == 1000
    assert made.cluster.node_groups[0].accelerator.tdp == 700
    assert "write cluster.node_groups.0.nodes" in messages(two, {"cluster.nodes": 5})[0]
    one = {**mapping(), "cluster": {"system": "dgx-h100", "node_groups": groups[:1]}}
    assert scenario_from_mapping(one, {"cluster.nodes": 5}).cluster.node_groups[0].nodes == 5
    assert scenario_from_mapping(mapping(), {"cluster.node_groups.0.nodes": 5}).cluster.num_gpus == 40


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.gbs", 5, 'training.gbs: unknown key; did you mean "global_batch_size"?'),
        ("training.steps.x", 5, "training.steps is a single value"),
        ("cluster.node_groups.7.nodes", 5, "is a list of 1; 7 is none of its places"),
        ("training..steps", 5, "expected a dotted key"),
        ("", 5, "expected a dotted key"),
        (".".join("x" * 5000), 5, "expected a dotted key"),
        ("training.steps", "[1", "got '<stream end>'"),
        ("training.steps", 0, "training.steps: must be 1 to 1,000,000,000, not 0"),
        ("training.steps", ".nan", "must be finite"),
        ("training.steps", float("nan"), "expected a whole number, not nan"),
    ],
)
def test_overrides_that_lead_nowhere(key, value, words):
    data = {
        **mapping(),
        "training": {**TRAINING, "steps": 3},
        "cluster": {"system": "dgx-h100", "node_groups": [{}]},
    }
    with pytest.raises(ScenarioError) as caught:
        scenario_from_mapping(data, {key: value})
    (problem,) = caught.value.problems
    assert problem.file.startswith("--set")
    assert problem.line == 0
    assert words in problem.message


def test_resolved_is_complete_and_stable(tmp_path):
    data = mapping(
        accelerator={"base": "H100-SXM5-80GB", "memory_bandwidth": "6 TB/s"},
        scale_up={"name": "Own", "bandwidth": "123.456 GB/s", "latency": "0 us"},
    )
    data |= {"name": 'odd: "name" \N{GRINNING FACE} #1', "data": {"sample_size": "1234567 B"}}
    first = scenario_from_mapping(data, {"model.num_hidden_layers": 3})
    text = resolved_yaml(first)
    path = tmp_path / "resolved.yaml"
    path.write_text(text, encoding="utf-8")
    again = load_scenario(path)
    assert again == first
    assert resolved_yaml(again) == text
    written = load_document(path).data
    assert (
        written["cluster"]["node_groups"][0]["accelerator"]["figures"]["memory_bandwidth"]["basis"]
        == "assumed"
    )
    assert set(written) == {*type(first).model_fields}


@pytest.mark.parametrize("name", catalog.names("models"))
def test_every_model_of_the_catalogue_survives_the_round_trip(name):
    two_stacks = catalog.entry("models", name).get("family") == "encoder-decoder"
    lengths = {"sequence_length": 64} | ({"decoder_sequence_length": 32} if two_stacks else {})
    made = scenario_from_mapping({**mapping(), "model": name, "training": {**TRAINING, **lengths}})
    again = scenario_from_mapping(made.model_dump(mode="json"))
    assert again == made


@pytest.mark.parametrize("name", catalog.names("systems"))
def test_every_system_of_the_catalogue_survives_the_round_trip(name):
    precision = next(iter({"bf16", "fp16"} & set(_peak_flops(name))))
    made = scenario_from_mapping(
        {**mapping(), "cluster": {"system": name}}, {"training.precision": precision}
    )
    again = scenario_from_mapping(parse_document(resolved_yaml(made), "resolved").data)
    assert again == made


def _peak_flops(system):
    return catalog.entry("accelerators", catalog.entry("systems", system)["accelerator"])["peak_flops"]


def test_sparse_rates_are_halved_with_a_warning():
    changed = {"base": "H100-SXM5-80GB", "peak_flops": {"bf16": "1979 TFLOPS (sparse)"}}
    made = scenario_from_mapping(mapping(accelerator=changed))
    assert made.cluster.node_groups[0].accelerator.peak_flops["bf16"] == 989.5e12
    assert len(made.warnings) == 1
    assert "cluster.accelerator.peak_flops.bf16" in made.warnings[0]
    assert made == scenario_from_mapping(
        mapping(accelerator={"base": "H100-SXM5-80GB", "peak_flops": {"bf16": "989.5 TFLOP/s"}})
    )


def test_errors_of_planning_get_their_place(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "cluster:\n  system: dgx-h100\n  nodes: 3\nmodel: llama3-8b\n"
        f"training: {json.dumps(TRAINING)}\nparallelism:\n  tensor_parallel: 7\n"
    )
    made = load_scenario(path, {"parallelism.pipeline_parallel": 2})

    def place(*key):
        (problem,) = made.located(PlanError(key, "no")).problems
        assert problem.message.endswith(": no")
        return problem.file, problem.line, problem.column

    assert place("parallelism", "tensor_parallel") == (str(path), 7, 20)
    assert place("cluster", "node_groups", 0, "nodes") == (str(path), 3, 10)
    assert place("cluster", "node_groups", 0, "accelerator", "memory_capacity") == (str(path), 1, 1)
    assert place("parallelism", "pipeline_parallel") == ("--set", 0, 0)
    assert place("parallelism", "data_parallel") == (str(path), 6, 1)
    (problem,) = made.located(PlanError(("cluster", "node_groups", 0, "nodes"), "no")).problems
    assert problem.message == "cluster.nodes: no"


def test_a_scenario_travels_to_another_process(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"cluster: {{system: dgx-h100}}\nmodel: llama3-8b\ntraining: {json.dumps(TRAINING)}\n")
    made = load_scenario(path)
    there = pickle.loads(pickle.dumps(made))
    assert there == made
    assert str(there.located(PlanError(("model",), "no"))) == f"{path}:2:8: model: no"


def test_thousands_are_built_quickly():
    def build(count):
        for index in range(count):
            scenario_from_mapping(
                {**mapping(nodes=4), "training": {**TRAINING, "global_batch_size": index + 1}}
            )

    build(20)
    started = time.process_time()
    build(200)
    assert (time.process_time() - started) / 200 < 3e-3


def test_positions_of_different_files_do_not_mix(tmp_path):
    """Equal blocks are validated once; where they stand is told by the file that is asked."""
    made = []
    for name, blank in (("a", ""), ("b", "\n\n")):
        path = tmp_path / f"{name}.yaml"
        text = f"{blank}cluster: {{system: dgx-h100}}\nmodel: llama3-8b\ntraining: {json.dumps(TRAINING)}\n"
        path.write_text(f"name: same\n{text}")
        made.append(load_scenario(path))
    assert made[0] == made[1]
    lines = [one.located(PlanError(("model",), "no")).problems[0].line for one in made]
    assert lines == [3, 5]


def test_blocks_that_contradict_each_other():
    learned = {"base": "gpt3-175b"}
    data = {**mapping(), "model": learned, "training": {**TRAINING, "sequence_length": 4096}}
    assert "learned positions for 2,048" in messages(data)[0]
    assert scenario_from_mapping({**data, "model": "llama3-8b"}, {"training.sequence_length": 100_000})
    only_fp16 = {**ACCELERATOR, "peak_flops": {"fp16": "1 PFLOP/s", "fp64": "1 TFLOP/s"}}
    told = messages(mapping(accelerator=only_fp16))
    has = "it has fp16, fp64; the nearest is fp16"
    assert told == [f'training.precision: Paper-1 has no figure for "bf16"; {has}']
    system = {key: value for key, value in catalog.entry("systems", "dgx-h100").items() if key != "storage"}
    bare = {
        key: system[key] for key in ("nodes", "gpus_per_node", "accelerator", "scale_up", "scale_out", "host")
    }
    told = messages(
        {**mapping(), "cluster": bare, "checkpoint": {"interval": 1}, "data": {"sample_size": "1 B"}}
    )
    assert [message.split(":")[0] for message in told] == ["checkpoint", "data"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"base": "llama3-8b", "num_key_value_heads": 5}, "32 = 6 x 5 + 2"),
        ({"base": "mixtral-8x7b", "mixture": {"num_experts_per_tok": 9}}, "9 of only 8 experts"),
    ],
)
def test_a_model_that_cannot_be(model, words):
    assert any(words in message for message in messages({**mapping(), "model": model}))


@pytest.mark.parametrize("name", ["quickstart", "a", "h100_x8.v2", "0"])
def test_plain_names_are_their_own_slug(name):
    assert slug(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "CON",
        "con",
        "nul.txt",
        ".",
        "..",
        "",
        "-rf",
        "x" * 300,
        "\N{GRINNING FACE}",
        "\u202egnp.exe",
        "a\nb",
        "A b",
        "trailing.",
        "<script>alert(1)</script>",
        "=HYPERLINK(1)",
        "caf\u00e9",
        "x-0123abcd",
    ],
)
def test_slugs_are_safe_file_names(name, tmp_path):
    made = slug(name)
    assert len(made) <= 80
    assert made.isascii()
    assert not set(made) & set('/\\<>:"|?*\n ')
    assert not made.startswith((".", "-"))
    assert made.split(".")[0] not in {"con", "nul", "aux", "prn"}
    (tmp_path / made).mkdir()


def test_slugs_do_not_collide():
    names = ["a b", "a/b", "a-b", "A-B", "a--b", "", "x" * 300, "x" * 301, "\u00e9", "e", "\u0301"]
    names.append(slug("a b"))
    assert len({slug(name) for name in names}) == len(names)
    assert len({slug(name).lower() for name in names}) == len(names)


def test_lone_surrogates_have_no_slug():
    with pytest.raises(ValueError, match="surrogate"):
        slug("\ud800")


def test_the_schema_knows_what_files_may_say():
    schema = json_schema()
    json.dumps(schema, allow_nan=False)
    part = schema["$defs"]["acceleratorsPart"]["anyOf"]
    assert "H100-SXM5-80GB" in part[0]["enum"]
    assert part[3]["properties"]["base"]
    assert part[3]["required"] == []
    assert {"nodes", "system", "node_groups", "storage"} <= set(schema["$defs"]["ClusterSpec"]["properties"])
    assert schema["else"]["required"] == ["cluster", "model", "training"]
    references = [text.split('"')[0] for text in json.dumps(schema).split('"#/$defs/')[1:]]
    assert set(references) <= set(schema["$defs"])
    assert schema["$defs"]["ParallelismSpec"]["properties"]["tensor_parallel"]["description"]
    assert schema["$defs"]["AcceleratorSpec"]["additionalProperties"] is False


def test_the_reference_tells_every_key():
    from simulator import specs

    page = write_reference()
    shown = set(json_schema()["$defs"]) - {"ClusterSpec"}
    for name in specs.__all__:
        spec = getattr(specs, name)
        for key in getattr(spec, "model_fields", {}):
            assert name not in shown or f"| `{key}` |" in page
            assert specs.meanings(spec).get(key), f"{name}.{key} has no description"
    assert '| `memory_bandwidth` | bandwidth, as "900 GB/s" | required |' in page
    assert "| `recompute` | `none`, `selective`, `full` | `none` |" in page


def test_a_changed_scenario_is_the_one_that_overrides_give():
    base = load_scenario(QUICKSTART, {"cluster.fabric.oversubscription": 2.0})
    changed = base.changed(
        {
            "training.micro_batch_size": 2,
            "training.recompute": "full",
            "cluster.nodes": 4,
            "cluster.accelerator.memory_bandwidth": lambda rate: 2 * rate,
            "cluster.accelerator.peak_flops.bf16": 1e15,
            "cluster.storage.latency": lambda _: 1e-3,
            "checkpoint": lambda block: block,
        }
    )
    written = load_scenario(
        QUICKSTART,
        {
            "cluster.fabric.oversubscription": 2.0,
            "training.micro_batch_size": 2,
            "training.recompute": "full",
            "cluster.nodes": 4,
            "cluster.accelerator.memory_bandwidth": "6.7 TB/s",
            "cluster.accelerator.peak_flops.bf16": "1 PFLOP/s",
            "cluster.storage.latency": "1 ms",
        },
    )
    without = {"cluster.accelerator.figures": {}, "cluster.storage.figures": {}}
    assert changed.changed(without) == written.changed(without)
    assert changed.model is base.model and changed.parallelism is base.parallelism
    assert base.training.micro_batch_size == 1, "the scenario itself stays as it is"


def test_changes_reach_every_node_group_that_has_the_part():
    base = scenario_from_mapping(
        {
            "cluster": {"node_groups": [{"system": "dgx-h100", "nodes": n} for n in (1, 2)]},
            "model": "llama3-8b",
            "training": {"sequence_length": 8, "micro_batch_size": 1, "global_batch_size": 24},
        }
    )
    changed = base.changed({"cluster.scale_out.bandwidth": lambda rate: rate / 2, "cluster.name": "two"})
    was, now = (
        [group.scale_out.bandwidth for group in scenario.cluster.node_groups] for scenario in (base, changed)
    )
    assert now == [rate / 2 for rate in was]
    assert changed.cluster.name == "two"


def test_variations_are_what_each_override_makes_by_itself():
    data = mapping(accelerator={"base": "H100-SXM5-80GB", "peak_flops": {"bf16": "2 PFLOP/s (sparse)"}})
    variations = Variations(data, {"training.steps": 2}, label="point")
    figure = "cluster.accelerator.memory_bandwidth"
    for overrides in (
        {},
        {figure: "6 TB/s"},
        {figure: "2 TB/s"},
        {"cluster.accelerator": "A100-SXM4-80GB"},
        {"training.micro_batch_size": 2, "cluster.nodes": 3},
        {figure: "6 TB/s", "model": "llama3-70b"},
        {},
    ):
        made = variations.scenario(overrides)
        alone = scenario_from_mapping(data, {"training.steps": 2, **overrides}, label="point")
        assert made == alone and made.warnings == alone.warnings, overrides
    first, second = (variations.scenario({figure: f"{n} TB/s"}) for n in (3, 4))
    assert (
        first.model is second.model
        and first.cluster.node_groups[0].host is second.cluster.node_groups[0].host
    )
    for wrong in ({figure: "6 TB"}, {figure: "7 TB", "training.micro_batch_size": 0}, {figure: "6 TB"}):
        with pytest.raises(ScenarioError) as told:
            variations.scenario(wrong)
        with pytest.raises(ScenarioError) as alone_told:
            scenario_from_mapping(data, wrong, label="point")
        assert told.value.problems == alone_told.value.problems
