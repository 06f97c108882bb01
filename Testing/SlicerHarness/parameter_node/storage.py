"""How the value of a field is kept in a vtkMRMLScriptedModuleNode, by type.

A store writes and reads one field under its name; containers write their elements under `name.0`, `name.1`, ...
"""

import collections.abc
import enum
import pathlib
import typing
from collections.abc import Callable
from typing import Any

import slicer

from .annotations import Default, FloatRange, IsInstance, NotNone, Validator, find, split


class Store:
    """One field of simple type, kept as text."""

    kind: Any = None

    def __init__(
        self,
        to_text: Callable[[Any], str],
        from_text: Callable[[str], Any],
        default: Any,
        validators: list[Validator],
    ):
        self.to_text, self.from_text, self.validators = to_text, from_text, validators
        self._default = default

    def default(self) -> Any:
        return self._default() if callable(self._default) else self._default

    def has(self, node: Any, name: str) -> bool:
        return node.HasParameter(name)

    def validate(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Any, name: str) -> Any:
        return self.from_text(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)


class NodeStore(Store):
    """A reference to another node, which the scene keeps valid; an empty parameter says that it was set."""

    def __init__(self, kind: type, validators: list[Validator]):
        super().__init__(str, str, None, [IsInstance(kind), *validators])

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class RangeStore(Store):
    def __init__(self, validators: list[Validator]):
        super().__init__(str, float, FloatRange, [NotNone(), IsInstance(FloatRange), *validators])

    def has(self, node: Any, name: str) -> bool:
        return node.HasParameter(f"{name}._minimum")

    def write(self, node: Any, name: str, value: FloatRange) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            node.SetParameter(f"{name}._minimum", str(value.minimum))
            node.SetParameter(f"{name}._maximum", str(value.maximum))

    def read(self, node: Any, name: str) -> FloatRange:
        value = FloatRange(*[float(node.GetParameter(f"{name}.{end}")) for end in ("_minimum", "_maximum")])
        value._save = lambda changed: self.write(node, name, changed)
        return value

    def remove(self, node: Any, name: str) -> None:
        for end in ("_minimum", "_maximum"):
            node.UnsetParameter(f"{name}.{end}")


class ObservedList(collections.abc.MutableSequence):
    """A list read from a parameter node: every change is written back, and then read again."""

    def __init__(self, values: list[Any], save: Callable[[list[Any]], list[Any]]):
        self._values, self._save = values, save

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def _changed(self, change: Callable[[list[Any]], Any]) -> None:
        changed = list(self._values)
        change(changed)
        self._values = self._save(changed)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._changed(lambda values: values.__setitem__(index, value))

    def __delitem__(self, index: Any) -> None:
        self._changed(lambda values: values.__delitem__(index))

    def insert(self, index: int, value: Any) -> None:
        self._changed(lambda values: values.insert(index, value))

    def extend(self, values: Any) -> None:
        self._changed(lambda own: own.extend(values))

    def sort(self, **how: Any) -> None:
        self._changed(lambda values: values.sort(**how))

    def reverse(self) -> None:
        self._changed(list.reverse)

    def clear(self) -> None:
        self._changed(list.clear)

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedList) else other)

    def __repr__(self) -> str:
        return f"ObservedList({self._values})"


class ListStore(Store):
    def __init__(self, element: Store, validators: list[Validator]):
        super().__init__(str, str, list, validators)
        self.element = element

    def has(self, node: Any, name: str) -> bool:
        return node.HasParameter(f"{name}.len")

    def _length(self, node: Any, name: str) -> int:
        return int(node.GetParameter(f"{name}.len")) if self.has(node, name) else 0

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        for item in value:
            self.element.validate(item)
        with slicer.util.NodeModify(node):
            for index in range(len(value), self._length(node, name)):
                self.element.remove(node, f"{name}.{index}")
            for index, item in enumerate(value):
                self.element.write(node, f"{name}.{index}", item)
            node.SetParameter(f"{name}.len", str(len(value)))

    def read(self, node: Any, name: str) -> ObservedList:
        values = [self.element.read(node, f"{name}.{index}") for index in range(self._length(node, name))]
        return ObservedList(values, lambda changed: self._write_and_read(node, name, changed))

    def _write_and_read(self, node: Any, name: str, values: list[Any]) -> list[Any]:
        self.write(node, name, values)
        return self.read(node, name)._values

    def remove(self, node: Any, name: str) -> None:
        self.write(node, name, [])
        node.UnsetParameter(f"{name}.len")


class TupleStore(Store):
    def __init__(self, elements: list[Store], validators: list[Validator]):
        super().__init__(str, str, lambda: tuple(e.default() for e in elements), validators)
        self.elements = elements

    def has(self, node: Any, name: str) -> bool:
        return self.elements[0].has(node, f"{name}.0")

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            for index, (element, item) in enumerate(zip(self.elements, value, strict=True)):
                element.write(node, f"{name}.{index}", item)

    def read(self, node: Any, name: str) -> tuple[Any, ...]:
        return tuple(element.read(node, f"{name}.{index}") for index, element in enumerate(self.elements))

    def remove(self, node: Any, name: str) -> None:
        for index, element in enumerate(self.elements):
            element.remove(node, f"{name}.{index}")


class ObservedDict(collections.abc.MutableMapping):
    """A dict read from a parameter node: every change is written back."""

    def __init__(self, values: dict[Any, Any], save: Callable[[dict[Any, Any]], None]):
        self._values, self._save = values, save

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __getitem__(self, key: Any) -> Any:
        return self._values[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._save({**self._values, key: value})
        self._values[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._values[key]
        self._save(self._values)

    def popitem(self) -> tuple[Any, Any]:
        last = self._values.popitem()
        self._save(self._values)
        return last

    def __repr__(self) -> str:
        return f"ObservedDict({self._values})"


class DictStore(ListStore):
    """Kept as a list of pairs, in order."""

    def __init__(self, key: Store, value: Store, validators: list[Validator]):
        super().__init__(TupleStore([key, value], []), [])
        self._default, self.validators = dict, validators

    def write(self, node: Any, name: str, value: Any) -> None:
        super().write(node, name, list(value.items()) if hasattr(value, "items") else value)

    def read(self, node: Any, name: str) -> ObservedDict:
        return ObservedDict(
            dict(super().read(node, name)._values), lambda changed: self.write(node, name, changed)
        )


class PackStore(Store):
    """An object of a `parameterPack` class, kept as its members under `name.member`."""

    def __init__(self, kind: Any, validators: list[Validator]):
        super().__init__(str, str, kind, [NotNone(), IsInstance(kind), *validators])
        self.kind = kind

    def has(self, node: Any, name: str) -> bool:
        return any(
            member.store.has(node, f"{name}.{inner}") for inner, member in self.kind.allParameters.items()
        )

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            for inner, member in self.kind.allParameters.items():
                member.store.write(node, f"{name}.{inner}", getattr(value, inner))

    def read(self, node: Any, name: str) -> Any:
        pack = self.kind()
        for inner, member in self.kind.allParameters.items():
            if member.store.has(node, f"{name}.{inner}"):
                setattr(pack, inner, member.store.read(node, f"{name}.{inner}"))
        vars(pack)["_save"] = lambda changed: self.write(node, name, changed)
        return pack

    def remove(self, node: Any, name: str) -> None:
        for inner, member in self.kind.allParameters.items():
            member.store.remove(node, f"{name}.{inner}")


class UnionStore(Store):
    """One of several types; the place under which the value lies tells which."""

    def __init__(self, stores: list[Store], validators: list[Validator]):
        is_optional = len(stores) == 2 and isinstance(stores[1], NoneStore)
        super().__init__(str, str, None if is_optional else stores[0].default, validators)
        self.stores = stores

    def has(self, node: Any, name: str) -> bool:
        return any(store.has(node, f"{name}.{index}") for index, store in enumerate(self.stores))

    def validate(self, value: Any) -> None:
        super().validate(value)
        self._choose(value)

    def _choose(self, value: Any) -> int:
        """The first type that takes the value. A bool is no int here, and None is only what is declared so."""
        refusal: Exception = TypeError(f"{value!r} is of none of the types")
        for index, store in enumerate(self.stores):
            is_none_only = value is None and not isinstance(store, NoneStore)
            if is_none_only or (isinstance(value, bool) and store.kind is not bool):
                continue
            try:
                store.validate(value)
                return index
            except TypeError:
                continue
            except ValueError as error:
                refusal = refusal if isinstance(store, NoneStore) else error
        raise refusal

    def write(self, node: Any, name: str, value: Any) -> None:
        super().validate(value)
        chosen = self._choose(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            self.stores[chosen].write(node, f"{name}.{chosen}", value)

    def read(self, node: Any, name: str) -> Any:
        for index, store in enumerate(self.stores):
            if store.has(node, f"{name}.{index}"):
                return store.read(node, f"{name}.{index}")
        raise KeyError(f"no value for {name}")

    def remove(self, node: Any, name: str) -> None:
        for index, store in enumerate(self.stores):
            store.remove(node, f"{name}.{index}")


class NoneStore(Store):
    def __init__(self) -> None:
        super().__init__(lambda _: "True", lambda _: None, None, [])

    def validate(self, value: Any) -> None:
        if value is not None:
            raise ValueError("the value must be None")


class Declared:
    """A name that a class declares with a type: where its value is kept, and the value that it has at first."""

    def __init__(self, name: str, annotated: Any, owner: type):
        self.name, self.annotated = name, annotated
        self.store: Store
        self.store, annotations = store_for(annotated)
        given = Default(getattr(owner, name)) if hasattr(owner, name) else find(annotations, Default)
        self.default = given or Default(generator=self.store.default)


def store_for(annotated: Any) -> tuple[Store, list[Any]]:
    """The store of a field's type, and the annotations that concern its default and its widgets."""
    kind, annotations = split(annotated)
    validators = [a() if isinstance(a, type) else a for a in annotations if _is_validator(a)]
    store = _store(kind, validators)
    store.kind = kind
    return store, [a for a in annotations if not _is_validator(a)]


def _is_validator(annotation: Any) -> bool:
    return isinstance(annotation, Validator) or (
        isinstance(annotation, type) and issubclass(annotation, Validator)
    )


def _store(kind: Any, validators: list[Validator]) -> Store:
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return NoneStore()
    if kind in (int, float):
        accepted = (int, float) if kind is float else int
        return Store(str, kind, 0, [NotNone(), IsInstance(accepted), *validators])
    if kind is str:
        return Store(str, str, "", [NotNone(), IsInstance(str), *validators])
    if kind is bool:
        return Store(str, lambda text: text == "True", False, [NotNone(), IsInstance(bool), *validators])
    if kind is FloatRange:
        return RangeStore(validators)
    if getattr(kind, "_is_parameterPack", False):
        return PackStore(kind, validators)
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return Store(str, kind, kind, [NotNone(), IsInstance(kind), *validators])
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        first = next(iter(kind))
        return Store(
            lambda value: value.name, kind.__getitem__, lambda: first, [IsInstance(kind), *validators]
        )
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeStore(kind, validators)
    if origin is list and len(parameters) == 1:
        return ListStore(store_for(parameters[0])[0], validators)
    if origin is tuple and parameters and Ellipsis not in parameters:
        return TupleStore([store_for(p)[0] for p in parameters], validators)
    if origin is dict:
        return DictStore(*[store_for(p)[0] for p in parameters], validators)
    if origin is typing.Union:
        return UnionStore([store_for(p)[0] for p in parameters], validators)
    raise TypeError(f"a parameter node can't keep a field of type {kind} (in this harness)")
