"""Sound as the frames that a model reads: log-mel energies, of a whole signal or as it arrives.

Numpy alone, so that it goes where the runtime goes. What is told from the frames is left to others.
"""

from typing import Any

import numpy as np

__all__ = ["Framer", "LogMel"]

_AT_ONCE = 1024


class LogMel:
    """Log-mel energies of overlapping windows of a signal x, one row a hop.

        X_t[k] = Σ_n w[n] x[hop·t + n] exp(-2πi k n / window)      w[n] = sin²(π n / window)
        y_t[b] = log(floor + Σ_k F[k, b] |X_t[k]|²)

    F[:, b] is a triangle over frequency: 0 at the centre of the band below, 1 at its own, 0 at that
    of the band above. The centres lie at equal distances on the mel scale,
    mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987), with ``low`` and ``high`` for the feet of
    the outermost two. These are the filters of Davis & Mermelstein (1980), without their cosine
    transform. Frame t reads the samples from hop·t to hop·t + window - 1: nothing is centred, so
    no frame waits for more than its last sample.

    The arithmetic is float64, each row's apart from the others', so that its bits do not depend on
    how many there are.

    Args:
        rate: samples a second.
        window: samples of a frame.
        hop: samples from one frame to the next, at most ``window``.
        bands: numbers of a frame.
        low, high: the outermost frequencies in Hz, at most half the rate.
        floor: energy that is added, so that silence has a logarithm.

    Raises:
        ValueError: an argument is out of its range, or a band so narrow that no frequency of the
            window falls into it.
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
                raise ValueError(f"{name}: wanted a whole number of at least 1, got {value!r}")
        if hop > window:
            raise ValueError(f"hop: wanted at most the window of {window} samples, got {hop}")
        if not 0 <= low < high <= rate / 2:
            raise ValueError(
                f"low, high: wanted 0 to {rate / 2:g} Hz, half the rate, low below high; "
                f"got {low:g}, {high:g}"
            )
        if not 0 < floor < np.inf:
            raise ValueError(f"floor: wanted a number above 0, got {floor!r}")
        self.rate, self.window, self.hop, self.bands = rate, window, hop, bands
        self.floor = floor
        self._within = np.arange(window)
        self._shape = np.sin(np.pi * self._within / window) ** 2
        self._filters = _triangles(np.fft.rfftfreq(window, 1 / rate), bands, low, high)

    def __call__(self, samples: Any) -> np.ndarray:
        """Samples [n] in floating point, full scale ±1, to frames [T, bands] in float32. T is
        1 + (n - window) // hop, or 0 of fewer samples than a window.

        Raises:
            TypeError: they are not in floating point.
            ValueError: they have another number of dimensions.
        """
        return self.frames_of(_checked(samples))

    def frames_of(self, samples: np.ndarray) -> np.ndarray:
        """The same of samples that are float64 [n] already."""
        T = max(0, 1 + (len(samples) - self.window) // self.hop)
        made = np.empty((T, self.bands), np.float32)
        for t in range(0, T, _AT_ONCE):
            starts = self.hop * np.arange(t, min(t + _AT_ONCE, T))
            made[t : t + _AT_ONCE] = self._energies(samples[starts[:, None] + self._within])
        return made

    def _energies(self, rows: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(rows * self._shape)
        power = spectrum.real**2 + spectrum.imag**2
        # One product a row: that of a matrix would add in an order that depends on its rows.
        return np.log((power[:, None] @ self._filters)[:, 0] + self.floor)

    def framer(self) -> "Framer":
        """For a signal that arrives piece by piece."""
        return Framer(self)


class Framer:
    """Frames of a signal that arrives in pieces of any size. Together they are, to the bit, those
    of the whole."""

    def __init__(self, kind: LogMel) -> None:
        self._kind = kind
        self._rest: np.ndarray = np.empty(0)

    def push(self, samples: Any) -> np.ndarray:
        """The frames [T, bands] that these samples complete, often none.

        Raises:
            TypeError, ValueError: as of a whole signal.
        """
        self._rest = np.concatenate([self._rest, _checked(samples)])
        made = self._kind.frames_of(self._rest)
        self._rest = self._rest[len(made) * self._kind.hop :]
        return made

    def reset(self) -> None:
        """Begin anew, as if no samples had come."""
        self._rest = np.empty(0)


def _checked(samples: Any) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.dtype.kind != "f":
        raise TypeError(
            f"samples: wanted floating point, full scale ±1, got {samples.dtype}; "
            "16-bit samples are to be divided by 32768"
        )
    if samples.ndim != 1:
        raise ValueError(f"samples: wanted one channel [n], got shape {list(samples.shape)}")
    return samples.astype(np.float64)


def _triangles(frequencies: np.ndarray, bands: int, low: float, high: float) -> np.ndarray:
    """[frequencies, bands]."""
    ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
    mels = np.linspace(ends[0], ends[1], bands + 2)
    feet = 700 * (10 ** (mels / 2595) - 1)
    below, centre, above = feet[:-2], feet[1:-1], feet[2:]
    f = frequencies[:, None]
    found = np.minimum((f - below) / (centre - below), (above - f) / (above - centre)).clip(0)
    empty = np.flatnonzero(found.sum(0) == 0)
    if empty.size:
        b = int(empty[0])
        raise ValueError(
            f"bands: wanted bands that hold a frequency of the window, got {bands}, of which that "
            f"from {below[b]:.0f} to {above[b]:.0f} Hz holds none; take fewer, or a longer window"
        )
    return found
