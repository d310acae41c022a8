"""Descriptions of models, changed at random as texts: a reader must refuse them, or run them.

A change may be one that Python's own JSON would hide: a key twice, 1.0 for 1, NaN.
"""

import json
import random
from typing import Any

__all__ = ["joined", "mutated", "split"]

ATOMS = ["null", "true", "false", "0", "1", "2", "3", "-1", "1.0", "5.0", "1e0", "-0", "NaN",
         "Infinity", "16777217", "1" * 16, "9" * 500, '""', '"linear"', '"last"', '"relu"',
         '"float32"', '"int8"', '"sum"', '"concat"', '"\\ud800"', "[]", "{}", '{"dict": {}}',
         '{"tuple": []}', '{"items": []}', '{"float": "nan"}', '{"float": "1.5"}', '{"list": []}',
         '{"array": "absent"}', '{"tuple": "abc"}', '{"items": [[1, 2]]}', '{"items": ["ab"]}',
         '{"items": [["block", "last"]]}', '{"items": [[{"tuple": [1]}, 2]]}',
         '{"items": [[[1], 2]]}', '{"dict": {"block": "last"}}', '{"dict": {"block": "tanh"}}',
         '{"dict": {"block": "last"}, "tuple": []}']  # fmt: skip
"""Values as texts."""


def split(data: bytes) -> tuple[dict[str, Any], Any, bytes]:
    """The header of a file, the value that its description is, and the bytes of its arrays.

    Objects of the description are ``("{", [[key, value], …])``, lists ``("[", [value, …])``, and
    everything else its text.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    text = header["__metadata__"].pop("unrolled")
    value = json.loads(
        text, object_pairs_hook=lambda pairs: ("{", [[json.dumps(k), v] for k, v in pairs])
    )
    return header, _texts(value), data[begin:]


def _texts(value: Any) -> Any:
    if isinstance(value, tuple):
        return ("{", [[key, _texts(item)] for key, item in value[1]])
    if isinstance(value, list):
        return ("[", [_texts(item) for item in value])
    return json.dumps(value)


def joined(header: dict[str, Any], description: Any, data: bytes) -> bytes:
    """A file of these parts."""
    metadata = header["__metadata__"] | {"unrolled": _text(description)}
    text = json.dumps(header | {"__metadata__": metadata}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value[0] == "[":
        return "[" + ", ".join(map(_text, value[1])) + "]"
    return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value[1]) + "}"


def _places(value: Any) -> list[tuple[list[Any], int]]:
    """Every list and object within a value, with the number of each thing in it."""
    if isinstance(value, str):
        return []
    inner = [item if value[0] == "[" else item[1] for item in value[1]]
    slots = [(value[1], k) for k in range(len(value[1]))]
    return slots + [place for item in inner for place in _places(item)]


def mutated(description: Any, chance: random.Random) -> Any:
    """A description with one to three changes."""
    changed = json.loads(json.dumps(description))
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        places = _places(changed)
        if not places:
            break
        (items, k), (remaining, index) = chance.choice(places), chance.choice(places)
        entry = isinstance(items[k], list) and len(items[k]) == 2 and items[k][0] not in ("[", "{")
        from_entry = (
            isinstance(remaining[index], list)
            and len(remaining[index]) == 2
            and remaining[index][0] not in ("[", "{")
        )
        copied = json.loads(json.dumps(remaining[index][1] if from_entry else remaining[index]))
        match chance.randrange(6):
            case 0:
                del items[k]
            case 1:
                items.append(json.loads(json.dumps(items[k])))  # of an object, a key twice
            case 2 if entry:
                items[k][0] = chance.choice(['"block"', '"dict"', '"x"', '"width"', '"\\u0061"'])
            case 3 if entry:
                items[k][1] = copied
            case 3:
                items[k] = copied
            case _ if entry:
                items[k][1] = chance.choice(ATOMS)
            case _:
                items[k] = chance.choice(ATOMS)
    return changed
