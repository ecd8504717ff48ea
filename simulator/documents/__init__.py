"""YAML documents with positions and limits: scenarios, catalogue files, calibrations, sweeps."""

from simulator.documents._document import Document, KeyPath, load_document, parse_document, parse_value
from simulator.documents._node import MAX_DEPTH, MAX_NODES, Node, Position
from simulator.documents._scalars import ScalarError, read_plain
from simulator.documents._source import MAX_BYTES, read_text
from simulator.documents._writing import write_yaml

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Document",
    "KeyPath",
    "Node",
    "Position",
    "ScalarError",
    "load_document",
    "parse_document",
    "parse_value",
    "read_plain",
    "read_text",
    "write_yaml",
]
