"""Same scenario and seed, same bytes: over fresh processes and hash seeds."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

from support.inputs import shipped

SCENARIO = shipped("starved_vision")
VARYING = re.compile(r'^\s*"(wall_s|player|num_events)": .*$', re.MULTILINE)

SCRIPT = """
import sys
from simulator.report import result_json
from simulator.run import run
from simulator.advise import rank_bottlenecks
from simulator.scenario import load_scenario
for player in sys.argv[2:]:
    scenario = load_scenario(sys.argv[1], {"simulation.player": player})
    print(result_json(rank_bottlenecks(run(scenario))), end="\\x1e")
"""


def results(hash_seed: str, *players: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(SCENARIO), *players],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    return VARYING.sub("", finished.stdout)


def test_runs_and_hash_seeds_give_the_same_bytes() -> None:
    runs = ["reference"] * 2
    digests = set()
    for hash_seed in ("0", "4711", "random"):
        documents = results(hash_seed, *runs).split("\x1e")[:-1]
        assert len(documents) == len(runs)
        digests.update(hashlib.sha256(document.encode()).hexdigest() for document in documents)
    assert len(digests) == 1


def test_the_player_changes_nothing_but_its_name() -> None:
    reference, compiled = (results("0", player) for player in ("reference", "compiled"))
    assert reference == compiled
