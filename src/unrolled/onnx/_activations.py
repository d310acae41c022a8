"""The activation functions of the operators RNN, LSTM and GRU of ONNX, with α, β and clip."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unrolled import cells
from unrolled.cells import _settings as settings

REQUIRED = "required"
ValueFunction = Callable[..., Any]
"""A function of an array of any library that keeps its shape."""


@dataclass(frozen=True)
class ActivationFormula:
    """f(x, α, β), and the defaults of α and β: None for a function without that parameter,
    ``REQUIRED`` for a parameter without a default."""

    function: Callable[..., Any]
    alpha: float | str | None = None
    beta: float | str | None = None


ACTIVATIONS: dict[str, ActivationFormula] = {
    "Relu": ActivationFormula(lambda x, a, b: cells.relu(x)),
    "Tanh": ActivationFormula(lambda x, a, b: cells.tanh(x)),
    "Sigmoid": ActivationFormula(lambda x, a, b: cells.sigmoid(x)),
    "Affine": ActivationFormula(lambda x, a, b: a * x + b, 1.0, 0.0),
    "LeakyRelu": ActivationFormula(lambda x, a, b: cells.where(x >= 0, x, a * x), 0.01),
    "ThresholdedRelu": ActivationFormula(lambda x, a, b: cells.where(x >= a, x, 0.0), 1.0),
    "ScaledTanh": ActivationFormula(lambda x, a, b: a * cells.tanh(b * x), REQUIRED, REQUIRED),
    "HardSigmoid": ActivationFormula(lambda x, a, b: cells.clip(a * x + b, 0.0, 1.0), 0.2, 0.5),
    # exp must not overflow in the branch that is not selected: its gradient would be inf times 0.
    "Elu": ActivationFormula(
        lambda x, a, b: cells.where(x >= 0, x, a * (cells.exp(cells.minimum(x, 0.0)) - 1)), 1.0
    ),
    "Softsign": ActivationFormula(lambda x, a, b: cells.softsign(x)),
    "Softplus": ActivationFormula(lambda x, a, b: cells.softplus(x)),
}
"""All functions in the definition of the operators."""


@dataclass(frozen=True)
class Activation:
    """An activation function of the operators, on the arrays of any library.

    ``name`` is one of ``ACTIVATIONS``; ``alpha`` and ``beta`` default to the values that ONNX
    defines for the function; ScaledTanh has no defaults. With ``clip`` t it is
    f(min(max(x, -t), t)).

    Raises:
        ValueError: the name is unknown, or α or β is missing, not finite, or does not belong to the
            function.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        settings.one_of("activation", self.name, tuple(ACTIVATIONS))
        formula = ACTIVATIONS[self.name]
        self._set_parameter("alpha", self.alpha, formula.alpha)
        self._set_parameter("beta", self.beta, formula.beta)
        if self.clip is not None:
            object.__setattr__(self, "clip", settings.positive("clip", self.clip))

    def _set_parameter(self, letter: str, value: float | None, default: float | str | None) -> None:
        if value is not None and default is None:
            raise ValueError(
                f"{self.name}: {letter} must be None, as it has no such parameter, got {value!r}"
            )
        if value is None and default == REQUIRED:
            raise ValueError(
                f"{self.name}: {letter} must be a number, as it has no default, got None"
            )
        number = default if value is None else value
        if number is not None:
            object.__setattr__(self, letter, settings.number(letter, number))

    @property
    def __name__(self) -> str:
        numbers = {"alpha": self.alpha, "beta": self.beta, "clip": self.clip}
        text = ", ".join(f"{k}={v:g}" for k, v in numbers.items() if v is not None)
        return f"{self.name}({text})" if text else self.name

    def __call__(self, x: Any) -> Any:
        if self.clip is not None:
            x = cells.clip(x, -self.clip, self.clip)
        return ACTIVATIONS[self.name].function(x, self.alpha, self.beta)


SIGMOID, TANH, RELU = Activation("Sigmoid"), Activation("Tanh"), Activation("Relu")
