"""Forecasting: the next values of one or several series, from a window of the past."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from typing_extensions import Unpack, override

from unrolled.config import ForecastConfig
from unrolled.models import CellLike, SequenceModel
from unrolled.nn.types import HiddenState
from unrolled.tasks._baselines import seasonal_naive
from unrolled.tasks._bucketing import Buckets
from unrolled.tasks._task import PredictionInput, Shard, Task
from unrolled.tasks.codecs._forecasting import ForecastingCodec, ForecastingState
from unrolled.tasks.codecs._standardization import mean_and_deviation
from unrolled.tasks.data._source import DataError, Source
from unrolled.tasks.data._tables import read_table
from unrolled.tasks.data._time_series import Series, check_length, read_series, series_of

_VALIDATION_BATCH = 256

Origin = tuple[int, int]
"""The start of a forecast: the number of a series, and a step of it."""


class ForecastingBatch(NamedTuple):
    """Windows `[T, N, F]` in standard units, and the values that follow, `[K, N, targets]`."""

    windows: Tensor
    targets: Tensor
    total: int

    @property
    def size(self) -> int:
        """Windows of this shard."""
        return self.windows.shape[1]


class ForecasterOptions(TypedDict, total=False):
    """Options of :class:`unrolled.models.SequenceModel` for a forecaster."""

    hidden_size: int
    cell: CellLike
    num_layers: int
    dropout: float
    initial: str


class Forecaster(nn.Module):
    """Recurrent layers over the window; a head on their final state predicts all K steps at once,
    each as the difference to the last value of the window.

    Args:
        inputs, targets: columns of the input, and how many of them, the first, are forecast.
        horizon: K.
        options: those of :class:`unrolled.models.SequenceModel`.
    """

    def __init__(
        self, inputs: int, targets: int, horizon: int, **options: Unpack[ForecasterOptions]
    ) -> None:
        super().__init__()
        self.arguments: dict[str, object] = {
            "inputs": inputs,
            "targets": targets,
            "horizon": horizon,
            **options,
        }
        self.targets = targets
        self.horizon = horizon
        self.sequence = SequenceModel(
            inputs, targets * horizon, input="numbers", pooling="last", **options
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Windows `[T, N, F]` to forecasts `[K, N, targets]`, in standard units."""
        changes: Tensor = self.sequence(windows)[0]
        changes = changes.view(len(changes), self.horizon, self.targets).transpose(0, 1)
        return changes + windows[-1, :, : self.targets]


class Forecasting(Task[ForecastConfig, Forecaster, ForecastingCodec, ForecastingBatch]):
    """Mean squared error of all K steps, in standard units; backtested on the end of each series.

    A validation window may reach back into the training part, its forecast does not. Every step
    with a whole horizon after it is an origin.
    """

    name = "forecast"
    unit = "windows"
    metric_names = ("loss", "mae", "rmse")

    def __init__(
        self,
        config: ForecastConfig,
        series: Sequence[Series],
        codec: ForecastingCodec,
        validate_on_all: bool = False,
    ) -> None:
        if config.season is not None and config.season > codec.window:
            raise DataError(
                f"--season must be at most {codec.window}, the steps of the window, got "
                f"{config.season}"
            )
        self.config = config
        self.codec = codec
        self.series = series
        self.season = config.season or _built_in_season(config)
        self._values = [codec.encode(one.values) for one in series]
        training_ends = [_training_size(len(v), config, codec.horizon) for v in self._values]
        sizes = [len(values) for values in self._values]
        self.training_origins = _origins(codec, sizes if validate_on_all else training_ends)
        starts = [0] * len(sizes) if validate_on_all else training_ends
        self.validation_origins = _origins(codec, sizes, starts)
        if not self.training_origins or not self.validation_origins:
            raise _too_short(series, codec)
        self.digest = hashlib.sha256(
            b"".join(one.values.double().numpy().tobytes() for one in series)
        ).hexdigest()
        lengths = [codec.window] * len(self.training_origins)
        self.buckets = Buckets(lengths, config.batch_size, config.seed)

    @override
    @classmethod
    def read(
        cls,
        config: ForecastConfig,
        codec: ForecastingCodec | None = None,
        validate_on_all: bool = False,
    ) -> "Forecasting":
        columns, targets, series = read_series(config, codec)
        if codec is None:
            ends = [_training_size(len(s.values), config, config.horizon) for s in series]
            parts = [s.values[: max(1, end)] for s, end in zip(series, ends, strict=True)]
            mean, deviation = mean_and_deviation(torch.cat(parts))
            codec = ForecastingCodec(
                columns, targets, mean, deviation, config.window, config.horizon
            )
        return cls(config, series, codec, validate_on_all)

    @override
    @classmethod
    def read_inputs(
        cls,
        config: ForecastConfig,
        codec: ForecastingCodec,
        sources: Sequence[Source],
        texts: Sequence[str] = (),
    ) -> list[PredictionInput[Tensor]]:
        if texts:
            raise DataError("--text must be omitted: a forecast needs a table (CSV, TSV, Parquet)")
        inputs = []
        # As for "step": a column of the table keeps its name.
        names = {config.series, *codec.columns[: codec.targets]}
        file_column = "forecast_file" if "file" in names else "file"
        for source in sources:
            for series in series_of(read_table(source), codec.columns, config):
                key_columns = {file_column: str(source)} if len(sources) > 1 else {}
                if config.series is not None:
                    key_columns[config.series] = series.name
                check_length(series, str(source), codec.window)
                inputs.append(PredictionInput(series.name, series.values, key_columns))
        return inputs

    @override
    @classmethod
    def codec_from_state(cls, state: ForecastingState) -> ForecastingCodec:
        return ForecastingCodec.from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> Forecaster:
        return Forecaster(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: ForecastingCodec) -> dict[str, object]:
        return {"inputs": len(codec.columns), "targets": codec.targets, "horizon": codec.horizon}

    @override
    def model_arguments(self) -> dict[str, object]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "initial")
        options = {name: getattr(self.config, name) for name in names}
        return self.codec_arguments(self.codec) | options

    def _batch(self, origins: Sequence[Origin], total: int) -> ForecastingBatch:
        T, K, targets = self.codec.window, self.codec.horizon, self.codec.targets
        if not origins:
            empty = self._values[0][:0]
            return ForecastingBatch(
                empty.new_zeros(T, 0, empty.shape[1]), empty.new_zeros(K, 0, targets), total
            )
        windows = [self._values[k][t - T : t] for k, t in origins]
        future = [self._values[k][t : t + K, :targets] for k, t in origins]
        return ForecastingBatch(torch.stack(windows, 1), torch.stack(future, 1), total)

    @override
    def batch(self, step: int, shard: Shard) -> ForecastingBatch:
        origins = [self.training_origins[k] for k in self.buckets.items(step)]
        return self._batch(origins[shard.slice], len(origins))

    @override
    def validation(self, shard: Shard) -> Iterator[ForecastingBatch]:
        for start in range(0, len(self.validation_origins), _VALIDATION_BATCH):
            origins = self.validation_origins[start : start + _VALIDATION_BATCH]
            batch = self._batch(origins[shard.slice], len(origins))
            if batch.size:
                yield batch

    @override
    def loss(
        self, model: Forecaster, batch: ForecastingBatch, carried: HiddenState | None
    ) -> tuple[Tensor, None]:
        errors: Tensor = model(batch.windows).float() - batch.targets
        return errors.square().mean((0, 2)).sum(), None

    @override
    def tally(
        self, model: Forecaster, batch: ForecastingBatch, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], None]:
        return _error_sums(model(batch.windows), batch.targets), None

    @override
    def example(self, text: str | None) -> tuple[tuple[Tensor], None]:
        if text is not None:
            raise DataError("text: must be omitted, a forecaster reads numbers")
        return (self._batch(self.validation_origins[-1:], 1).windows,), None

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        values = sums["values"].item()
        units = self.codec.deviation[: self.codec.targets].to(sums["squared"])
        # Squares in the units of the data may overflow where their roots do not.
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
        scores = {}
        for name, season in seasons.items():
            batch = self._batch(self.validation_origins, len(self.validation_origins))
            past = batch.windows[..., : self.codec.targets]
            naive = seasonal_naive(past, self.codec.horizon, season)
            scores[name] = self.scores(_error_sums(naive, batch.targets))
        return scores


def forecast(model: Forecaster, codec: ForecastingCodec, past: Tensor) -> Tensor:
    """The K values `[K, targets]` that follow values `[T', F]`, of which the last T are used.

    Raises:
        DataError: there are fewer than T, or other columns than the model was trained on.
    """
    if len(past) < codec.window or past.shape[1] != len(codec.columns):
        raise DataError(
            f"data: must have at least {codec.window} rows of {len(codec.columns)} columns, got "
            f"{len(past)} of {past.shape[1]}"
        )
    device = next(model.parameters()).device
    window = codec.encode(past[-codec.window :])[:, None].to(device)
    with torch.no_grad():
        return codec.decode(model(window)[:, 0].cpu())


def _error_sums(forecasts: Tensor, targets: Tensor) -> dict[str, Tensor]:
    errors = forecasts.double().cpu() - targets.double().cpu()
    return {
        "absolute": errors.abs().sum((0, 1)),
        "squared": errors.square().sum((0, 1)),
        "values": torch.tensor(errors.numel()),
    }


def _built_in_season(config: ForecastConfig) -> int | None:
    """The season of the built-in data, if it fits into a window."""
    if config.paths:
        return None
    from unrolled.tasks import datasets

    season = datasets.series(config.data).season
    return season if 1 < season <= config.window else None


def _training_size(count: int, config: ForecastConfig, horizon: int) -> int:
    """Steps of the training part of a series: at least a whole horizon comes after them."""
    return count - max(1, round(count * config.validation_fraction), horizon)


def _origins(
    codec: ForecastingCodec, ends: Sequence[int], starts: Sequence[int] = ()
) -> list[Origin]:
    """The origins whose forecasts lie between a start and an end of each series."""
    T, K = codec.window, codec.horizon
    starts = starts or [0] * len(ends)
    return [
        (k, t)
        for k, (start, end) in enumerate(zip(starts, ends, strict=True))
        for t in range(max(T, start), end - K + 1)
    ]


def _too_short(series: Sequence[Series], codec: ForecastingCodec) -> DataError:
    longest = max(len(one.values) for one in series)
    return DataError(
        f"data: must have a series with a window of {codec.window} and a horizon of "
        f"{codec.horizon} in its training part, and a horizon after it, got at most {longest} "
        "values; use more data, or a smaller --window or --horizon"
    )
