"""The tile table: which register tile products are made of, by instruction set."""

from __future__ import annotations

from typing import NamedTuple

from numba.core.registry import cpu_target


class Tile(NamedTuple):
    """Register tile of an instruction set."""

    name: str
    vector_bytes: int  #: bytes in one vector register
    #: Largest number of rows of a tile of 1, 2 and more vectors in one row; the last is that of a
    #: whole tile.
    rows: tuple[int, ...]
    panel: int  #: columns of a panel, the same for both dtypes
    embedded: bool  #: a multiply-add takes a number in memory for all lanes
    #: The processor brings the neighbour of a cache line, and the next columns of a matrix, of its
    #: own accord. What stands here, and in the next two, was measured with AVX-512 on Intel's
    #: Emerald Rapids, with AVX2 on AMD's Zen 3; others with the same instructions may differ.
    prefetches: bool
    #: Samples up to which sums along the lanes of registers take less time than the tile, which has
    #: to have weights transposed.
    along: int
    #: Steps of few samples up to which weights whose rows lie apart are not packed for the tile,
    #: which takes a cache line of each, or two.
    few_steps: int


#: Tried in order; the first whose features the target has is used. The accumulators, rows times
#: vectors, fit the registers (32, 16 and 16 of them) with the vectors of one row of the right
#: operand and one broadcast, or with one vector and the broadcasts of all rows, if those are fewer.
TILES = {
    ("avx512f",): Tile(
        "avx512", vector_bytes=64, rows=(12, 12), panel=32, embedded=True, prefetches=True,
        along=48, few_steps=8,
    ),
    ("avx2", "fma"): Tile(
        "avx2", vector_bytes=32, rows=(6, 6, 4, 3), panel=32, embedded=False, prefetches=False,
        along=48, few_steps=2,
    ),
    (): Tile(
        "generic", vector_bytes=16, rows=(6, 6), panel=16, embedded=False, prefetches=False,
        along=16, few_steps=2,
    ),
}  # fmt: skip


def _choose_tile() -> Tile:
    # The target's own list of features, which follows NUMBA_CPU_NAME and NUMBA_CPU_FEATURES.
    available = set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))
    return next(
        tile for features, tile in TILES.items() if available.issuperset(f"+{f}" for f in features)
    )


TILE = _choose_tile()
PANEL = TILE.panel
ROWS, VECTORS = TILE.rows[-1], len(TILE.rows)  #: of a whole tile


def tile_width(itemsize: int) -> int:
    """Columns of a tile: `VECTORS` registers of elements of `itemsize` bytes."""
    return VECTORS * lanes_of(itemsize)


def lanes_of(itemsize: int) -> int:
    """Elements of `itemsize` bytes in one register."""
    return TILE.vector_bytes // itemsize


#: Columns of weights that are contiguous along the depth, multiplied as they lie, at a time; and
#: the rows on their left, as many as fill the accumulators of a tile.
DOT_COLUMNS = 4
FEW_ROWS = ROWS * VECTORS // DOT_COLUMNS


def dot_columns(itemsize: int) -> int:
    """Columns of such a product at a time, where a register has as many lanes, else fewer."""
    return min(DOT_COLUMNS, lanes_of(itemsize))
