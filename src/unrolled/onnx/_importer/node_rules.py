"""The rules of all operators, and the conversion of one node by its rule.

An operator without a rule raises an error only if an output of the model needs its result.
"""

import onnx

from unrolled.io import CORRUPT_FILE_ERRORS
from unrolled.onnx._importer import math_rules, recurrent_rules, shape_rules
from unrolled.onnx._importer.attributes import STANDARD_DOMAINS, Attributes, node_label
from unrolled.onnx._importer.graph_builder import GraphBuilder, ImportedNode, Rule
from unrolled.onnx._importer.values import RefusedError, Value

RULES = recurrent_rules.RULES | math_rules.RULES | shape_rules.RULES


def convert_node(b: GraphBuilder, node: onnx.NodeProto) -> None:
    """Define the outputs of a node as values, or as the reason why they cannot be converted."""
    inputs = [b.values[name] if name else None for name in node.input]
    try:
        attributes = Attributes(node)
        rule = _rule_of(node)
        b.shapes.infer(node, attributes)
        outputs = rule(b, ImportedNode(node, attributes, inputs))
    except RefusedError as error:
        outputs = [Value(error=str(error))]
    except CORRUPT_FILE_ERRORS as error:
        message, label = str(error).replace("\n", " "), node_label(node)
        outputs = [Value(error=message if message.startswith(label) else f"{label}: {message}")]
    missing = Value(error=outputs[0].error or f"{node_label(node)}: has no such output")
    outputs += [missing] * len(node.output)
    b.define({name: value for name, value in zip(node.output, outputs, strict=False) if name})


def _rule_of(node: onnx.NodeProto) -> Rule:
    if node.op_type in RULES and node.domain in STANDARD_DOMAINS:
        return RULES[node.op_type]
    raise RefusedError(
        f"{node_label(node)}: the operator must be one of layers, embeddings, products with "
        "weights or functions of numbers; layers_of returns the layers of any model"
    )
