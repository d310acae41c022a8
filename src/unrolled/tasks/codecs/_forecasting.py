"""The codec of forecasters: columns of numbers in standard units."""

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

from unrolled.tasks.codecs._standardization import check_standardization


class ForecastingState(TypedDict):
    """The state of a :class:`ForecastingCodec` in a checkpoint."""

    columns: list[str]
    targets: int
    mean: Tensor
    deviation: Tensor
    window: int
    horizon: int


class ForecastingCodec:
    """The columns, the mean and deviation of each, and the sizes of a forecast.

    Args:
        columns: names, the forecast ones first.
        targets: how many of them are forecast.
        mean, deviation: `[F]` of the training part.
        window, horizon: T and K, the steps that a forecast sees and makes.

    Raises:
        ValueError: the arguments do not match, or the mean or deviation is invalid.
    """

    def __init__(
        self,
        columns: Sequence[str],
        targets: int,
        mean: Tensor,
        deviation: Tensor,
        window: int,
        horizon: int,
    ) -> None:
        check_standardization(mean, deviation)
        if len(columns) != len(mean):
            raise ValueError(
                f"ForecastingCodec: columns must be {len(mean)} names, got {len(columns)}"
            )
        if not 1 <= targets <= len(columns):
            raise ValueError(
                f"ForecastingCodec: targets must be from 1 to {len(columns)}, got {targets}"
            )
        if min(window, horizon) < 1:
            raise ValueError(
                "ForecastingCodec: window and horizon must be at least 1, got "
                f"{window} and {horizon}"
            )
        self.columns = tuple(columns)
        self.targets = targets
        self.mean = mean
        self.deviation = deviation
        self.window = window
        self.horizon = horizon

    def encode(self, values: Tensor) -> Tensor:
        """In standard units, float32."""
        return ((values.double() - self.mean) / self.deviation).float()

    def decode(self, forecasts: Tensor) -> Tensor:
        """Forecasts `[…, targets]` in the units of the data, float64."""
        targets = self.targets
        return forecasts.double() * self.deviation[:targets] + self.mean[:targets]

    def state(self) -> ForecastingState:
        """Plain values and tensors from which `from_state` makes the same codec."""
        return {
            "columns": list(self.columns),
            "targets": self.targets,
            "mean": self.mean,
            "deviation": self.deviation,
            "window": self.window,
            "horizon": self.horizon,
        }

    @classmethod
    def from_state(cls, state: ForecastingState) -> "ForecastingCodec":
        """The codec whose `state` this is."""
        return cls(**state)
