"""Documents: values by the core schema, the place of each, and limits that hold before parsing does."""

import errno
import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.documents import (
    MAX_BYTES,
    Position,
    _remembered,
    load_document,
    parse_document,
    parse_value,
    write_yaml,
)
from simulator.documents._compose import compose
from simulator.documents._lines import read_lines
from simulator.errors import EnvironmentFailure, ScenarioError

ROOT = Path(__file__).parents[2]


def refused(text):
    """(line, column, message) of every problem of a text."""
    with pytest.raises(ScenarioError) as caught:
        parse_document(text, "f")
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


def test_every_key_and_value_has_its_place():
    document = parse_document("a: 1\nb:\n  c: [x, {d: y}]\n", "f.yaml")
    assert document.data == {"a": 1, "b": {"c": ["x", {"d": "y"}]}}
    assert document.position(("b", "c", 1, "d")) == Position("f.yaml", 3, 14)
    assert document.position(("b", "c", 1, "d"), "key") == Position("f.yaml", 3, 11)
    assert document.position(("b", "c", 0)) == Position("f.yaml", 3, 7)
    assert document.position(()) == Position("f.yaml", 1, 1)


def test_what_is_not_there_is_placed_at_the_nearest_key_around_it():
    document = parse_document("a: 1\nb:\n  c: 2\n", "f")
    assert document.position(("b", "missing", 3))[1:] == (2, 1)
    assert document.has(("b", "c"))
    assert not document.has(("b", "missing"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-8", -8),
        ("+8", 8),
        ("0", 0),
        ("0o10", 8),
        ("0xff", 255),
        ("8.0", 8.0),
        ("9e11", 9e11),
        ("9.0e11", 9e11),
        (".5", 0.5),
        ("1e-300", 1e-300),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("6 TB/s", "6 TB/s"),
        ("=", "="),
        ("'8'", "8"),
        ('"true"', "true"),
        ("!!str 8", "8"),
        ("!!int 8", 8),
        ("!!float 8", 8.0),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    ],
)
def test_core_schema(text, value):
    read = parse_value(text, "f")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("010", "octal to some readers; write 10"),
        ("-007", "write 7"),
        ("1e400", "must be finite"),
        (".inf", "must be finite"),
        ("-.inf", "must be finite"),
        (".nan", "must be finite"),
        ("NaN", "must be finite"),
        ("Infinity", "must be finite"),
        ("1e-400", "too small"),
        ("9" * 5000, "5,000 characters"),
        ("0x" + "f" * 5000, "5,002 characters"),
        ("!!int x", "not of the type"),
        ("!!bool 1", "not of the type"),
        ("!!timestamp 2024-01-01", "not supported"),
        ("!!binary aGk=", "not supported"),
        ("!gpu x", 'tag "!gpu" is not supported'),
        ("!!set {a}", "not supported"),
        ('"\\ud800"', "lone surrogate"),
    ],
)
def test_scalars_that_are_refused(text, words):
    ((line, column, message),) = refused(f"a: 1\nb: {text}\n")
    assert (line, column) == (2, 4)
    assert words in message


def test_tags_execute_nothing(tmp_path):
    marker = tmp_path / "made"
    problems = refused(f'a: !!python/object/apply:os.system ["touch {marker}"]\n')
    assert problems[0][:2] == (1, 4)
    assert "nothing is constructed" in problems[0][2]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("a: 8\nb: 1\na: 16\n", 3, 1, "1:1"),
        ("b:\n\tc: 1\n", 2, 1, "tab"),
        ("a: [1, 2\n", 2, 1, "starts at 1:4"),
        ("a: {b: 1\nc: 2\n", 2, 2, "starts at 1:4"),
        ("a: 'x\n", 2, 1, "starts at 1:4"),
        ("a: b: c\n", 1, 5, "not allowed here"),
        ("a: &a [*a]\n", 1, 8, "inside what it names"),
        ("a: *b\n", 1, 4, "no anchor"),
        ("1: a\n", 1, 1, "must be text, not 1"),
        ("true: a\n", 1, 1, "must be text, not true"),
        ("null: a\n", 1, 1, "must be text, not null"),
        ("? [a]\n: b\n", 1, 3, "must be text, not a list"),
        ("a: {<<: 5}\n", 1, 9, "<<: expected a mapping"),
        ("%YAML 1.1\n---\na: 1\n", 2, 1, "YAML 1.2 is read"),
        ("", 1, 1, "empty document"),
        ("# only a comment\n", 1, 1, "empty document"),
        ("- 1\n", 1, 1, "expected a mapping"),
        ("5\n", 1, 1, "expected a mapping"),
        ("null\n", 1, 1, "expected a mapping"),
    ],
)
def test_documents_that_are_refused(text, line, column, words):
    found = refused(text)
    assert found[0][:2] == (line, column)
    assert words in found[0][2]


def test_mistakes_are_told_together():
    found = refused("a: .inf\nb: !x 1\nc: 010\nc: 1\n")
    assert [(line, column) for line, column, _ in found] == [(1, 4), (2, 4), (3, 4), (4, 1)]


def test_merge_keys():
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 5}\nw: {<<: *x}\n"
    document = parse_document(text, "f")
    assert document.data["z"] == {"a": 5, "b": 2, "c": 4}
    assert document.data["w"] == {"a": 1, "b": 2}
    assert document.position(("z", "c"))[1:] == (2, 17)


def laughs(levels, width):
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * width)}]" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(8, 9),
        "a0: &a0 {k: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {{x: *a{i}, y: *a{i}}}\n" for i in range(40)),
        "m: &m {"
        + ", ".join(f"k{i}: 1" for i in range(3000))
        + "}\n"
        + "".join(f"n{i}: {{<<: *m}}\n" for i in range(999)),
        "t: &t '" + "x" * 100_000 + "'\nb: [" + ", ".join(["*t"] * 20_000) + "]\n",
    ],
)
def test_expansion_is_counted_and_never_carried_out(text):
    started = time.process_time()
    assert "more than 1,000,000 nodes" in refused(text)[0][2]
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000])
def test_depth_is_limited(text):
    started = time.process_time()
    assert "nested more than 64 deep" in refused(text)[0][2]
    assert time.process_time() - started < 2


def test_depth_counts_through_aliases():
    chain = "".join(f"a{i + 1}: &a{i + 1} {{x: *a{i}}}\n" for i in range(80))
    assert "nested more than 64 deep" in refused("a0: &a0 {k: 1}\n" + chain)[0][2]


@pytest.mark.parametrize(
    ("raw", "line", "column", "words"),
    [
        (b"a: 1\nb: \x00\n", 2, 4, "NUL byte at byte offset 8"),
        (b"a: \x07\n", 1, 4, "U+0007 at byte offset 3"),
        (b"a: caf\xe9\n", 1, 7, "0xe9 at offset 6 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), 0, 0, "UTF-16, at byte 0"),
        ("a: 1\n".encode("utf-16-le"), 1, 2, "NUL byte at byte offset 1"),
        (b"\xff", 1, 1, "offset 0 is not UTF-8"),
        (b"\xef\xbb\xbfa: \x00", 1, 4, "byte offset 6"),
        ("µ: \x1b".encode(), 1, 4, "byte offset 4"),
    ],
)
def test_what_is_not_clean_utf8(tmp_path, raw, line, column, words):
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    with pytest.raises(ScenarioError) as caught:
        load_document(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(path), line, column)
    assert words in problem.message


@pytest.mark.parametrize(
    "raw", [b"\xef\xbb\xbfa: 1\nb: 2\n", b"a: 1\r\nb: 2\r\n", b"a: 1\nb: 2", b'{"a": 1,\n\t"b": 2}']
)
def test_forms_of_the_same_document(tmp_path, raw):
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    document = load_document(path)
    assert document.data == {"a": 1, "b": 2}
    assert document.position(("b",)).line in (1, 2)


def message_of(path):
    with pytest.raises(ScenarioError) as caught:
        load_document(path)
    return str(caught.value)


def test_only_small_regular_files_are_read(tmp_path):
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a: " + b"x" * MAX_BYTES)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert f"at most {MAX_BYTES:,}" in message_of(large)
    assert "not a regular file" in message_of(fifo)
    assert "not a regular file" in message_of("/dev/zero")
    assert "directory" in message_of(tmp_path)
    assert "no such file" in message_of(tmp_path / "nothing.yaml")
    assert "no such file" in message_of(large / "below")
    assert "symbolic links" in message_of(loop)
    assert "not a file name" in message_of("a\0b")
    assert "too long" in message_of("x" * 5000)


def test_no_permission_is_the_environments_fault(tmp_path, monkeypatch):
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(EnvironmentFailure, match="permission denied"):
        load_document(path)


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "scenarios"
    inside.mkdir()
    (tmp_path / "secret.yaml").write_text("secret: 1\n")

    def write(**files):
        for name, text in files.items():
            (inside / f"{name}.yaml").write_text(text)
        return inside / "a.yaml"

    return write


def include_problem(path):
    with pytest.raises(ScenarioError) as caught:
        load_document(path, includes=True)
    return caught.value.problems[0]


def test_include_lies_beneath(folder):
    path = folder(
        a="include: [b.yaml, c.yaml]\nx: {p: 1}\n",
        b="x: {p: 2, q: 3}\ny: [1, 2]\nz: 1\n",
        c="y: [3]\n",
    )
    document = load_document(path, includes=True)
    assert document.data == {"x": {"p": 1, "q": 3}, "y": [3], "z": 1}
    assert document.position(("x", "q")) == Position(str(path.parent / "b.yaml"), 1, 14)
    assert document.position(("x", "p")) == Position(str(path), 2, 8)
    assert document.files == (str(path), str(path.parent / "b.yaml"), str(path.parent / "c.yaml"))


@pytest.mark.parametrize(
    "target",
    [
        "../secret.yaml",
        "../../../../etc/passwd",
        "/etc/passwd",
        "https://example.org/a.yaml",
        "~/a.yaml",
        "link.yaml",
    ],
)
def test_include_stays_in_the_folder(folder, target):
    path = folder(a=f"x: 1\ninclude: {target}\n")
    (path.parent / "link.yaml").symlink_to(path.parent.parent / "secret.yaml")
    problem = include_problem(path)
    assert (problem.line, problem.column) == (2, 10)
    assert "outside the scenario folder" in problem.message


def test_what_is_shared_is_joined_once(folder):
    """Two files of some 2^17 values each, nearly all of them shared."""
    twice = "a0: &a0 {k: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {{x: *a{i}, y: *a{i}}}\n" for i in range(16))
    path = folder(a="include: b.yaml\n" + twice.replace("k: 1", "j: 2"), b=twice)
    started = time.process_time()
    document = load_document(path, includes=True)
    assert time.process_time() - started < 1
    assert document.data["a1"] == {"x": {"k": 1, "j": 2}, "y": {"k": 1, "j": 2}}
    assert document.data["a16"]["x"] is document.data["a16"]["y"]


def test_include_cycles_name_the_chain(folder):
    path = folder(a="include: b.yaml\n", b="x: 1\ninclude: c.yaml\n", c="include: a.yaml\n")
    problem = include_problem(path)
    parent = path.parent
    assert (problem.file, problem.line, problem.column) == (f"{parent}/c.yaml", 1, 10)
    assert "includes itself" in problem.message
    assert f"{parent}/a.yaml:1:10 -> {parent}/b.yaml:2:10" in problem.message
    assert "includes itself" in include_problem(folder(a="include: a.yaml\n")).message


def test_include_depth_and_number(folder):
    path = folder(a="include: f0.yaml\n", **{f"f{i}": f"include: f{i + 1}.yaml\n" for i in range(65)})
    assert "more than 16 files deep" in include_problem(path).message
    many = folder(
        a="include: b.yaml\n",
        **{x: f"include: [{y}.yaml, {y}.yaml]\n" for x, y in zip("bcdefgh", "cdefghi", strict=True)},
        i="x: 1",
    )
    assert "more than 64 files" in include_problem(many).message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("include: nothing.yaml\n", "no such file"),
        ("include: 5\n", "expected the path"),
        ("include: [[a]]\n", "expected the path"),
        ("include: b.yaml\n", "no mapping"),
        ("include: .\n", "directory"),
    ],
)
def test_include_of_what_cannot_be_included(folder, text, words):
    problem = include_problem(folder(a=text, b="- 1\n"))
    assert problem.line == 1
    assert words in problem.message


def test_mistakes_in_an_included_file_stand_in_that_file(folder):
    path = folder(a="include: b.yaml\n", b="x: 1\nx: 2\n")
    problem = include_problem(path)
    assert (problem.file, problem.line) == (str(path.parent / "b.yaml"), 2)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(texts, trees, max_size=5))
def test_what_is_written_reads_back(data):
    if "<<" in data or "<<" in json.dumps(data):
        return
    text = write_yaml(data)
    assert parse_document(text, "f").data == data
    assert write_yaml(parse_document(text, "f").data) == text


@settings(max_examples=40)
@given(st.dictionaries(texts, trees, max_size=5))
def test_json_is_read_as_it_is_meant(data):
    if "<<" in json.dumps(data):
        return
    assert parse_document(json.dumps(data), "f").data == data


@given(st.text(max_size=60) | st.text("[]{}:,-?&*!|>'\"%@`# \n\tab01", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse_document(text, "f", root="any")
    except ScenarioError as error:
        for problem in error.problems:
            assert "\n" not in problem.message
            assert problem.line >= 1


def test_only_plain_values_are_written():
    with pytest.raises(TypeError, match="set"):
        write_yaml({"a": {1}})
    with pytest.raises(TypeError, match="key"):
        write_yaml({"a": {1: 2}})


@given(st.text(alphabet="019xoeE+-._/*()~ nulNaNIftrue", max_size=12))
def test_a_value_of_an_argument_is_read_as_the_parser_reads_it(text):
    def read(reader):
        try:
            return repr(reader())
        except ScenarioError as error:
            return [problem.message for problem in error.problems]

    assert read(lambda: parse_value(text, "--set")) == read(lambda: parse_document(text, "", root="any").data)


def test_a_file_that_changes_is_read_anew_and_one_that_does_not_gives_fresh_data(tmp_path):
    path, below = tmp_path / "a.yaml", tmp_path / "b.yaml"
    path.write_text("include: b.yaml\none: {two: [3]}\n")
    below.write_text("four: 5\n")
    first = load_document(path, includes=True)
    first.data["one"]["two"].append("changed by its owner")
    again = load_document(path, includes=True)
    assert again.data == {"four": 5, "one": {"two": [3]}}
    assert again.position(("one", "two", 0)) == (str(path), 2, 13)
    for text in ("four: 6\n", "four: 7\n"):  # as long as before, and within one tick of the clock
        below.write_text(text)
        assert load_document(path, includes=True).data["four"] == int(text[-2])


def test_what_is_remembered_of_files_is_bounded(tmp_path):
    for number in range(12):
        path = tmp_path / f"{number}.yaml"
        path.write_text("a: 1\n#" + "x" * 200_000)
        assert load_document(path).data == {"a": 1}
    assert sum(len(text) for text, _ in _remembered._trees) <= _remembered.MAX_REMEMBERED


def whole(node):
    entries = [(key, place, whole(child)) for key, (place, child) in node.entries.items()]
    inner = [whole(child) for child in node.items]
    return node.kind, node.position, repr(node.value), node.size, node.depth, inner, entries


def test_every_shipped_file_is_read_line_by_line_as_by_the_parser():
    folders = (ROOT / "simulator" / "catalog" / "data", ROOT / "scenarios")
    files = [file for folder in folders for file in folder.rglob("*.yaml")]
    for file in random.Random(1).sample(files, 60):
        text = file.read_text(encoding="utf-8")
        fast = read_lines(text, "f")
        assert fast is not None, file
        assert whole(fast) == whole(compose(text, "f")), file


PIECES = r"""
a: 1
b: two words
c:
d: >-
e: [1, x, "q"]
f: {g: 1, h: [2]}
i: 'it'
j: "it # is: \"so\""
k: 1 # why
# note
- l
- m: 1
- n: >-
-
- - o
p: a: b
q: - r
s: |
---
...
u: *v
w: &x y
z: a#b
1: 2
"3": 4
a : 5
b: 0x1f
c: 010
d: -
<<: {a: 1}
e: [a: b]
f: [1, 2
g: {a: 1, a: 2}
h: !!str 1
i: ''
j: "a\n"
k: -1.5e3
l: ?m
n: [, ]
o: [1,2]
p: {a: }
q: it's, "so"
""".splitlines()


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(PIECES), st.sampled_from(["", "", " "])),
        max_size=7,
    )
)
def test_what_is_read_line_by_line_is_what_the_parser_reads(lines):
    text = "\n".join(" " * indent + piece + tail for indent, piece, tail in lines)
    fast = read_lines(text, "f")
    if fast is not None:
        assert whole(fast) == whole(compose(text, "f"))


@given(st.dictionaries(texts, trees, min_size=1, max_size=5))
def test_what_is_written_is_read_line_by_line(data):
    text = write_yaml(data)
    fast = read_lines(text, "f")
    assert fast is None or whole(fast) == whole(compose(text, "f"))


@pytest.mark.parametrize("seed", range(4))
def test_a_slip_in_a_file_is_read_as_the_parser_reads_it_or_left_to_it(seed):
    rng, read = random.Random(seed), 0
    files = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "scenarios").glob("*.yaml"))]
    for _ in range(40):
        text = list(rng.choice(files))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 1)] = rng.choice(" \n:-#[]{},\"'\\a1>|&*!.%@?~")
        fast = read_lines("".join(text), "f")
        if fast is not None:
            read += 1
            assert whole(fast) == whole(compose("".join(text), "f")), "".join(text)
    assert read > 10
