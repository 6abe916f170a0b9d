"""A plugin for mypy: an attribute of a torch module that nobody declares may be anything.

torch declares that ``nn.Module.__getattr__`` gives a tensor or a module. A network's own methods and numbers are
neither, so without this every ``model.backbone.out_channels`` would be an error. Attributes that a class declares keep
their types.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny

UNDECLARED = 'torch._tensor.Tensor | torch.nn.modules.module.Module'


class ModuleAttributes(Plugin):
    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        return anything_if_undeclared if fullname.startswith('torch.nn.modules.module.Module.') else None


def anything_if_undeclared(context: AttributeContext) -> Type:
    given = context.default_attr_type
    return AnyType(TypeOfAny.special_form) if str(given) == UNDECLARED else given


def plugin(version: str) -> type[Plugin]:
    return ModuleAttributes
