"""One case in a process of its own: ``python measured.py FILE RUNS key=value ...`` prints a line of JSON."""

import json
import statistics
import sys
import time
from pathlib import Path

from test_engine_speed import unit

from simulator.run import simulate
from simulator.scenario import load_scenario


def main(path: str, runs: int, changes: dict[str, str]) -> None:
    changes = {"simulation.player": "compiled", **changes}
    times, units = [], []
    for number in range(runs + 1):
        # Each run sees another scenario, so that nothing of the one before can be reused.
        changes["cluster.scale_out.bandwidth"] = f"{50 + number / 100} GB/s"
        begun = time.process_time()
        result = simulate(load_scenario(path, changes))
        times.append(time.process_time() - begun)
        used = peak()
        units.append(unit(1))
    spread = result.step_times
    print(
        json.dumps(
            {
                "seconds": statistics.median(times[1:] or times),
                "unit": statistics.median(units),
                "first": times[0],
                "mebibytes": used,
                "activities": result.num_activities,
                "step_time_s": result.step_time_s,
                "method": "" if spread is None else spread.method,
            }
        )
    )


def peak() -> float:
    """Most memory that this process ever had [MiB]; what its parent had does not count."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), dict(item.split("=", 1) for item in sys.argv[3:]))
