"""Draw `kernels.png`: the way of a chunk through panels, one register tile, the order of stages.

Run as ``python docs/kernels_drawing.py``; it needs matplotlib (the extra `examples`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

PATH = Path(__file__).with_name("kernels.png")

#: Width and height of the drawing; one unit is a tenth of an inch.
SIZE = (90.0, 77.0)

INK, PALE, EMPTY = "#26323c", "#6b7885", "#f4f5f6"
STEPS = ("#1f6fb2", "#5fa3d9", "#a9cfee")  #: one shade for each step of the chunk
WEIGHTS, WEIGHTS_NOW = "#f7dcb5", "#e08a1e"
TILE, TILE_EDGE = "#cfe8cf", "#2e8b57"
STAGES = {"P": "#c9d6e2", "S": "#5fa3d9", "F": "#8fc79a"}
NAMES = {"P": "PREPARE", "S": "STEP", "F": "FINISH"}
LENGTH = {"P": 4.6, "S": 2.3, "F": 3.6}

#: The batch of the drawing: true lengths, in the order of the samples and longest first.
LENGTHS = (2, 3, 1, 3, 2, 1, 3, 2)
ACTIVE = [sum(t < length for length in LENGTHS) for t in range(3)]
ROW = 1.05
#: The tile of the drawing: rows of so many registers.
ROWS, VECTORS = 3, 4


def box(
    axes: Axes, x: float, y: float, width: float, height: float, fill: str, **style: Any
) -> None:
    """One filled rectangle, its lower left corner at (x, y)."""
    options: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8} | style
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, **options))


def say(axes: Axes, x: float, y: float, text: str, size: float = 8.5, **style: Any) -> None:
    """Text centred at (x, y) unless told otherwise."""
    style = {"ha": "center", "va": "center", "color": INK} | style
    axes.text(x, y, text, fontsize=size, linespacing=1.25, **style)


def arrow(axes: Axes, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """An arrow from one place to another."""
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", stop, start, arrowprops=style)


def heading(axes: Axes, y: float, title: str, rest: str) -> None:
    """What a part of the drawing shows."""
    say(axes, 1, y, title, 10.5, ha="left", weight="bold")
    say(axes, 89, y, rest, 8.5, ha="right", color=PALE)


def steps_of(axes: Axes, x: float, y: float, name: str) -> None:
    """The three steps of an array (n, m, T), a sample a row; padding is empty."""
    for t in range(3):
        left = x + 5.8 * t
        for i, length in enumerate(LENGTHS):
            box(axes, left, y - ROW * (i + 1), 5, ROW, STEPS[t] if t < length else EMPTY)
        say(axes, left + 2.5, y + 1.1, f"{name}[:, :, {t}]", 7.5)


def panels(axes: Axes, x: float, y: float, count: int, used: float = 1) -> float:
    """The rows of the chunk in panels, the last one filled to `used`; the right end."""
    for p in range(count):
        width = 5 if p < count - 1 else 5 * used
        bottom = y
        for t, active in enumerate(ACTIVE):
            for _ in range(active):
                bottom -= ROW
                box(axes, x, bottom, 5, ROW, EMPTY)
                box(axes, x, bottom, width, ROW, STEPS[t])
        x += 5.6
    return x - 0.6


def frame(axes: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    """A thick frame around what a tile reads or writes."""
    box(axes, x, y, width, height, "none", edgecolor=colour, linewidth=2.2)


def draw_chunk(axes: Axes) -> None:
    """From steps to panels, and back."""
    heading(axes, 75, "A chunk", "one row: a sample at a step; shade: the step; empty: padding")
    top, middle, below = 71.6, 62.6, 52.2
    steps_of(axes, 1, 67.3, "x")
    say(axes, 9.3, 56.4, "Fortran order: each step\nis one block of memory", color=PALE)
    arrow(axes, (18.2, middle), (25.2, middle))
    say(axes, 21.7, middle + 3.1, "PREPARE\npacks, longest\nsamples first", 7.5)
    end = panels(axes, 26, top, 2, 0.6)
    say(axes, (26 + end) / 2, below, "inputs in panels", color=PALE)
    left = 45.2
    arrow(axes, (end + 0.8, middle), (left - 0.8, middle))
    say(axes, (end + left) / 2, middle + 3.1, "first STEP\nmultiplies:\nx Wax' + ba", 7.5)
    end = panels(axes, left, top, 3)
    say(axes, (left + end) / 2, below, "z in panels, overwritten by a", color=PALE)
    frame(axes, left, top - ROW * ROWS, end - left, ROW * ROWS, WEIGHTS_NOW)
    frame(axes, left + 5.6, top - ROW * (ACTIVE[0] + ROWS), 5, ROW * ROWS, TILE_EDGE)
    arrow(axes, (end + 0.8, middle), (71, middle))
    say(axes, (end + 71.8) / 2, middle + 3.1, "STEP writes\neach tile\nto a as well", 7.5)
    steps_of(axes, 71.8, 67.3, "a")
    say(axes, 80.1, 57.1, "zeros at padded steps", color=PALE)


def draw_tile(axes: Axes) -> None:
    """The innermost loop, and what becomes of its sums."""
    heading(
        axes,
        49,
        "A tile at step t",
        f"here t is 1; AVX2, float32: {ROWS} rows of {VECTORS} registers of 8 numbers",
    )
    y, row, k = 28.0, 3.0, 8
    for p in range(3):
        for c in range(6):
            now = 6 * p + c == k
            for i in range(ROWS):
                fill = "#0f4c81" if now else STEPS[0]
                box(axes, 3 + 6.6 * p + c, y + row * i, 1, row, fill, linewidth=0.4)
    frame(axes, 2.8, y - 0.2, 19.6, row * ROWS + 0.4, WEIGHTS_NOW)
    say(axes, 12.6, y - 1.9, "a[t-1] of three active samples", color=PALE)
    loop = f"For each k: {ROWS} values broadcast,\n{VECTORS} registers loaded, 12 multiply-adds."
    sums = "Every sum starts from 0 and is one\nchain in the order of k."
    say(axes, 12.6, 42, f"{loop}\n{sums}")
    for i in range(ROWS):
        for v in range(VECTORS):
            box(axes, 29 + 4.2 * v, y + row * i, 4, row, TILE, edgecolor=TILE_EDGE)
    say(axes, 37.2, y - 1.9, "12 registers of sums", color=PALE)
    for i in range(8):
        fill = WEIGHTS_NOW if i == 4 else WEIGHTS
        for v in range(VECTORS):
            box(axes, 29 + 4.2 * v, 38.8 + i, 4, 1, fill)
    packed = "Waa' packed: one column tile,\na row for each k, in the order\nin which they are read"
    say(axes, 46.6, 42.8, packed, ha="left", color=PALE)
    say(axes, 27.8, 43.3, "k", 9, style="italic")
    arrow(axes, (23.2, y + 4.5), (28.2, y + 4.5))
    say(axes, 25.7, y + 5.9, "broadcast", 7.5)
    arrow(axes, (37.2, 38.6), (37.2, y + 9.3))
    draw_ends(axes, y + 4.5)


def draw_ends(axes: Axes, y: float) -> None:
    """From the sums of a tile to its two copies."""
    arrow(axes, (46.2, y), (49.2, y))
    for x, text in ((49.6, "+ z"), (58.6, "tanh")):
        box(axes, x, y - 2, 6, 4, TILE, edgecolor=TILE_EDGE)
        say(axes, x + 3, y, text, 9.5)
    arrow(axes, (55.8, y), (58.3, y))
    say(axes, 61.6, y - 3.9, "on all rows of\nthe column tile", 7.5, color=PALE)
    for rise, fill, text in (
        (3, STEPS[1], "its panel: left\noperand of t+1"),
        (-3, STEPS[1], "a[:, :, t]:\nthe result"),
    ):
        arrow(axes, (64.8, y), (70.6, y + rise))
        box(axes, 71, y + rise - 2.2, 17, 4.4, fill)
        say(axes, 79.5, y + rise, text)


def stages(axes: Axes, x: float, y: float, order: str) -> list[float]:
    """A row of stages from `x` on; where each of them ends."""
    ends = []
    for kind in order:
        box(axes, x, y, LENGTH[kind], 2.6, STAGES[kind])
        say(axes, x + LENGTH[kind] / 2, y + 1.3, kind, 7.5)
        x += LENGTH[kind]
        ends.append(x)
    return ends


def draw_order(axes: Axes) -> None:
    """The two ways to use the processors, and the stages."""
    heading(axes, 22.8, "The order of work", "two workers; a chunk of three steps, then one of two")
    say(axes, 1, 20.3, "one block: each stage is shared out, then all wait", ha="left")
    say(axes, 45, 20.3, "many blocks: each goes through its stages alone", ha="left")
    lanes = 14.8, 11.5
    for worker, y in enumerate(lanes):
        for left in (1, 45):
            say(axes, left, y + 1.3, f"worker {worker}", 7.5, ha="left", color=PALE)
        for end in stages(axes, 8, y, "PSSSFPSSF"):
            axes.plot([end, end], [10.8, 18.0], color=INK, linewidth=1, linestyle=(0, (2, 2)))
    for y, label, blocks in (
        (lanes[0], 18.3, {0: "PSSSFPSSF", 2: "PS"}),
        (lanes[1], 10.5, {1: "PSSF", 3: "PSSSFPS"}),
    ):
        x = 52.0
        for block, order in blocks.items():
            say(axes, x, label, f"block {block}", 7.5, ha="left", color=PALE)
            x = stages(axes, x, y, order)[-1] + 1.2
    say(axes, 1, 7.3, "backward, the steps in reverse, PREPARE takes the first:", ha="left")
    stages(axes, 36.5, 6, "PSSFPSSF")
    for x, (kind, name) in zip((1.0, 13, 22), NAMES.items(), strict=True):
        box(axes, x, 1.2, 2.3, 2.2, STAGES[kind])
        say(axes, x + 1.15, 2.3, kind, 7.5)
        say(axes, x + 3, 2.3, name, 8, ha="left")


def main() -> None:
    """Draw and write the picture."""
    figure = Figure((SIZE[0] / 10, SIZE[1] / 10), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.axis("off")
    draw_chunk(axes)
    draw_tile(axes)
    draw_order(axes)
    drawn = io.BytesIO()
    figure.savefig(drawn)
    # A palette makes the file three times smaller.
    Image.open(drawn).convert("RGB").quantize(96).save(PATH, optimize=True)


if __name__ == "__main__":
    main()
