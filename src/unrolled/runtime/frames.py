"""Computes log-mel energies as frames for a model, of a whole signal or of a live one.

Needs only NumPy, as the runtime does.
"""

import numpy as np
from numpy.typing import ArrayLike

from unrolled.runtime._blocks import Float32Array, Float64Array

__all__ = ["Framer", "LogMel"]

_FRAMES_PER_CHUNK = 1024


class LogMel:
    """Log-mel energies of overlapping windows of a signal x, one row a hop.

        X_t[k] = Σ_n w[n] x[hop·t + n] exp(-2πi k n / window)      w[n] = sin²(π n / window)
        y_t[b] = log(floor + Σ_k F[k, b] |X_t[k]|²)

    F[:, b] is a triangle over frequency: 0 at the centre of the band below, 1 at its own, 0 at that
    of the band above. The centres are equidistant on the mel scale,
    mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987); the first triangle begins at ``low`` and
    the last one ends at ``high``. These are the filters of Davis & Mermelstein (1980), without
    their cosine transform. Frame t reads the samples from hop·t to hop·t + window - 1: nothing is
    centred, so no frame waits for more than its last sample.

    The arithmetic is float64 and separate for each row, so that the bits of a row do not depend on
    the number of rows.

    Args:
        rate: samples per second.
        window: samples per frame.
        hop: samples from one frame to the next, at most ``window``.
        bands: numbers per frame.
        low, high: the lowest and highest frequency in Hz, at most half the rate.
        floor: energy that is added, so that the logarithm of silence is finite.

    Raises:
        ValueError: an argument is out of range, or a band is so narrow that it contains no
            frequency of the window.
    """

    def __init__(
        self,
        rate: int = 22050,
        window: int = 512,
        hop: int = 220,
        bands: int = 32,
        low: float = 60.0,
        high: float = 8000.0,
        floor: float = 1e-5,
    ) -> None:
        for name, value in (("rate", rate), ("window", window), ("hop", hop), ("bands", bands)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"LogMel: {name} must be a whole number of at least 1, got {value!r}"
                )
        if hop > window:
            raise ValueError(f"LogMel: hop must be at most window = {window}, got {hop}")
        if not 0 <= low < high <= rate / 2:
            raise ValueError(
                f"LogMel: low and high must be from 0 to {rate / 2:g} Hz, half the rate, with low "
                f"below high, got {low:g} and {high:g}"
            )
        if not 0 < floor < np.inf:
            raise ValueError(f"LogMel: floor must be a finite number above 0, got {floor!r}")
        self.rate, self.window, self.hop, self.bands = rate, window, hop, bands
        self.floor = floor
        self._offsets = np.arange(window)
        self._shape = np.sin(np.pi * self._offsets / window) ** 2
        frequencies: Float64Array = np.fft.rfftfreq(window, 1 / rate).astype(np.float64)
        self._filters = _triangles(frequencies, bands, low, high)

    def __call__(self, samples: ArrayLike) -> Float32Array:
        """Convert floating-point samples [n], full scale ±1, to float32 frames [T, bands], where T
        is 1 + (n - window) // hop, or 0 if there are fewer samples than a window.

        Raises:
            TypeError: the samples are not floating-point numbers.
            ValueError: the samples have more than one dimension.
        """
        return self.frames_of(_checked(samples))

    def frames_of(self, samples: Float64Array) -> Float32Array:
        """The same for samples that are float64 [n]."""
        T = max(0, 1 + (len(samples) - self.window) // self.hop)
        frames = np.empty((T, self.bands), np.float32)
        for t in range(0, T, _FRAMES_PER_CHUNK):
            starts = self.hop * np.arange(t, min(t + _FRAMES_PER_CHUNK, T))
            frames[t : t + _FRAMES_PER_CHUNK] = self._energies(
                samples[starts[:, None] + self._offsets]
            )
        return frames

    def _energies(self, rows: Float64Array) -> Float64Array:
        spectrum = np.fft.rfft(rows * self._shape)
        power = spectrum.real**2 + spectrum.imag**2
        # One product a row: a product of matrices adds in an order that depends on their rows.
        energies: Float64Array = np.log((power[:, None] @ self._filters)[:, 0] + self.floor)
        return energies

    def framer(self) -> "Framer":
        """A framer for a live signal, which arrives in pieces."""
        return Framer(self)


class Framer:
    """Computes the frames of a signal that arrives in pieces of any size. They are bit-identical to
    the frames of the whole signal."""

    def __init__(self, log_mel: LogMel) -> None:
        self._log_mel = log_mel
        self._buffer: Float64Array = np.empty(0)

    def push(self, samples: ArrayLike) -> Float32Array:
        """The frames [T, bands] that these samples complete, often none.

        Raises:
            TypeError, ValueError: see ``LogMel``.
        """
        self._buffer = np.concatenate([self._buffer, _checked(samples)])
        frames = self._log_mel.frames_of(self._buffer)
        self._buffer = self._buffer[len(frames) * self._log_mel.hop :]
        return frames

    def reset(self) -> None:
        """Discard all samples, and start over."""
        self._buffer = np.empty(0)


def _checked(samples: ArrayLike) -> Float64Array:
    array = np.asarray(samples)
    if array.dtype.kind != "f":
        raise TypeError(
            f"LogMel: samples must be floating point with full scale ±1, got {array.dtype}; "
            "divide 16-bit samples by 32768"
        )
    if array.ndim != 1:
        raise ValueError(
            f"LogMel: samples must be one channel of shape [n], got {list(array.shape)}"
        )
    return array.astype(np.float64)


def _triangles(frequencies: Float64Array, bands: int, low: float, high: float) -> Float64Array:
    """[frequencies, bands]."""
    low_mel, high_mel = 2595 * np.log10(1 + np.array([low, high]) / 700)
    mels = np.linspace(low_mel, high_mel, bands + 2)
    feet = 700 * (10 ** (mels / 2595) - 1)
    below, centre, above = feet[:-2], feet[1:-1], feet[2:]
    f = frequencies[:, None]
    filters: Float64Array = np.minimum(
        (f - below) / (centre - below), (above - f) / (above - centre)
    ).clip(0)
    empty = np.flatnonzero(filters.sum(0) == 0)
    if empty.size:
        b = int(empty[0])
        raise ValueError(
            f"LogMel: bands must each contain a frequency of the window, got {bands} bands, of "
            f"which the one from {below[b]:.0f} to {above[b]:.0f} Hz contains none; use fewer "
            "bands or a longer window"
        )
    return filters
