"""Forecasting: the next values of one or several series, from a window of the past."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from unrolled.models import SequenceModel
from unrolled.tasks.baselines import seasonal_naive
from unrolled.tasks.bucketing import Buckets
from unrolled.tasks.codecs.standardization import check_standardization, mean_and_deviation
from unrolled.tasks.data.source import DataError, Source
from unrolled.tasks.data.tables import read_table
from unrolled.tasks.data.time_series import Series, check_length, read_series, series_of
from unrolled.tasks.task import PredictionInput, Shard, Task

__all__ = [
    "Forecaster",
    "Forecasting",
    "ForecastingBatch",
    "ForecastingCodec",
    "Series",
    "forecast",
]


class ForecastingBatch(NamedTuple):
    """Windows `[T, N, F]` in standard units, and what came next, `[K, N, targets]`."""

    windows: Tensor
    wanted: Tensor
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple's own is of no use here
        """Windows of this shard."""
        return self.windows.shape[1]


class ForecastingCodec:
    """Columns, the mean and deviation of each, what is forecast how far from how much of the past.

    Args:
        columns: names, those to forecast first.
        targets: how many of them are forecast.
        mean, deviation: `[F]` of the training part.
        window, horizon: T and K.

    Raises:
        ValueError: the parts contradict each other, or the scale is no scale.
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
        fits = len(columns) == len(mean) and 1 <= targets <= len(columns)
        if not fits or min(window, horizon) < 1:
            raise ValueError(
                f"columns: wanted {len(mean)}, targets at most as many, window and horizon at "
                f"least 1, got {len(columns)}, {targets}, {window}, {horizon}"
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
        """Forecasts `[…, targets]` in the data's own units, float64."""
        targets = self.targets
        return forecasts.double() * self.deviation[:targets] + self.mean[:targets]

    def state(self) -> dict[str, Any]:
        return {
            "columns": list(self.columns),
            "targets": self.targets,
            "mean": self.mean,
            "deviation": self.deviation,
            "window": self.window,
            "horizon": self.horizon,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ForecastingCodec":
        return cls(**state)


class Forecaster(nn.Module):
    """Recurrent layers over the window; a head on their last state tells all K steps at once, each
    as the difference to the last value that is known.

    Args:
        inputs, targets: columns that are seen, and how many of them, the first, are forecast.
        horizon: K.
        options: those of :class:`unrolled.models.SequenceModel`.
    """

    def __init__(self, inputs: int, targets: int, horizon: int, **options: Any) -> None:
        super().__init__()
        self.arguments = {"inputs": inputs, "targets": targets, "horizon": horizon, **options}
        self.targets = targets
        self.horizon = horizon
        self.sequence = SequenceModel(
            inputs, targets * horizon, input="numbers", pooling="last", **options
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Windows `[T, N, F]` to forecasts `[K, N, targets]`, in standard units."""
        changes, _ = self.sequence(windows)
        last = windows[-1, :, : self.targets]
        return changes.unflatten(-1, (self.horizon, self.targets)).transpose(0, 1) + last


class Forecasting(Task):
    """Mean squared error of all K steps, in standard units; backtested on the end of each series.

    A window of the validation may reach back into the training part; what it forecasts never does.
    Every step that has a whole horizon after it is an origin.
    """

    name = "forecast"
    unit = "windows"
    metric_names = ("loss", "mae", "rmse")

    def __init__(
        self, config: Any, series: Sequence[Series], codec: ForecastingCodec, whole: bool = False
    ) -> None:
        if config.season is not None and config.season > codec.window:
            raise DataError(
                f"--season: wanted at most the window's {codec.window} steps, got {config.season}"
            )
        self.config = config
        self.codec = codec
        self.series = series
        self.season = config.season or _own_season(config)
        self.values = [codec.encode(one.values) for one in series]
        ends = [_first_held_out(len(v), config, codec.horizon) for v in self.values]
        begins = [0] * len(ends) if whole else ends
        ends = [len(v) for v in self.values] if whole else ends
        T, K = codec.window, codec.horizon
        self.kept = [(k, t) for k, end in enumerate(ends) for t in range(T, end - K + 1)]
        self.out = [
            (k, t)
            for k, begin in enumerate(begins)
            for t in range(max(T, begin), len(self.values[k]) - K + 1)
        ]
        _check_windows(series, self.kept, self.out, codec)
        self.digest = hashlib.sha256(
            b"".join(one.values.double().numpy().tobytes() for one in series)
        ).hexdigest()
        self.buckets = Buckets([T] * len(self.kept), config.batch_size, config.seed)

    @override
    @classmethod
    def read(
        cls, config: Any, codec: ForecastingCodec | None = None, whole: bool = False
    ) -> "Forecasting":
        columns, targets, series = read_series(config, codec)
        if codec is None:
            ends = [_first_held_out(len(s.values), config, config.horizon) for s in series]
            parts = [s.values[: max(1, end)] for s, end in zip(series, ends, strict=True)]
            mean, deviation = mean_and_deviation(torch.cat(parts))
            codec = ForecastingCodec(
                columns, targets, mean, deviation, config.window, config.horizon
            )
        return cls(config, series, codec, whole)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: Any,
        codec: ForecastingCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput]:
        if texts:
            raise DataError(
                "--text: wanted a table (CSV, TSV or Parquet) with the past, got a text"
            )
        inputs = []
        # As with "step": a column of the table keeps its name.
        names = {config.series, *codec.columns[: codec.targets]}
        file = "forecast_file" if "file" in names else "file"
        for source in sources:
            for series in series_of(read_table(source), codec.columns, config):
                keys = {file: str(source)} if len(sources) > 1 else {}
                if config.series is not None:
                    keys[config.series] = series.name
                check_length(series, str(source), codec.window)
                inputs.append(PredictionInput(series.name, series.values, keys))
        return inputs

    @override
    @classmethod
    def codec_from_state(cls, state: dict[str, Any]) -> ForecastingCodec:
        return ForecastingCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: dict[str, Any]) -> Forecaster:
        return Forecaster(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: ForecastingCodec) -> dict[str, Any]:
        return {"inputs": len(codec.columns), "targets": codec.targets, "horizon": codec.horizon}

    @override
    def model_arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "initial")
        return self.codec_arguments(self.codec) | {
            name: getattr(self.config, name) for name in names
        }

    def _spans(self, origins: Sequence[tuple[int, int]], total: int) -> ForecastingBatch:
        T, K, targets = self.codec.window, self.codec.horizon, self.codec.targets
        windows = [self.values[k][t - T : t] for k, t in origins]
        wanted = [self.values[k][t : t + K, :targets] for k, t in origins]
        if not origins:
            empty = self.values[0][:0]
            return ForecastingBatch(
                empty.new_zeros(T, 0, empty.shape[1]), empty.new_zeros(K, 0, targets), total
            )
        return ForecastingBatch(torch.stack(windows, 1), torch.stack(wanted, 1), total)

    @override
    def batch(self, step: int, shard: Shard) -> ForecastingBatch:
        items = [self.kept[k] for k in self.buckets.items(step)]
        return self._spans(items[shard.slice], len(items))

    @override
    def validation(self, shard: Shard) -> Iterator[ForecastingBatch]:
        for begin in range(0, len(self.out), 256):
            items = self.out[begin : begin + 256]
            batch = self._spans(items[shard.slice], len(items))
            if batch.count:
                yield batch

    @override
    def loss(self, model: Any, batch: ForecastingBatch, carried: Any) -> tuple[Tensor, None]:
        errors = model(batch.windows).float() - batch.wanted
        return errors.square().mean((0, 2)).sum(), None

    @override
    def tally(
        self, model: Any, batch: ForecastingBatch, carried: Any
    ) -> tuple[dict[str, Tensor], None]:
        return self._tally(model(batch.windows), batch.wanted), None

    def _tally(self, forecasts: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        errors = forecasts.double().cpu() - wanted.double().cpu()
        return {
            "absolute": errors.abs().sum((0, 1)),
            "squared": errors.square().sum((0, 1)),
            "values": torch.tensor(errors.numel()),
        }

    @override
    def example(self, text: str | None) -> tuple[tuple[Any, ...], None]:
        if text is not None:
            raise DataError("text: wanted none, a forecaster reads numbers")
        return (self._spans(self.out[-1:], 1).windows,), None

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        values = sums["values"].item()
        units = self.codec.deviation[: self.codec.targets].to(sums["squared"])
        # Squares of the data's own units may leave the range of numbers, and their roots return.
        largest = units.max()
        squared = ((units / largest).square() * sums["squared"]).sum() / values
        return {
            "loss": sums["squared"].sum().item() / values,
            "mae": (units * sums["absolute"]).sum().item() / values,
            "rmse": (largest * squared.sqrt()).item(),
        }

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        seasons = {"persistence": 1}
        if self.season is not None:
            seasons["season before"] = self.season
        found = {}
        for name, season in seasons.items():
            batch = self._spans(self.out, len(self.out))
            past = batch.windows[..., : self.codec.targets]
            naive = seasonal_naive(past, self.codec.horizon, season)
            found[name] = self.scores(self._tally(naive, batch.wanted))
        return found


def forecast(model: Forecaster, codec: ForecastingCodec, past: Tensor) -> Tensor:
    """The K values `[K, targets]` that follow on values `[T', F]`, of which the last T are seen.

    Raises:
        DataError: there are fewer than T, or other columns than the model was trained on.
    """
    if len(past) < codec.window or past.shape[1] != len(codec.columns):
        raise DataError(
            f"data: wanted at least {codec.window} rows of {len(codec.columns)} columns, got "
            f"{len(past)} of {past.shape[1]}"
        )
    device = next(model.parameters()).device
    window = codec.encode(past[-codec.window :])[:, None].to(device)
    with torch.no_grad():
        return codec.decode(model(window)[:, 0].cpu())


def _own_season(config: Any) -> int | None:
    """The season of the task's own data, where a window has room for it."""
    if config.paths:
        return None
    from unrolled.tasks.datasets import series

    season = series(config.data).season
    return season if 1 < season <= config.window else None


def _first_held_out(count: int, config: Any, horizon: int) -> int:
    """Steps of a series that are trained on: a whole horizon comes after them."""
    return count - max(1, round(count * config.validation_fraction), horizon)


def _check_windows(
    series: Sequence[Series], kept: Sequence[Any], out: Sequence[Any], codec: ForecastingCodec
) -> None:
    if kept and out:
        return
    longest = max(len(one.values) for one in series)
    raise DataError(
        f"data: wanted a series with a window of {codec.window} and a horizon of {codec.horizon} "
        f"in its training part, and a horizon after it; the longest has {longest} values: give "
        "more data, or a smaller --window or --horizon"
    )
