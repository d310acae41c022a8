"""Small valid graphs of ONNX drawn at random: recurrent nodes, and operators around them that move,
join, cut and reduce numbers. ONNX Runtime says what they compute."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.support.onnx_nodes import GATES

WIDTHS = (2, 3, 4)
AXES_AS_ATTRIBUTE = ("Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum", "ReduceMax")


@dataclass
class Drawn:
    """A model, the sizes of x in its example, other sizes that the declaration allows, too, and the
    shapes of all values in the example."""

    model: onnx.ModelProto
    example: tuple[int, int, int]
    other_sizes: tuple[int, int, int] | None
    shapes: dict[str, tuple[int, ...]]


@dataclass
class GraphDraw:
    """Adds random nodes to a graph; ``values`` has an array of zeros for each value by its name,
    which follows the shapes."""

    rng: np.random.Generator
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    count: int = 0

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(self, operator: str, inputs: list[str], *results: np.ndarray, **attributes: Any) -> str:
        if self.opset < 13 and operator in AXES_AS_ATTRIBUTE:
            attributes["axes"] = self.constants[inputs[1]].tolist()
            inputs = inputs[:1]
        names = [f"v{self.count + k}" for k in range(len(results))]
        self.count += len(names)
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        self.values |= dict(zip(names, results, strict=True))
        self.used.update(inputs)
        return names[0]

    def pick(self, rank: int | None = None) -> str | None:
        names = [k for k, v in self.floats().items() if rank is None or v.ndim == rank]
        if not names:
            return None
        return names[-1 - min(int(self.rng.exponential(1.5)), len(names) - 1)]

    def floats(self) -> dict[str, np.ndarray]:
        return {k: v for k, v in self.values.items() if v.dtype.kind == "f"}

    def one_of(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def numbers(self, *shape: int) -> np.ndarray:
        return (self.rng.standard_normal(shape) * 0.5).astype(np.float32)

    def recurrent(self) -> None:
        x = self.pick(3)
        if x is None or 0 in self.values[x].shape:
            return
        T, N, I = self.values[x].shape  # noqa: E741
        operator, H = self.one_of("RNN", "GRU", "LSTM"), self.one_of(*WIDTHS)
        direction = self.one_of("forward", "forward", "reverse", "bidirectional")
        D, G = 1 + (direction == "bidirectional"), GATES[operator]
        inputs = [x, self.constant(self.numbers(D, G * H, I)),
                  self.constant(self.numbers(D, G * H, H))]  # fmt: skip
        inputs.append(self.one_of("", self.constant(self.numbers(D, 2 * G * H))))
        lengths = self.rng.integers(1, T + 1, N).astype(np.int32)
        inputs.append(self.constant(lengths) if self.rng.random() < 0.2 else "")
        inputs += [self.state(x, D, N, H) for _ in range(2 if operator == "LSTM" else 1)]
        state = np.zeros((D, N, H), np.float32)
        results = [np.zeros((T, D, N, H), np.float32), *[state] * (2 if operator == "LSTM" else 1)]
        output = self.add(operator, inputs, *results, hidden_size=H, direction=direction)
        number = int(output[1:])
        self.states.update(f"v{number + k}" for k in range(1, len(results)))

    def state(self, x: str, D: int, N: int, H: int) -> str:
        matching = [k for k in self.states if self.values[k].shape == (D, N, H)]
        choice = int(self.rng.integers(8))
        if choice == 0:
            return self.constant(np.zeros((D, N, H), np.float32))
        if choice == 1:
            return self.constant(self.numbers(D, N, H))
        if choice in (2, 3):
            row = self.constant(self.numbers(self.one_of(1, D), 1, H) * (choice == 2))
            output, place = self.constant(np.array([1])), self.constant(np.array([D]))
            sizes = self.add("Shape", [x], np.zeros(3, np.int64))
            batch = self.add("Gather", [sizes, output], np.zeros(1, np.int64))
            shape = self.add("Concat", [place, batch, output], np.zeros(3, np.int64), axis=0)
            return self.add("Expand", [row, shape], np.zeros((D, N, H), np.float32))
        if choice == 4:
            joined = self.constant(self.numbers(D + 1, N, H))
            bounds = [self.constant(np.array([k])) for k in (1, D + 1, 0)]
            return self.add("Slice", [joined, *bounds], np.zeros((D, N, H), np.float32))
        if choice == 5 and matching:
            return self.one_of(*matching)
        return ""

    def transpose(self, x: str, value: np.ndarray) -> None:
        perms = {3: [[1, 0, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0]],
                 4: [[0, 2, 1, 3], [0, 2, 1, 3], [1, 0, 2, 3], [2, 1, 0, 3], [2, 0, 1, 3]],
                 2: [[1, 0]]}  # fmt: skip
        perm = self.one_of(*perms.get(value.ndim, [list(range(value.ndim))]))
        self.add("Transpose", [x], value.transpose(perm), perm=perm)

    def squeeze(self, x: str, value: np.ndarray) -> None:
        ones = [k for k, size in enumerate(value.shape) if size == 1]
        if not ones:
            return
        axis = self.one_of(*ones)
        written = self.one_of(axis, axis - value.ndim)
        self.add("Squeeze", [x, self.constant(np.array([written]))], value.squeeze(axis))

    def unsqueeze(self, x: str, value: np.ndarray) -> None:
        if value.ndim < 4:
            axis = int(self.rng.integers(-value.ndim - 1, value.ndim + 1))
            result = np.expand_dims(value, axis)
            self.add("Unsqueeze", [x, self.constant(np.array([axis]))], result)

    def reshape(self, x: str, value: np.ndarray) -> None:
        if not value.size:
            return
        dims = list(value.shape)
        if value.ndim == 4:
            a, b, c, d = dims
            shapes = [[a, b, c * d], [b, a, c * d], [0, 0, -1], [0, 0, c * d], [a, -1, c * d],
                      [b, -1, c * d], [-1, b, c * d], [-1, a, c * d], [0, -1, c * d],
                      [-1, 0, c * d], [a * b, c * d], [-1, c * d], [a, b * c, d],
                      [0, 0, d, c]]  # fmt: skip
        elif value.ndim == 3:
            a, b, c = dims
            shapes = [[b, a, c], [a * b, c], [-1, c], [a, b * c], [0, -1], [0, 0, -1], [1, -1, c],
                      [a, b, 1, c], [0, 0, c, 1]]  # fmt: skip
        else:
            shapes = [list(self.rng.permutation(dims)), [-1], [*dims, 1], [1, *dims]]
        shape = self.one_of(*shapes)
        new_shape = [value.shape[k] if size == 0 else size for k, size in enumerate(shape)]
        result = value.reshape(new_shape)
        if self.rng.random() < 0.25 and value.ndim == 4:  # a shape that is computed
            order = self.one_of([0, 1], [1, 0])
            sizes = self.add("Shape", [x], np.zeros(4, np.int64))
            two = self.add("Gather", [sizes, self.constant(np.array(order))], np.zeros(2, np.int64))
            tail = self.constant(np.array([-1]))
            full = self.add("Concat", [two, tail], np.zeros(3, np.int64), axis=0)
            result = value.reshape([value.shape[k] for k in order] + [-1])
            self.add("Reshape", [x, full], result)
            return
        self.add("Reshape", [x, self.constant(np.array(shape, np.int64))], result)

    def merged(self, x: str, value: np.ndarray) -> None:
        """The outputs of a layer with the directions side by side, or what looks like it."""
        if value.ndim == 4:
            swapped = value.transpose(0, 2, 1, 3)
            self.reshape(self.add("Transpose", [x], swapped, perm=[0, 2, 1, 3]), swapped)

    def flatten(self, x: str, value: np.ndarray) -> None:
        axis = int(self.rng.integers(0, value.ndim + 1))
        rows = int(np.prod(value.shape[:axis], dtype=int))
        self.add("Flatten", [x], value.reshape(rows, -1), axis=axis)

    def concat(self, x: str, value: np.ndarray) -> None:
        axis = int(self.rng.integers(-value.ndim, value.ndim))
        matching = [k for k, v in self.floats().items() if v.shape == value.shape]
        operands = [x, self.one_of(*matching)]
        self.add("Concat", operands, np.concatenate([value, value], axis), axis=axis)

    def slice(self, x: str, value: np.ndarray) -> None:
        axis = int(self.rng.integers(-value.ndim, value.ndim))
        size = value.shape[axis]
        step = self.one_of(1, 1, 1, 2, -1)
        start = int(self.rng.integers(-size, size)) if step > 0 else self.one_of(-1, size)
        end = self.one_of(2**63 - 1, 2**31 - 1, -1, size, 1) if step > 0 else -(2**63)
        key = [slice(None)] * value.ndim
        key[axis] = slice(start, end, step)
        result = value[tuple(key)]
        if result.size:
            bounds = [self.constant(np.array([k])) for k in (start, end, axis, step)]
            self.add("Slice", [x, *bounds[: 3 if step == 1 else 4]], result)

    def gather(self, x: str, value: np.ndarray) -> None:
        axis = int(self.rng.integers(-value.ndim, value.ndim))
        size = value.shape[axis]
        index = self.one_of(np.array(-1), np.array(0), np.array(size - 1), np.array([0, -1]))
        result = np.take(value, index, axis)
        self.add("Gather", [x, self.constant(index)], result, axis=axis)

    def split(self, x: str, value: np.ndarray) -> None:
        axes = [k for k, size in enumerate(value.shape) if size % 2 == 0 and size]
        if axes:
            axis = self.one_of(*axes)
            written = self.one_of(axis, axis - value.ndim)
            attributes = {"num_outputs": 2} if self.opset >= 18 else {}
            self.add("Split", [x], *np.split(value, 2, axis), axis=written, **attributes)

    def pointwise(self, x: str, value: np.ndarray) -> None:
        self.add(self.one_of("Tanh", "Relu", "Sigmoid", "Identity"), [x], value)

    def product(self, x: str, value: np.ndarray) -> None:
        M = self.one_of(*WIDTHS)
        W = self.constant(self.numbers(value.shape[-1], M))
        result = self.add("MatMul", [x, W], np.zeros((*value.shape[:-1], M), np.float32))
        if self.rng.random() < 0.5:
            row = self.constant(self.numbers(M))
            self.add("Add", self.one_of([result, row], [row, result]), self.values[result])

    def joined(self, x: str, value: np.ndarray) -> None:
        names = [k for k, v in self.floats().items() if v.ndim and _fit(v.shape, value.shape)]
        operand = self.one_of(*names)
        if self.rng.random() < 0.4:
            shape = value.shape[int(self.rng.integers(value.ndim)) :]
            operand = self.constant(self.numbers(*shape))
        array = self.values.get(operand, self.constants.get(operand))
        assert array is not None
        result = value + np.zeros(array.shape, np.float32)
        if result.size < 400 and result.ndim < 5:
            self.add(self.one_of("Add", "Mul", "Sub"), [x, operand], result)

    def softmax(self, x: str, value: np.ndarray) -> None:
        axis = int(self.rng.integers(-value.ndim, value.ndim)) if self.opset >= 13 else -1
        self.add("Softmax", [x], value, axis=axis)

    def reduced(self, x: str, value: np.ndarray) -> None:
        axis = int(self.rng.integers(-value.ndim, value.ndim))
        keep_dims = int(self.rng.integers(2))
        operator = self.one_of("ReduceMean", "ReduceSum", "ReduceMax")
        result = value.sum(axis, keepdims=bool(keep_dims))
        self.add(operator, [x, self.constant(np.array([axis]))], result, keepdims=keep_dims)

    def step(self) -> None:
        steps = [
            *["merged"] * 3, *["transpose"] * 2, *["squeeze"] * 2, *["reshape"] * 3, "unsqueeze",
            "flatten", "concat", "slice", "gather", "split", "pointwise", "product", "joined",
            "softmax", "reduced",
        ]  # fmt: skip
        if self.rng.random() < 0.3:
            self.recurrent()
            return
        x = self.pick()
        value = None if x is None else self.values[x]
        if x is not None and value is not None and 1 <= value.ndim < 5 and value.size:
            getattr(self, self.one_of(*steps))(x, value)


def _fit(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    pairs = zip(shape[::-1], target[::-1], strict=False)
    return all(1 in pair or pair[0] == pair[1] for pair in pairs)


def draw_graph(seed: int) -> Drawn:
    """The graph of a seed."""
    rng = np.random.default_rng(seed)
    draw = GraphDraw(rng, int(rng.choice([11, 18])))
    T, N, I = (int(rng.integers(1, 5)) for _ in range(3))  # noqa: E741
    draw.values["x"] = np.zeros((T, N, I), np.float32)
    if rng.random() < 0.3:
        draw.transpose("x", draw.values["x"])
    draw.recurrent()
    for _ in range(int(rng.integers(1, 7))):
        draw.step()
    node_outputs = {name for node in draw.nodes for name in node.output}
    outputs = [
        k for k, v in draw.floats().items() if k in node_outputs and k not in draw.used and v.size
    ]
    dims: list[Any] = [T, N]
    batch_shape = [T, N]
    for k in range(2):
        if rng.random() < 0.5:
            dims[k] = f"free{k}"
            batch_shape[k] += k + 1
    graph = helper.make_graph(
        draw.nodes, "drawn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*dims, I])],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in sorted(outputs)],
        [numpy_helper.from_array(array, name) for name, array in draw.constants.items()
         if name in draw.used],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", draw.opset)], ir_version=8
    )
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()
    shapes = {name: array.shape for name, array in draw.values.items()}
    return Drawn(
        model,
        (T, N, I),
        None if batch_shape == [T, N] else (batch_shape[0], batch_shape[1], I),
        shapes,
    )


def by_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray] | None:
    """Its outputs for x, or None if it refuses x."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for output in plain.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        session = onnxruntime.InferenceSession(
            plain.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, {"x": x}))
    except Exception as error:  # classes of its own
        if type(error).__module__.startswith("onnxruntime"):
            return None
        raise
