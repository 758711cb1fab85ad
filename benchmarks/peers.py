"""Time fastrnn beside other libraries on the same data, and print what fraction of the peak it is.

``python benchmarks/peers.py`` compares forward and forward + backward of fastrnn, its NumPy
reference, torch (packed and padded), JAX, ONNX Runtime (forward) and oneDNN, whichever are there::

    pip install -e ".[peers]"
    apt-get install g++ libdnnl-dev    # oneDNN 2, optional

Thread pools of several libraries in one process spin against each other, so each implementation has
a process of its own (`_peers_worker.py`, `onednn_rnn.cpp`). All stay alive, and one at a time they
are timed in alternating rounds; a figure is the median over the rounds. They must agree before they
are timed. The peak, multiply-adds on registers alone, is measured in the same rounds.

The fraction of peak counts the arithmetic of real steps only: ``2 (n_x + n_a) n_a`` forward and
twice that backward, and ``2 n_a n_y`` for the output layer, for each step of each sample.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO, cast

HERE = Path(__file__).resolve().parent

SHAPES = (
    "12,32,9,270,29;64,128,10,256,100;256,256,32,64,100;128,128,32,4096,50;"
    "512,512,32,64,50;1760,1760,32,16,50;1760,1760,32,64,50;1760,1760,32,128,50"
)
PEERS = ("torch-packed", "torch-padded", "jax", "onnxruntime", "onednn")
NAMES = ("fastrnn", "reference", *PEERS)
KINDS = {"forward": "forward", "both": "forward + backward"}
THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
SECONDS = 0.1  # of one timing in one round
PAUSE = 0.05  # before each timing: waiting threads of the one before stop spinning
TRIFLE = 0.05  # milliseconds below which oneDNN, called from C++, is not compared with


class Process:
    """An implementation in its process; `alive` until it is missing or has died."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=HERE.parent
        )
        self.alive = True
        self.version = ""

    def send(self, line: str) -> None:
        """Give a command."""
        if self.alive:
            try:
                print(line, file=cast(TextIO, self.process.stdin), flush=True)
            except BrokenPipeError:
                self.alive = False

    def receive(self) -> tuple[str, list[str]]:
        """Wait for the answer: its first word, and the others."""
        line = cast(TextIO, self.process.stdout).readline() if self.alive else ""
        word, *words = line.split() or ["missing", "it has ended"]
        if word in ("missing", "error"):
            if self.alive:
                note(f"{self.name}: {' '.join(line.split())[:160] or 'has ended'}")
            self.alive = self.alive and word == "error"
        return word, words

    def ask(self, line: str) -> tuple[str, list[str]]:
        """Give a command and wait for its answer."""
        self.send(line)
        return self.receive()

    def close(self) -> None:
        """End the process: its stdin ends, and so does it."""
        self.process.communicate()


def note(line: str) -> None:
    """Tell on stderr how it goes; stdout is for the table."""
    print(line, file=sys.stderr, flush=True)


def build_onednn(folder: str) -> str | None:
    """Compile the oneDNN timer, or say why not."""
    program = str(Path(folder) / "onednn_rnn")
    source = str(HERE / "onednn_rnn.cpp")
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-O2", "-std=c++17", source, "-o", program, "-ldnnl"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        note(f"onednn: not built: {reason}")
        return None
    return program


def start(names: list[str], dtype: str, threads: int, folder: str) -> list[Process]:
    """Start a process for each implementation and for the peak; keep those that are there."""
    if hasattr(os, "sched_setaffinity"):
        # Inherited by all: XLA takes its number of threads from it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    processes = []
    for name in [*names, "peak"]:
        command = [sys.executable, "-m", "benchmarks._peers_worker", name, dtype]
        if name == "onednn":
            program = build_onednn(folder) if dtype == "float32" else None
            if program is None:
                continue
            command = [program]
        processes.append(Process(name, command, environment))
    for process in processes:
        process.version = " ".join(process.receive()[1])
    if not processes[-1].alive:
        raise SystemExit("The peak is measured through Numba, which is missing.")
    return [process for process in processes if process.alive]


def check(processes: list[Process], tolerance: float) -> set[str]:
    """Compare the results with those of the first that has any; name those that computed them."""
    expected: dict[str, tuple[float, float, str]] = {}
    computed = set()
    for process in processes:
        word, words = process.ask("check")
        if word != "values":
            continue
        computed.add(process.name)
        for name, *numbers in zip(words[::3], words[1::3], words[2::3], strict=True):
            value, scale = map(float, numbers)
            wanted, allowed, other = expected.setdefault(name, (value, scale, process.name))
            if not abs(value - wanted) <= tolerance * allowed:
                raise SystemExit(
                    f"{process.name} and {other} disagree on {name}: projections {value:.9g} and "
                    f"{wanted:.9g}, further apart than {tolerance:g} times {allowed:.3g}"
                )
    return computed


def measure(
    processes: list[Process], shape: tuple[int, ...], full: bool, dtype: str, rounds: int
) -> dict[str, Any]:
    """Load, check and time one row; `rounds` times, each process in its turn."""
    for process in processes:
        process.send(" ".join(map(str, ("load", *shape, int(full)))))
    ready = {
        p.name: float(words[0])
        for p in processes
        for word, words in [p.receive()]
        if word == "ready"
    }
    running = check([p for p in processes if p.name in ready], TOLERANCE[dtype])

    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for process in processes:
            for kind in KINDS:
                forward_only = process.name in ("peak", "onnxruntime")
                if process.name in running and not (forward_only and kind == "both"):
                    time.sleep(PAUSE)
                    word, words = process.ask(f"time {kind} {SECONDS}")
                    if word == "ms":
                        samples.setdefault((kind, process.name), []).append(float(words[0]))
    medians = {key: statistics.median(values) for key, values in samples.items()}
    peak_work = ready.pop("peak")
    steps = int(max(ready.values(), default=0))
    return {
        "shape": list(shape),
        "steps": steps,
        "peak_gflops": peak_work / medians.pop(("forward", "peak")) / 1e6,
        **{kind: {name: ms for (of, name), ms in medians.items() if of == kind} for kind in KINDS},
    }


def best_peer(row: dict[str, Any], kind: str) -> float | None:
    """Milliseconds of the fastest peer of a row."""
    times = [
        ms
        for name, ms in row[kind].items()
        if name in PEERS and not (name == "onednn" and ms < TRIFLE)
    ]
    return min(times, default=None)


def fraction_of_peak(row: dict[str, Any], kind: str) -> float:
    """Arithmetic of real steps over what the peak would have done in fastrnn's time."""
    n_x, n_a, n_y, _, _ = row["shape"]
    layer = 2 * (n_x + n_a) * n_a * (3 if kind == "both" else 1)
    flops = row["steps"] * (layer + 2 * n_a * n_y)
    return float(flops / (row[kind]["fastrnn"] * 1e6 * row["peak_gflops"]))


def speedups(rows: list[dict[str, Any]], kind: str, name: str = "fastrnn") -> list[float]:
    """How many times as fast as its best peer, for each row; NaN where there is nothing."""
    return [(best_peer(row, kind) or math.nan) / row[kind].get(name, math.nan) for row in rows]


def table(rows: list[dict[str, Any]], kind: str) -> str:
    """One Markdown table: milliseconds, and what they mean for fastrnn."""
    names = [name for name in NAMES if any(name in row[kind] for row in rows)]
    lines = [["n_x, n_a, n_y, m, T", *names, "to best peer", "of peak"]]
    for row, speedup in zip(rows, speedups(rows, kind), strict=True):
        times = [f"{row[kind][name]:.4g}" if name in row[kind] else "" for name in names]
        ratio = "" if math.isnan(speedup) else f"{speedup:.2f}"
        fraction = f"{fraction_of_peak(row, kind):.0%}" if "fastrnn" in row[kind] else ""
        lines.append([", ".join(map(str, row["shape"])), *times, ratio, fraction])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * (width - 1) + ":" for width in widths])
    text = ["| " + " | ".join(map(str.rjust, line, widths)) + " |" for line in lines]
    known = [speedup for speedup in speedups(rows, kind) if not math.isnan(speedup)]
    mean = f"Geometric mean to best peer: {statistics.geometric_mean(known):.2f}" if known else ""
    return "\n".join([f"{KINDS[kind]}, milliseconds", "", *text, "", mean]).rstrip()


def plot(report: dict[str, Any], path: str) -> None:
    """Draw bars of fastrnn's speed over the best peer's, and a mark for each of the others."""
    from matplotlib.figure import Figure

    rows = report["rows"]
    figure = Figure(figsize=(11, 1.8 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    marks = dict(zip(NAMES[1:], "PsoD^v", strict=True))
    for ax, kind in zip(axes, KINDS, strict=True):
        ax.set_prop_cycle(
            color=["black", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown"]
        )
        bars = speedups(rows, kind)
        ax.barh(
            range(len(rows)),
            [0 if math.isnan(b) else b for b in bars],
            color="#a8c8e4",
            label="fastrnn",
        )
        for place, speedup in enumerate(bars):
            if not math.isnan(speedup):
                ax.annotate(
                    f"{speedup:.1f}",
                    (speedup, place),
                    (4, 0),
                    va="center",
                    textcoords="offset points",
                )
        for name, mark in marks.items():
            speeds = speedups(rows, kind, name)
            ax.plot(speeds, range(len(rows)), mark, label=name, ms=7, mec="white", mew=0.6)
        ax.axvline(1, color="black", lw=0.8)
        ax.margins(x=0.1)
        ax.set(title=KINDS[kind], xlabel="speed relative to the best peer (1)", xlim=(0, None))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), [", ".join(map(str, row["shape"])) for row in rows])
    axes[0].set_ylabel("n_x, n_a, n_y, m, T")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.suptitle(report["title"], fontsize=10)
    figure.savefig(path, dpi=150)


def processor() -> str:
    """Name the processor as the system does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=available, help="of each (%(default)s)")
    parser.add_argument("--dtype", choices=tuple(TOLERANCE), default="float32")
    parser.add_argument("--shapes", default=SHAPES, help='"n_x,n_a,n_y,m,T;..."')
    parser.add_argument("--full", action="store_true", help="full lengths instead of T/4..T")
    parser.add_argument("--rounds", type=int, default=5, help="of timings (%(default)s)")
    parser.add_argument("--implementations", default=",".join(NAMES), help=",".join(NAMES))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="PNG")
    options = parser.parse_args(arguments)
    options.shapes = [tuple(map(int, shape.split(","))) for shape in options.shapes.split(";")]
    options.implementations = options.implementations.split(",")
    unknown = set(options.implementations) - set(NAMES)
    if unknown or any(len(shape) != 5 for shape in options.shapes):
        parser.error(f"unknown {', '.join(unknown)}" if unknown else "a shape is five numbers")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = parse(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # The reference answers first: the others are compared with it.
        names = sorted(options.implementations, key=lambda name: name != "reference")
        processes = start(names, options.dtype, options.threads, folder)
        try:
            for shape in options.shapes:
                began = time.perf_counter()
                rows.append(measure(processes, shape, options.full, options.dtype, options.rounds))
                note(f"{shape}: {time.perf_counter() - began:.0f} s")
        finally:
            for process in processes:
                process.close()

    lengths = "full-length" if options.full else "ragged (T/4..T)"
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    versions = sorted({p.version for p in processes})
    report = {
        "title": f"{options.dtype}, {lengths}, threads: {options.threads}, {processor()}, {date}",
        "versions": versions,
        "python": platform.python_version(),
        "threads": options.threads,
        "dtype": options.dtype,
        "full": options.full,
        "rounds": options.rounds,
        "rows": rows,
    }
    peaks = [row["peak_gflops"] for row in rows]
    print(f"{report['title']}\n{', '.join(versions)}")
    print(f"multiply-add peak: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s over the rows\n")
    print("\n\n".join(table(rows, kind) for kind in KINDS))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        plot(report, options.plot)


if __name__ == "__main__":
    main()
