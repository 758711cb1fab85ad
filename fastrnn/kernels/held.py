"""A named tuple in memory, handed on by its address.

What the tasks of a pass share is some twenty arrays, weights and numbers, a hundred words in all,
and is handed on at every call of a stage.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, register_model


class Held(types.Type):
    """Address of a named tuple, whose fields are its attributes."""

    def __init__(self, kind: types.NamedTuple) -> None:
        self.kind = kind
        super().__init__(name=f"Held({kind})")


@register_model(Held)
class _HeldModel(models.PrimitiveModel):
    def __init__(self, manager: Any, held: Held) -> None:
        super().__init__(manager, held, manager.lookup(held.kind).get_value_type().as_pointer())


@infer_getattr
class _HeldFields(AttributeTemplate):
    key = Held

    def generic_resolve(self, held: Held, name: str) -> types.Type | None:
        return held.kind[held.kind.fields.index(name)] if name in held.kind.fields else None


@lower_getattr_generic(Held)
def _field(context: Any, builder: Any, held: Held, address: Any, name: str) -> Any:
    number = held.kind.fields.index(name)
    value = builder.load(cgutils.gep_inbounds(builder, address, 0, number))
    return impl_ret_borrowed(context, builder, held.kind[number], value)


@intrinsic
def hold(typingctx: Any, value: Any) -> Any:
    """The address of a named tuple, which lasts until the function that calls this returns."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return cgutils.alloca_once_value(builder, arguments[0])

    return Held(value)(value), codegen
