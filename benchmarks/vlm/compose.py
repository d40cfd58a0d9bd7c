# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Times `compose_vlm` against `cp` of the same bytes, and measures its peak memory.

Both write to the same disk and end with the data flushed; runs alternate, so that a busy machine slows both. The load
before each run is recorded, and processor seconds beside seconds, because they depend on it less.

```shell
python -m benchmarks.vlm.compose --work_dir scratch --gigabytes 3 --repeats 5 --output benchmarks/vlm/compose.json
```
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from scipy import stats

from benchmarks.environment import environment
from benchmarks.vlm.synthetic_parts import make_parts


CHILD = r"""
import json, re, sys, time
from trl_r1v2.vlm.compose import compose_vlm

def peak_rss():  # of this program alone; getrusage would count its parent's until exec
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])

before = peak_rss()
start, cpu = time.perf_counter(), time.process_time()
report = compose_vlm(sys.argv[1] + "/vision", sys.argv[1] + "/llm", sys.argv[2], max_shard_size="1GB", progress=False)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = peak_rss()
shards = report.shards.shards.values()
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "rss_before": before, "rss_peak": peak, "bytes": sum(shards),
                  "largest_shard": max(shards)}))
"""


def run_compose(parts: Path, output: Path) -> dict:
    """One composition in a process of its own."""
    result = subprocess.run([sys.executable, "-c", CHILD, str(parts), str(output)], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def run_copy(parts: Path, output: Path) -> dict:
    """`cp` of both parts, file by file, and the flush that compose includes."""
    output.mkdir()
    start, before = time.perf_counter(), os.times()
    for file in sorted(parts.glob("*/*.safetensors")):
        target = output / f"{file.parent.name}-{file.name}"
        subprocess.run(["cp", "--reflink=never", str(file), str(target)], check=True)
        with open(target, "rb") as copy:
            os.fsync(copy.fileno())
    seconds, after = time.perf_counter() - start, os.times()
    return {"seconds": seconds, "cpu_seconds": sum(after[:4]) - sum(before[:4])}


def mean_and_interval(values: list[float]) -> dict:
    """Mean and its 95 % confidence interval (Student's t)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "ci95": None}
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return {"mean": mean, "ci95": [float(low), float(high)]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time compose_vlm against cp.")
    parser.add_argument("--work_dir", type=Path, required=True, help="Empty or absent folder on the disk to measure.")
    parser.add_argument("--gigabytes", type=float, default=3.0, help="Size of the parts.")
    parser.add_argument("--repeats", type=int, default=5, help="Runs of each.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the raw results.")
    args = parser.parse_args()
    parts = args.work_dir / "parts"
    part_bytes = make_parts(parts, int(args.gigabytes * 10**9))
    runs = []
    for number in range(args.repeats):
        for kind, run in (("cp", run_copy), ("compose", run_compose)):
            target = args.work_dir / kind
            load = os.getloadavg()[0]
            runs.append({"run": number, "kind": kind, "load_before": load, **run(parts, target)})
            shutil.rmtree(target)
            print(runs[-1])
    pairs = [
        next(r for r in runs if (r["run"], r["kind"]) == (n, "compose"))["seconds"]
        / next(r for r in runs if (r["run"], r["kind"]) == (n, "cp"))["seconds"]
        for n in range(args.repeats)
    ]
    composed = [run for run in runs if run["kind"] == "compose"]
    result = {
        "environment": environment(),
        "part_bytes": part_bytes,
        "seconds": {
            kind: mean_and_interval([run["seconds"] for run in runs if run["kind"] == kind])
            for kind in ("cp", "compose")
        },
        "cpu_seconds": {
            kind: mean_and_interval([run["cpu_seconds"] for run in runs if run["kind"] == kind])
            for kind in ("cp", "compose")
        },
        "compose_over_cp": mean_and_interval(pairs),
        "peak_rss_over_largest_shard": max(run["rss_peak"] / run["largest_shard"] for run in composed),
        "rss_growth_bytes": max(run["rss_peak"] - run["rss_before"] for run in composed),
        "runs": runs,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(args.work_dir)
    print(f"results: {args.output}")


if __name__ == "__main__":
    main()
