"""Matrices transposed, in square blocks of as many rows and columns as a register has lanes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._jit import shared
from .memory import move, view
from .panels import lanes_at
from .tile import lanes_of


def _transposed(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Emit the transpose of a square block, a register a row.

    Two of its quarters change places, then two of the quarters of each, down to single lanes.
    """
    lanes = len(rows)
    index = ir.VectorType(ir.IntType(32), lanes)
    half = lanes // 2
    while half:
        upper = ir.Constant(index, [k if not k & half else lanes + k - half for k in range(lanes)])
        lower = ir.Constant(index, [k + half if not k & half else lanes + k for k in range(lanes)])
        for i in range(lanes):
            if not i & half:
                pair = rows[i], rows[i + half]
                rows[i] = builder.shuffle_vector(*pair, upper)
                rows[i + half] = builder.shuffle_vector(*pair, lower)
        half //= 2
    return rows


@intrinsic
def transpose_block(
    typingctx: Any, target: Any, target_stride: Any, source: Any, source_stride: Any
) -> Any:
    """Copy `lanes_of` rows of as many elements from `source`, and transpose them.

    Strides, from row to row, are in elements.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, target_stride, source, source_stride = arguments
        itemsize = signature.args[0].dtype.bitwidth // 8
        lanes = lanes_of(itemsize)
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), lanes)

        def row(pointer: Any, stride: Any, number: int) -> Any:
            offset = builder.mul(stride, ir.Constant(stride.type, number))
            return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

        rows = [builder.load(row(source, source_stride, i), align=itemsize) for i in range(lanes)]
        for i, value in enumerate(_transposed(builder, rows)):
            builder.store(value, row(target, target_stride, i), align=itemsize)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), codegen


def _transpose_type(dtype: types.Type) -> types.Type:
    index, pointer = types.int64, types.CPointer(dtype)
    return types.void(pointer, index, pointer, index, index, index)


@shared(_transpose_type)
def transpose(
    target: Any, target_stride: int, source: Any, source_stride: int, rows: int, columns: int
) -> None:
    """Copy `rows` contiguous rows of `columns` elements, and transpose them.

    Strides, from row to row, are in elements.
    """
    lanes = lanes_at(target)
    whole_rows, whole_columns = rows // lanes * lanes, columns // lanes * lanes
    for c in range(0, whole_rows, lanes):  # so few rows at a time, or they push each other out
        for k in range(0, whole_columns, lanes):
            transpose_block(
                move(target, k * target_stride + c), target_stride,
                move(source, c * source_stride + k), source_stride,
            )  # fmt: skip
    for c in range(rows):
        row = view(move(source, c * source_stride), columns)
        for k in range(whole_columns if c < whole_rows else 0, columns):
            view(move(target, k * target_stride + c), 1)[0] = row[k]
