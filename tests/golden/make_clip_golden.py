#!/usr/bin/env python3
"""Writes clips.safetensors: convolutions, resizing and a convolutional GRU of clips, forward and backward, by PyTorch in float64.

    pip install torch numpy safetensors
    python3 make_clip_golden.py

All arrays are channels last, as kiln's: clips [n, t, h, w, c], weights [oc, kt, kh, kw, c]. Numbers are hashed (make_golden.py, section 2:
2U - 1) under 'clip.NAME', weights times 0.2. A result y has the cotangent hashed 'clip.d' of its shape:
    conv3d.PAD.y .dx .dw        x [2, 5, 6, 7, 4], w [6, 3, 3, 3, 4], PAD zero or replicate
    resize.y .dx                x as above, trilinear to [2, 9, 12, 10, 4], align_corners False
    gru.ACT.y .dx .dwx .dwh .dwc .db        x [2, 5, 6, 7, 4], states of 6 channels, 3x3 kernels, ACT relu or tanh, from h = 0:
        r, u = sigmoid(wx x + wh h + b), k = act(wx x + wc (r h) + b), h' = u h + (1 - u) k; wx [18, 3, 3, 4], wh [12, 3, 3, 6],
        wc [6, 3, 3, 6], b [18]
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from make_golden import signed, stored

N, T, H, W, C, K = 2, 5, 6, 7, 4, 6


def hashed(name, shape, scale=1.0):
    return (torch.from_numpy(signed("clip." + name, shape)).double() * scale).requires_grad_()


def first(x):
    """Channels last to channels first."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def results(prefix, y, leaves):
    y.backward(hashed("d", tuple(y.shape)).detach())
    return {prefix + ".y": y} | {f"{prefix}.{name}": leaf.grad for name, leaf in leaves.items()}


def conv3d(pad):
    x, w = hashed("x", (N, T, H, W, C)), hashed("w", (K, 3, 3, 3, C), 0.2)
    padded = F.pad(first(x), (0, 0, 0, 0, 1, 1), mode="replicate") if pad == "replicate" else F.pad(first(x), (0, 0, 0, 0, 1, 1))
    return results(f"conv3d.{pad}", last(F.conv3d(padded, first(w), padding=(0, 1, 1))), {"dx": x, "dw": w})


def resize():
    x = hashed("x", (N, T, H, W, C))
    y = last(F.interpolate(first(x), size=(9, 12, 10), mode="trilinear", align_corners=False))
    return results("resize", y, {"dx": x})


def gru(name):
    act = torch.relu if name == "relu" else torch.tanh
    x, wx, b = hashed("x", (N, T, H, W, C)), hashed("wx", (3 * K, 3, 3, C), 0.2), hashed("b", (3 * K,))
    wh, wc = hashed("wh", (2 * K, 3, 3, K), 0.2), hashed("wc", (K, 3, 3, K), 0.2)
    conv = lambda v, w: F.conv2d(v, first(w), padding=1)
    h, states = torch.zeros(N, K, H, W, dtype=torch.float64), []
    for t in range(T):
        xr, xu, xk = (conv(first(x[:, t]), wx) + b[None, :, None, None]).chunk(3, 1)
        hr, hu = conv(h, wh).chunk(2, 1)
        r, u = torch.sigmoid(xr + hr), torch.sigmoid(xu + hu)
        h = u * h + (1 - u) * act(xk + conv(r * h, wc))
        states.append(last(h))
    return results(f"gru.{name}", torch.stack(states, 1), {"dx": x, "dwx": wx, "dwh": wh, "dwc": wc, "db": b})


if __name__ == "__main__":
    tensors = conv3d("zero") | conv3d("replicate") | resize() | gru("relu") | gru("tanh")
    save_file(stored(tensors), pathlib.Path(__file__).parent / "clips.safetensors")
