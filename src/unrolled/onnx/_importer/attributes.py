"""Reads the attributes of a node by name, and checks their types."""

from collections.abc import Iterator

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
"""Names of the domain of the standard operators."""


def node_label(node: onnx.NodeProto) -> str:
    """The name of a node in messages."""
    return f"{node.op_type} {node.name or ', '.join(node.output)!r}"


class Attributes:
    """The attributes of one node by name, text decoded.

    Every method but ``get`` and ``flag`` raises ValueError for a value of another type.

    Raises:
        ValueError: an attribute refers to an attribute of a function, or its text is not UTF-8.
    """

    def __init__(self, node: onnx.NodeProto) -> None:
        self.label = node_label(node)
        self._values: dict[str, object] = {}
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise ValueError(
                    f"{self.label}: {attribute.name} must be a value, got a reference to an "
                    "attribute of a function"
                )
            self._values[attribute.name] = _decoded(onnx.helper.get_attribute_value(attribute))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, name: str, default: object = None) -> object:
        """The value of any type, or the default."""
        return self._values.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether a value is not zero."""
        return bool(self._values.get(name, default))

    def integer(self, name: str, default: int | None = None) -> int:
        """An int; one without a default must be present."""
        value = self._values.get(name, default)
        if not isinstance(value, int):
            raise self._wrong_type(name, "an int", value)
        return value

    def optional_integer(self, name: str) -> int | None:
        """An int, or None if the node has no such attribute."""
        return self.integer(name) if name in self._values else None

    def integers(self, name: str) -> list[int] | None:
        """A list of ints, or None if the node has no such attribute."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise self._wrong_type(name, "a list of ints", value)
        return value

    def number(self, name: str) -> float | None:
        """A number, or None if the node has no such attribute."""
        value = self._values.get(name)
        if value is None or isinstance(value, int | float):
            return value
        raise self._wrong_type(name, "a number", value)

    def numbers(self, name: str) -> list[float]:
        """A list of numbers, empty if the node has no such attribute."""
        value = self._values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
            raise self._wrong_type(name, "a list of numbers", value)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts, empty if the node has no such attribute."""
        value = self._values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong_type(name, "a list of names", value)
        return value

    def tensor(self, name: str) -> onnx.TensorProto | None:
        """A tensor, or None if the node has no such attribute."""
        value = self._values.get(name)
        if value is None or isinstance(value, onnx.TensorProto):
            return value
        raise self._wrong_type(name, "a tensor", value)

    def graph(self, name: str) -> onnx.GraphProto:
        """A graph, which must be present."""
        value = self._values.get(name)
        if not isinstance(value, onnx.GraphProto):
            raise self._wrong_type(name, "a graph", value)
        return value

    def _wrong_type(self, name: str, type_name: str, value: object) -> ValueError:
        return ValueError(f"{self.label}: {name} must be {type_name}, got {value!r:.80}")


def _decoded(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated"):
        return [_decoded(item) for item in value]  # type: ignore[attr-defined]
    return value
