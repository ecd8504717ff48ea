"""Measurement files: what is refused, and at which line and column."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulator.errors import ScenarioError
from simulator.measurements import Table
from simulator.validation import validate
from simulator.validation._kind import recognise

HEADER = (
    "id,group,family,num_hidden_layers,hidden_size,num_attention_heads,vocab_size,sequence_length,"
    "micro_batch_size,global_batch_size,gpu,num_gpus,gpus_per_node,scale_up,measured_step_time_s,"
    "measured_peak_memory_gib,memory_kind"
)
ROW = "{id},g,decoder,24,2048,16,51200,2048,4,512,A100-SXM-80GB,32,8,NVLink3,{time},,"


def write(folder: Path, *rows: str, header: str = HEADER, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def row(name: str = "a", time: str = "1.5") -> str:
    return ROW.format(id=name, time=time)


def problems(path: Path) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        validate(path)
    return [str(problem).removeprefix(f"{path}") for problem in caught.value.problems]


def column_of(line: str, cell: int) -> int:
    return len(",".join(line.split(",")[:cell])) + 2 if cell else 1


@pytest.mark.parametrize(
    "text", ["NaN", "nan", "inf", "-inf", "1e400", "fast", "0x10", "1_000", "1,5".replace(",", ";")]
)
def test_what_is_no_finite_number_is_refused_where_it_stands(tmp_path: Path, text: str) -> None:
    bad = row("b", text)
    (message,) = problems(write(tmp_path, row("a"), bad))
    assert message.startswith(f":3:{column_of(bad, 14)}: measured_step_time_s: ")
    assert text in message


@pytest.mark.parametrize("text", ["0", "0.0", "-0", "-1.5", "1e-320e"])
def test_zero_and_negative_measurements_are_refused(tmp_path: Path, text: str) -> None:
    bad = row("b", text)
    (message,) = problems(write(tmp_path, bad))
    assert message.startswith(f":2:{column_of(bad, 14)}: measured_step_time_s: ")


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    lines = problems(write(tmp_path, row("a", "0"), row("b"), row("b"), row("", "2")))
    assert [line.split(": ")[0] for line in lines] == [f":2:{column_of(row('a', '0'), 14)}", ":4:1", ":5:1"]
    assert "line 3" in lines[1]


def test_a_foreign_file_does_not_list_a_million_mistakes(tmp_path: Path) -> None:
    lines = problems(write(tmp_path, *(row(str(number), "nan") for number in range(500))))
    assert len(lines) == 21
    assert lines[-1].startswith(": and perhaps more")


@pytest.mark.parametrize(
    ("cell", "text", "column"),
    [
        (3, "24.5", "num_hidden_layers"),
        (3, "0", "num_hidden_layers"),
        (3, "-24", "num_hidden_layers"),
        (4, "wide", "hidden_size"),
        (11, "1e12", "num_gpus"),
        (6, "", "vocab_size"),
    ],
)
def test_a_cell_of_the_wrong_type_is_refused(tmp_path: Path, cell: int, text: str, column: str) -> None:
    cells = row().split(",")
    cells[cell] = text
    bad = ",".join(cells)
    (message,) = problems(write(tmp_path, bad))
    assert message.startswith(f":2:{column_of(bad, cell)}: {column}: ")


def test_a_row_without_any_measurement_is_refused(tmp_path: Path) -> None:
    (message,) = problems(write(tmp_path, row(time="")))
    assert message.startswith(":2:1: no measurement")


def test_positions_count_quoted_cells_and_their_line_ends(tmp_path: Path) -> None:
    quoted = row("b", "nan").replace(",g,", ',"g, or ""so""\nit says",')
    (message,) = problems(write(tmp_path, row("a"), quoted))
    last = quoted.split("\n")[1]
    assert message.startswith(f":4:{last.index('nan') + 1}: measured_step_time_s")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "1:1: empty file"),
        (b"\n\n", "1:1: empty file"),
        (HEADER.encode(), "1:1: no rows"),
        (b"name,age\nx,3\n", "1:1: not a file of measurements"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "1:1: not UTF-8"),
        (HEADER.encode() + b"\na,\xff\n", ": not UTF-8"),
        (HEADER.encode() + b"\na,\0\n", "2:3: a NUL byte"),
        (HEADER.encode() + b"\na,b\n", "2:1: 2 cells in a table of 17 columns"),
        (HEADER.encode() + b'\na,"b\n', "2:1: not proper CSV"),
        ((HEADER + ",id").encode() + b"\n", f'1:{len(HEADER) + 2}: column "id" stands here twice'),
        (HEADER.replace("hidden_size", "hiden_size").encode() + b"\n", "1:1: missing column hidden_size"),
        (
            HEADER.replace("measured", "predicted").encode() + b"\n",
            "1:1: none of the columns measured_step_time_s",
        ),
    ],
)
def test_a_malformed_or_foreign_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    assert said in problems(path)[0]


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in (
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (pipe, "not a regular file"),
        (tmp_path / "none.csv", "no such file"),
        (tmp_path / "none" / "m.csv", "no such file"),
    ):
        assert problems(path) == [f": {said}"]


def test_one_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("x" * (1 << 21))
    assert problems(path)[0].startswith(":1:1: a line of more than")


def test_byte_order_mark_crlf_and_missing_final_newline_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{row('a')}\r\n\r\n{row('b')}".encode())
    table = Table(path)
    assert recognise(table).name == "training runs"
    assert [(each.line, each.cells["id"]) for each in table.rows()] == [(2, "a"), (4, "b")]
    assert "measured_peak_memory_gib" not in next(table.rows()).cells
