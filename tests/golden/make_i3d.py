#!/usr/bin/env python3
"""What PyTorch makes of I3D with hashed weights: i3d.safetensors beside this file, for tests/fvd_test.cpp.

    pip install torch numpy safetensors
    python3 tests/golden/make_i3d.py

The graph is I3D for RGB (Carreira & Zisserman 2017) under the names of github.com/piergiaj/pytorch-i3d, with TensorFlow's 'SAME' padding.
Weights are not stored: a tensor T of shape S is made from signed(i3d.T) by the rules of make_features.py (kernels times
sqrt(6 / inputs of one output)); names and shapes are in the file's metadata. Everything is computed in float64. Stored: the 400 logits of
two clips, floor(256 uniform(clip.K)), one of 10 frames of 40 x 56 pixels and one of 17 frames of 30 x 30: lengths that meet every padding.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from make_golden import signed, uniform

HERE = pathlib.Path(__file__).parent
MIXED = {"3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64), "4b": (480, 192, 96, 208, 16, 48, 64),
         "4c": (512, 160, 112, 224, 24, 64, 64), "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
         "4f": (528, 256, 160, 320, 32, 128, 128), "5b": (832, 256, 160, 320, 32, 128, 128), "5c": (832, 384, 192, 384, 48, 128, 128)}


class Weights:
    def __init__(self):
        self.shapes = {}

    def __call__(self, name, *shape):
        self.shapes[name] = list(shape)
        x = signed(f"i3d.{name}", shape)
        leaf = name.split(".")[-1]
        if len(shape) == 5:
            x = x * np.float32(np.sqrt(6.0 / np.prod(shape[1:])))
        elif leaf == "weight":
            x = np.float32(1) + np.float32(0.1) * x
        elif leaf == "running_var":
            x = np.float32(1) + np.float32(0.5) * x
        else:
            x = np.float32(0.1) * x
        return torch.tensor(x).double()


def same(x, kernel, stride):
    """Zeros around x [n, c, t, h, w], the odd one behind."""
    pads = []
    for n, k, s in zip(x.shape[2:], kernel, stride):
        out = -(-n // s)
        total = max(0, (out - 1) * s + k - n)
        pads = [total // 2, total - total // 2] + pads
    return F.pad(x, pads)


def unit(weights, x, name, out, k=1, stride=1):
    w = weights(f"{name}.conv3d.weight", out, x.shape[1], k, k, k)
    x = F.conv3d(same(x, (k,) * 3, (stride,) * 3), w, stride=stride)
    gamma, beta, mean, variance = (weights(f"{name}.bn.{n}", out) for n in ("weight", "bias", "running_mean", "running_var"))
    return F.relu(F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3))


def pool(x, kernel, stride):
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)


def i3d(weights, clip):
    """clip [t, h, w, 3] of bytes -> 400 logits."""
    x = torch.tensor(clip).double().permute(0, 3, 1, 2)
    x = F.interpolate(x, (224, 224), mode="bilinear", align_corners=False) * (2 / 255) - 1
    x = x.permute(1, 0, 2, 3)[None]
    x = pool(unit(weights, x, "Conv3d_1a_7x7", 64, 7, 2), (1, 3, 3), (1, 2, 2))
    x = unit(weights, unit(weights, x, "Conv3d_2b_1x1", 64), "Conv3d_2c_3x3", 192, 3)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for block, (_, b0, b1a, b1b, b2a, b2b, b3b) in MIXED.items():
        if block == "4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if block == "5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        p = f"Mixed_{block}."
        x = torch.cat([unit(weights, x, p + "b0", b0), unit(weights, unit(weights, x, p + "b1a", b1a), p + "b1b", b1b, 3),
                       unit(weights, unit(weights, x, p + "b2a", b2a), p + "b2b", b2b, 3),
                       unit(weights, pool(x, (3, 3, 3), (1, 1, 1)), p + "b3b", b3b)], 1)
    x = F.avg_pool3d(x, (2, 7, 7), 1)
    x = F.conv3d(x, weights("logits.conv3d.weight", 400, 1024, 1, 1, 1), weights("logits.conv3d.bias", 400))
    return x.mean((0, 2, 3, 4))


@torch.no_grad()
def main():
    weights = Weights()
    out = {}
    for k, shape in (("small", (10, 40, 56, 3)), ("long", (17, 30, 30, 3))):
        out[f"logits.{k}"] = i3d(weights, np.floor(uniform(f"clip.{k}", shape) * 256)).float().numpy()
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, HERE / "i3d.safetensors", {"shapes": json.dumps(weights.shapes, sort_keys=True)})
    print({k: (v.shape, float(np.abs(v).max())) for k, v in out.items()})


if __name__ == "__main__":
    main()
