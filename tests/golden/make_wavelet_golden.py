#!/usr/bin/env python3
"""Writes wavelet.safetensors, what PyWavelets makes of a picture.

    pip install PyWavelets numpy safetensors torch
    python3 make_wavelet_golden.py

x is hashed 'wavelet.x' of [2, 24, 40, 3] (make_golden.py, section 2: 2U - 1), transformed in float64. For each mode of haar,
bior2.2 and bior2.2-reflect (pywt's `zero` and `reflect`, whose bands are longer by what the filters overhang: cropped to n):
    MODE.packet       two levels, nested order, 16 tiles of 3 channels
    MODE.pyramid      three levels, as a picture of quadrants
    MODE.back         the inverse of the two-level packet; of bior2.2 the bands beyond the crop are zero
Quadrants: TL low, TR high along the height (pywt's cH), BL high along the width (cV), BR both (cD).
"""

import pathlib

import numpy as np
import pywt
import torch
from safetensors.numpy import save_file

from make_golden import signed, stored

MODES = {"haar": ("haar", "zero"), "bior2.2": ("bior2.2", "zero"), "bior2.2-reflect": ("bior2.2", "reflect")}


def split(x, mode):
    """[h, w] -> [TL, TR, BL, BR]."""
    wavelet, extension = MODES[mode]
    low, (high_h, high_w, both) = pywt.dwt2(x, wavelet, extension)
    h, w = x.shape[0] // 2, x.shape[1] // 2
    skip = (low.shape[0] - h) // 2
    return [b[skip:skip + h, skip:skip + w] for b in (low, high_h, high_w, both)]


def join(bands, mode):
    """The inverse. pywt's own synthesis reads no extension: for `reflect` the bands are mirrored here, each about its own samples
    2k or 2k + 1, so that the cropped ones are enough."""
    wavelet, extension = MODES[mode]
    if wavelet == "haar":
        return pywt.idwt2((bands[0], tuple(bands[1:])), wavelet)
    h, w = bands[0].shape

    def extended(b, axis, high):
        n = b.shape[axis]
        where = np.array([-1] + list(range(n)) + [n])
        if extension == "zero":
            pad = [(1, 1) if a == axis else (0, 0) for a in (0, 1)]
            return np.pad(b, pad)
        at = 2 * where + (1 if high else 0)
        at = np.where(at < 0, -at, at)
        at = np.where(at > 2 * n - 1, 2 * (2 * n - 1) - at, at)
        return np.take(b, at // 2, axis=axis)

    out = []
    for k, b in enumerate(bands):
        out.append(extended(extended(b, 0, k % 2 == 1), 1, k >= 2))
    return pywt.idwt2((out[0], tuple(out[1:])), wavelet)


def packet(x, mode, levels):
    return [x] if levels == 0 else [t for band in split(x, mode) for t in packet(band, mode, levels - 1)]


def unpacket(tiles, mode):
    if len(tiles) == 1:
        return tiles[0]
    quarter = len(tiles) // 4
    return join([unpacket(tiles[k * quarter:(k + 1) * quarter], mode) for k in range(4)], mode)


def pyramid(x, mode, levels):
    if levels == 0:
        return x
    low, high_h, high_w, both = split(x, mode)
    return np.block([[pyramid(low, mode, levels - 1), high_h], [high_w, both]])


def main():
    x = signed("wavelet.x", (2, 24, 40, 3)).astype(np.float64)

    def every_plane(f):
        """f: [h, w] -> a list of planes; over pictures and channels, channels last, tile by tile."""
        planes = [[np.stack(f(x[n, :, :, c])) for c in range(3)] for n in range(2)]  # [n][c][tile, h, w]
        y = np.array(planes)  # n, c, tile, h, w
        n, c, tiles, h, w = y.shape
        return np.ascontiguousarray(y.transpose(0, 3, 4, 2, 1).reshape(n, h, w, tiles * c))

    out = {}
    for mode in MODES:
        results = {
            "packet": every_plane(lambda p: packet(p, mode, 2)),
            "pyramid": every_plane(lambda p: [pyramid(p, mode, 3)]),
            "back": every_plane(lambda p: [unpacket(packet(p, mode, 2), mode)]),
        }
        print(mode, "there and back:", np.abs(results["back"] - x).max())
        for name, value in results.items():
            out.update(stored({f"{mode}.{name}": torch.tensor(value)}))
    save_file(out, pathlib.Path(__file__).parent / "wavelet.safetensors")


if __name__ == "__main__":
    main()
