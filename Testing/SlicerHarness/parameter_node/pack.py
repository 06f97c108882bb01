"""`parameterPack`: a class of typed members that is one field of a parameter node."""

import copy
import typing
from collections.abc import Callable
from typing import Any

from .storage import Declared, PackStore


class _Member(Declared):
    """One member: a property that checks its values, and writes them to the node that the pack was read from."""

    def __init__(self, name: str, annotated: Any, owner: type):
        super().__init__(name, annotated, owner)
        self.store.validate(self.default.value)

    def __get__(self, pack: Any, owner: type | None = None) -> Any:
        return self if pack is None else vars(pack)[f"_{self.name}_value"]

    def __set__(self, pack: Any, value: Any) -> None:
        self.store.validate(value)
        vars(pack)[f"_{self.name}_value"] = value
        if save := vars(pack).get("_save"):
            save(pack)


def parameterPack(classtype: type | None = None) -> Any:
    """Makes the annotated class one whose objects can be fields of a parameter node."""
    return _pack if classtype is None else _pack(classtype)


def isParameterPack(candidate: Any) -> bool:
    return getattr(candidate, "_is_parameterPack", False)


def nestedParameterNames(pack: Any) -> list[str]:
    """The names of all members, those of packs within it with a dot."""
    names = []
    for name, member in pack.allParameters.items():
        if isinstance(member.store, PackStore):
            names += [f"{name}.{inner}" for inner in nestedParameterNames(member.store.kind)]
        else:
            names.append(name)
    return names


def _pack(cls: type) -> type:
    hints = typing.get_type_hints(cls, include_extras=True)
    if not hints:
        raise ValueError("a parameterPack needs members")
    members = {name: _Member(name, annotated, cls) for name, annotated in hints.items()}
    for name in ("allParameters", "_is_parameterPack", "getValue", "setValue", "dataType"):
        if hasattr(cls, name):
            raise ValueError(f"'{name}' is reserved in a parameterPack")
    for name, member in members.items():
        setattr(cls, name, member)
    cls.__init__ = _make_init(members, cls.__dict__.get("__init__"))
    for name, method in (("__eq__", _is_equal), ("__repr__", _describe), ("__str__", _describe)):
        if name not in cls.__dict__:
            setattr(cls, name, method)
    cls.allParameters, cls._is_parameterPack = members, True
    cls.getValue, cls.setValue, cls.dataType = _get_value, _set_value, classmethod(_data_type)
    return cls


def _make_init(members: dict[str, _Member], own: Callable | None) -> Callable:
    """Gives each member its default, then runs the `__init__` of the class (a dataclass's, say), if there is one."""

    def initialise(self: Any, *values: Any, **named: Any) -> None:
        for name, member in members.items():
            setattr(self, name, copy.copy(member.default.value))
        if own is not None:
            own(self, *values, **named)
            return
        for name, value in [*zip(members, values, strict=False), *named.items()]:
            if name not in members:
                raise TypeError(f"there is no member '{name}'")
            setattr(self, name, value)

    return initialise


def _is_equal(self: Any, other: Any) -> bool:
    return type(self) is type(other) and all(
        getattr(self, name) == getattr(other, name) for name in self.allParameters
    )


def _describe(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.allParameters)
    return f"{type(self).__name__}({values})"


def _get_value(self: Any, name: str) -> Any:
    first, _, rest = name.partition(".")
    value = getattr(self, first)
    return value.getValue(rest) if rest else value


def _set_value(self: Any, name: str, value: Any) -> None:
    first, _, rest = name.partition(".")
    if not rest:
        setattr(self, first, value)
        return
    inner = getattr(self, first)
    inner.setValue(rest, value)
    setattr(self, first, inner)


def _data_type(cls: Any, name: str) -> Any:
    first, _, rest = name.partition(".")
    member = cls.allParameters[first]
    return member.store.kind.dataType(rest) if rest else member.annotated
