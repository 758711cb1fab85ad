"""Rows that do not fill whole panels or registers: loads and stores that touch no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .tile import PANEL, TILE, lanes_of

_INDEX = ir.IntType(64)
_ALIGNMENT = ir.IntType(32)

#: Whether a store by a mask is one instruction, as with AVX-512. For that of AVX2 Zen 3 has forty.
MASKED_STORES = TILE.vector_bytes == 64


class MaskedRow:
    """Code for the first `count` of the `width` elements of a row."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, width: int, count: Any) -> None:
        self.builder = builder
        self.count = count
        self.vector = ir.VectorType(element, width)
        self.itemsize = 4 if isinstance(element, ir.FloatType) else 8
        self.kind = f"v{width}f{8 * self.itemsize}.p0"
        # Compared as integers as wide as the elements, whose results are masks as they are.
        number = ir.IntType(8 * self.itemsize)
        places = ir.Constant(ir.VectorType(number, width), list(range(width)))
        undefined = ir.Constant(places.type, ir.Undefined)
        if number != _INDEX:
            every = builder.icmp_signed(">=", count, _INDEX(width))
            count = builder.trunc(builder.select(every, _INDEX(width), count), number)
        first = builder.insert_element(undefined, count, _INDEX(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        self.mask = builder.icmp_signed("<", places, builder.shuffle_vector(first, first, zeros))

    def _function(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.masked.{name}.{self.kind}"
        )

    def _pointer(self, address: Any) -> Any:
        return self.builder.bitcast(address, self.vector.as_pointer())

    def load_all(self, address: Any) -> Any:
        """Emit a load of the whole row."""
        return self.builder.load(self._pointer(address), align=self.itemsize)

    def store_all(self, values: Any, address: Any) -> None:
        """Emit a store of the whole row."""
        self.builder.store(values, self._pointer(address), align=self.itemsize)

    @property
    def zeros(self) -> ir.Constant:
        """A row of zeros."""
        return ir.Constant(self.vector, [0.0] * self.vector.count)

    def load(self, address: Any) -> Any:
        """Emit a load of the first elements, and zeros for the others."""
        arguments = [self.vector.as_pointer(), _ALIGNMENT, self.mask.type, self.vector]
        function = self._function("load", self.vector, arguments)
        operands = [self._pointer(address), _ALIGNMENT(self.itemsize), self.mask, self.zeros]
        return self.builder.call(function, operands)

    def store(self, values: Any, address: Any) -> None:
        """Emit a store of the first elements."""
        if not MASKED_STORES:
            self._store_in_pieces(values, address)
            return
        arguments = [self.vector, self.vector.as_pointer(), _ALIGNMENT, self.mask.type]
        function = self._function("store", ir.VoidType(), arguments)
        operands = [values, self._pointer(address), _ALIGNMENT(self.itemsize), self.mask]
        self.builder.call(function, operands)

    def _store_in_pieces(self, values: Any, address: Any) -> None:
        """The same as the whole row, or as halves, quarters and so on, whichever `count` has."""
        builder, size = self.builder, self.vector.count
        every = builder.icmp_signed(">=", self.count, _INDEX(size))
        with builder.if_else(every) as (whole, pieces):
            with whole:
                self.store_all(values, address)
            with pieces:
                while size > 1:
                    size //= 2
                    low, high = (self._lanes(values, first, size) for first in (0, size))
                    stored = builder.and_(self.count, _INDEX(size))
                    stores = builder.icmp_signed("!=", stored, _INDEX(0))
                    with builder.if_then(stores):
                        target = builder.bitcast(address, low.type.as_pointer())
                        builder.store(low, target, align=self.itemsize)
                    values = builder.select(stores, high, low)
                    address = builder.gep(address, [stored])

    def _lanes(self, values: Any, first: int, size: int) -> Any:
        places = ir.Constant(ir.VectorType(ir.IntType(32), size), list(range(first, first + size)))
        return self.builder.shuffle_vector(values, values, places)


def _code(width_of: Callable[[int], int], emit: Callable[..., None]) -> Callable[..., Any]:
    """Code of an intrinsic on a row of `width_of(itemsize)` elements: `(*pointers, count)`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *pointers, count = arguments
        dtype = signature.args[0].dtype
        width = width_of(dtype.bitwidth // 8)
        emit(MaskedRow(builder, context.get_value_type(dtype), width, count), *pointers)
        return context.get_dummy_value()

    return codegen


def _copying(width_of: Callable[[int], int], emit: Callable[[MaskedRow, Any, Any], None]) -> Any:
    """Make an intrinsic `(target, source, count)`."""
    code = _code(width_of, emit)

    @intrinsic
    def copying(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
        return types.void(target, source, types.intp), code

    return copying


#: Fill a row of a panel: its first `count` elements from the source, 0 in the others.
fill_row = _copying(
    lambda itemsize: PANEL,
    lambda row, target, source: row.store_all(row.load(source), target),
)
#: Copy the first `count` elements of a row of a panel, or of a register.
store_row = _copying(
    lambda itemsize: PANEL,
    lambda row, target, source: row.store(row.load_all(source), target),
)
store_register = _copying(
    lanes_of,
    lambda row, target, source: row.store(row.load_all(source), target),
)


@intrinsic
def clear_row(typingctx: Any, target: Any, count: Any) -> Any:
    """Set the first `count` elements of a row, of a panel's at most, to 0."""
    code = _code(lambda itemsize: PANEL, lambda row, target: row.store(row.zeros, target))
    return types.void(target, types.intp), code
