"""Measure the words example: both engines on the same batches, and ranks that share a batch.

    python benchmarks/words.py engines    # words per second, fastrnn beside fastrnn.reference
    python benchmarks/words.py batches    # accuracy and words per second by batch size
    python benchmarks/words.py ranks      # compute, reduction, and the step of 1 and 2 processes

Each prints a Markdown table; every run is a process of its own. The engines alternate, and their
figures are medians. Two processes on one machine get half of its threads each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np

import fastrnn
from fastrnn.distributed import connect

WORDS = Path(__file__).parents[1] / "examples" / "words.py"


def train(*arguments: Any, launcher: tuple[str, ...] = (), threads: int = 0) -> dict[str, Any]:
    """Run the example, and read what it has found."""
    environment = dict(os.environ)
    if threads:
        for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[variable] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "words.json")
        command = [*launcher, sys.executable, WORDS, *arguments, "--json", path]
        subprocess.run([*map(str, command)], env=environment, check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def engines(settings: argparse.Namespace) -> None:
    """Words per second of either engine, in alternating rounds."""
    speeds: dict[str, list[float]] = {"fastrnn": [], "reference": []}
    fixed = ("--hidden", settings.hidden, "--max-steps", settings.steps)
    for _ in range(settings.rounds):
        for engine, found in speeds.items():
            found.append(train(*fixed, "--engine", engine)["words_per_second"])
    print("| engine | words/s |\n|---|---|")
    medians = {engine: statistics.median(found) for engine, found in speeds.items()}
    for engine, speed in medians.items():
        print(f"| {engine} | {speed:,.0f} |")
    print(f"\nfastrnn is {medians['fastrnn'] / medians['reference']:.2f} times as fast")


def batches(settings: argparse.Namespace) -> None:
    """Validation accuracy and words per second of whole trainings by batch size."""
    print("| batch | epochs | accuracy | words/s | input |\n|---|---|---|---|---|")
    for epochs, size in [(3, 256), (3, 1024), (3, 4096), (3, 16384), (6, 16384)]:
        found = train("--batch-size", size, "--hidden", settings.hidden, "--epochs", epochs)
        speed, share = found["words_per_second"], found["input_share"]
        row = f"| {size} | {epochs} | {found['accuracy']:.2%} | {speed:,.0f} | {share:.1%} |"
        print(row, flush=True)


#: What starts a command on two ranks, on a machine with any number of processors.
TWO_RANKS = ("mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none")


def ranks(settings: argparse.Namespace) -> None:
    """Seconds a step of one process and of two that share the threads, and of a reduction."""
    threads = int(numba.config.NUMBA_NUM_THREADS)
    alone, both = [], []
    fixed = ("--hidden", settings.hidden, "--max-steps", settings.steps)
    for _ in range(settings.rounds):
        alone.append(train(*fixed, threads=threads)["words_per_second"])
        both.append(
            train(*fixed, launcher=TWO_RANKS, threads=max(1, threads // 2))["words_per_second"]
        )
    print("| processes | words/s | ms a step of 4096 |\n|---|---|---|")
    for count, found in ((1, alone), (2, both)):
        speed = statistics.median(found)
        print(f"| {count} | {speed:,.0f} | {4096 / speed * 1e3:,.0f} |")
    command = sys.executable, __file__, "reduction", "--hidden", str(settings.hidden)
    subprocess.run([*TWO_RANKS, *command], check=True)


def reduction(settings: argparse.Namespace) -> None:
    """Time the reduction of a step's gradients, on the rank that this process is."""
    group = connect()
    parameters = fastrnn.initialize_parameters(32, settings.hidden, 24, seed=0)
    parameters["Wex"] = np.zeros((32, 100), np.float32)
    gradients = {f"d{name}": array.copy() for name, array in parameters.items()}
    times = []
    for _ in range(200):
        start = time.perf_counter()
        group.reduce(gradients, 0.0, 1)
        times.append(time.perf_counter() - start)
    if group.rank == 0:
        size = 4 * (sum(array.size for array in gradients.values()) + 4)
        print(f"\nreduction of {size:,} bytes: {1e3 * statistics.median(times):.3f} ms")


def main() -> None:
    """Measure what the command line names."""
    what = {"engines": engines, "batches": batches, "ranks": ranks, "reduction": reduction}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=what)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    what[settings.what](settings)


if __name__ == "__main__":
    main()
