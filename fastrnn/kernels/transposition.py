"""A square block of a matrix, as many rows and columns as a register has lanes, transposed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

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
