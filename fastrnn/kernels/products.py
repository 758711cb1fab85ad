"""The tile functions: products of matrices, as many of them as fit registers.

Everything that costs time in a recurrent network is a matrix product, and nearly every product here
is made of one register tile of the table in `tile`. Two operand layouts serve all:

panels
    A matrix of `n` rows and `d` columns is kept as column blocks of `PANEL` columns. Block `p`
    holds columns `p * PANEL` onward, its rows one behind the other, `PANEL` values each.
    Hidden states, inputs and gradients have this form. As the left operand of a product its
    elements are broadcast (row stride `PANEL`, column stride 1); in a weight gradient the same
    memory is read with the strides swapped, as the transpose. Neither needs another copy.
weights
    The right operand of a product with `d` rows: blocks of a tile's width of columns, each of them
    `d` rows of so many values, so that the tile streams through memory in order. For few products
    packing would take longer than these. Then weights are multiplied as they lie: by the same tile
    where their rows are contiguous, and where their columns are, by a tile of its own, whose sums
    run along the lanes of registers until the end.

The sums of a few rows of a tile are so few that multipliers would wait for them: there several
tiles side by side are multiplied at once.

Every accumulator of the tile starts from zero and is one chain of fused multiply-adds in the order
of the summed index; what was there before is added at the end. Begun from a larger number, the
chain would round each of its terms to that number's last digit. Splitting rows or columns otherwise
changes nothing, down to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic

from . import dots, microkernels
from ._jit import WRITTEN, Kernel
from .emitter import Emitter


class _TileFunction(NamedTuple):
    """A function that every kernel calls by its symbol and that is compiled once, by `tiles`."""

    name: str
    arguments: str  #: one letter each: an integer or a pointer
    emit: Callable[[Emitter, Any], None]

    def symbol(self, dtype: types.Float) -> str:
        return f"fastrnn.{self.name}.f{dtype.bitwidth}"

    def declare(self, context: Any, module: ir.Module, dtype: types.Float) -> ir.Function:
        kinds = {"i": ir.IntType(64), "p": context.get_value_type(types.CPointer(dtype))}
        kind = ir.FunctionType(ir.VoidType(), [kinds[letter] for letter in self.arguments])
        return cgutils.get_or_insert_function(module, kind, self.symbol(dtype))

    def define(self, context: Any, module: ir.Module, dtype: types.Float) -> None:
        function = self.declare(context, module, dtype)
        function.attributes.add("nounwind")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.emit(Emitter(context, builder, dtype), function.args)
        builder.ret_void()

    def call(self, dtype: types.Float) -> tuple[Any, Callable[..., Any]]:
        """Signature and code of an intrinsic that calls the function."""
        kinds = {"i": types.intp, "p": types.CPointer(dtype)}

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.call(self.declare(context, builder.module, dtype), arguments)
            return context.get_dummy_value()

        return types.void(*(kinds[letter] for letter in self.arguments)), codegen


_MULTIPLY_ROWS = _TileFunction("multiply_rows", "iiipipipipip", microkernels.multiply_rows)
_MULTIPLY_COLUMNS = _TileFunction("multiply_columns", "iiipipipip", dots.multiply_columns)
_MULTIPLY_FEW = _TileFunction("multiply_few", "iiipipip", microkernels.multiply_few)
_ADD_TRANSPOSED = _TileFunction("add_transposed", "iiipppipii", microkernels.add_transposed)
_ADD_ROWS = _TileFunction("add_rows", "ipp", microkernels.add_rows)
_FUNCTIONS = _MULTIPLY_ROWS, _MULTIPLY_FEW, _MULTIPLY_COLUMNS, _ADD_TRANSPOSED, _ADD_ROWS


@intrinsic
def _define(typingctx: Any, number: Any) -> Any:
    """Define the functions of tiles in the dtype of `number` in the module that is being made."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for function in _FUNCTIONS:
            function.define(context, builder.module, number)
        return context.get_dummy_value()

    return types.void(number), codegen


def _tiles(number):  # type: ignore[no-untyped-def]
    _define(number)


class Tiles(Kernel):
    """The functions of tiles, which kernels find by their symbols once `compile` has run.

    Were they part of every kernel, LLVM would work on all variants of a tile for each, and for each
    piece that a kernel is made of.
    """

    def symbols(self, dtype: types.Float) -> set[str]:
        """The names that kernels call them by."""
        return {function.symbol(dtype) for function in _FUNCTIONS}

    def compile(self, dtype: np.dtype[Any]) -> Any:
        """Compile the functions for a dtype, or load them."""
        dispatcher = super().compile(dtype)
        (result,) = dispatcher.overloads.values()
        for function in _FUNCTIONS:
            symbol = function.symbol(from_dtype(dtype))
            llvm.add_symbol(symbol, result.library.get_pointer_to_function(symbol))
        return dispatcher


tiles = Tiles(_tiles, lambda dtype: types.void(dtype), **WRITTEN)


@intrinsic
def multiply_rows(
    typingctx: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    left: Any,
    panel_stride: Any,
    right: Any,
    right_stride: Any,
    ahead: Any,
    ahead_stride: Any,
    start: Any,
    start_stride: Any,
    out: Any,
) -> Any:
    """`out = start + left @ right` for rows of one column tile.

    `left` points at the first row in panels `panel_stride` elements apart, `right` at rows
    `right_stride` apart, `out` into a panel. `start` has rows `start_stride` apart (0: a bias).
    `ahead` points at weights that are needed soon, to be brought into the second cache level: each
    tile asks for as many as its turns reach, `ahead_stride` further on for each row before it.
    Of the tile's columns the first `columns` are computed, up to whole registers.
    """
    return _MULTIPLY_ROWS.call(left.dtype)


@intrinsic
def multiply_few(
    typingctx: Any,
    rows: Any,
    tiles: Any,
    depth: Any,
    left: Any,
    panel_stride: Any,
    right: Any,
    tile_stride: Any,
    out: Any,
) -> Any:
    """`out += left @ right` for 2 or 4 whole tiles side by side.

    Tiles times rows are no more than `ROWS`: of other shapes nothing is computed.
    `left` is that of `multiply_rows`; `out` is in such panels too, and the first tile begins one.
    `right` points at packed weights of that tile, and those of the others follow `tile_stride`
    apart.
    """
    return _MULTIPLY_FEW.call(left.dtype)


@intrinsic
def multiply_columns(
    typingctx: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    left: Any,
    panel_stride: Any,
    right: Any,
    right_stride: Any,
    start: Any,
    start_stride: Any,
    out: Any,
) -> Any:
    """`out = start + left @ right` for a column tile whose columns are contiguous.

    `left`, `start` and `out` are those of `multiply_rows`. `right` points at a column, and the
    others follow `right_stride` elements apart. Of the tile's columns the first `columns` are
    computed, up to whole registers; there may be more, as many as exist from the tile on. A few at
    a time are multiplied by a few rows. Those behind them are asked for meanwhile, unless the
    processor brings columns of its own accord; of those that share places in the cache, it is at
    their end alone, and before it lines close by.
    """
    return _MULTIPLY_COLUMNS.call(left.dtype)


@intrinsic
def add_transposed(
    typingctx: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    left: Any,
    right: Any,
    start: Any,
    start_stride: Any,
    out: Any,
    out_stride: Any,
    past: Any,
) -> Any:
    """`out = start + left.T @ right` for rows of one column tile, from panels of `depth` rows.

    A row of it is a column of `left`; `start` and `out` have rows `start_stride` and `out_stride`
    apart. If it is to go `past` the caches, its rows start cache lines.
    """
    return _ADD_TRANSPOSED.call(left.dtype)


@intrinsic
def add_rows(typingctx: Any, rows: Any, source: Any, out: Any) -> Any:
    """Add the sum of `rows` rows of a panel, as wide as a tile, to those numbers at `out`."""
    return _ADD_ROWS.call(source.dtype)
