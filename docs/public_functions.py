"""An extension of griffe: a public function keeps its page where a module of the package has the same name.

Griffe gives precedence to the module: after `from painn_fast.md.run import run` in `painn_fast.md`, its
`painn_fast.md.run` is the module, and the exported function would be missing from the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from griffe import Alias, AliasResolutionError, Extension, GriffeLoader, Module, Object


def modules(module: Module) -> Iterator[Module]:
    """The module and all below it."""
    yield module
    for child in list(module.modules.values()):
        if not child.is_alias:
            yield from modules(child)


class PublicFunctions(Extension):
    """Puts exported functions in place of modules of the same name."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: Any) -> None:
        """Called once, when the package has been read."""
        exports = [(module, str(name)) for module in modules(pkg) for name in module.exports or ()]
        for module, name in exports:  # targets are looked up while all modules are still in the tree
            member = module.members.get(name)
            if isinstance(member, Alias):
                with suppress(AliasResolutionError):  # of another package
                    member.resolve_target()
        for module, name in exports:
            shadow = module.members.get(name)
            if isinstance(shadow, Module) and name in shadow.members:
                module.members[name] = Alias(name, shadow.members[name], parent=module)


class Examples(Extension):
    """Shows a section `Example:` as code; griffe knows the plural only and takes its results for links."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for each object that is read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
