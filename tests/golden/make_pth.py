#!/usr/bin/env python3
"""Writes small .pth files for the tests of engine/pth.h, with PyTorch itself: pth/*.pth beside this file.

    python3 tests/golden/make_pth.py
    python3 tests/golden/make_pth.py --check FILE...    torch.load(weights_only=True) and what is in it

Each holds the same values; the tests know them: see values().
"""

import collections
import os
import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).parent / "pth"


def ramp(*shape, dtype=torch.float32):
    n = 1
    for s in shape:
        n *= s
    return torch.arange(n).reshape(shape).to(dtype)


def values():
    base = ramp(4, 6) / 4
    state = collections.OrderedDict()
    state["module.a.weight"] = ramp(2, 3, 2, 2) - 5
    state["transposed"] = base.t()              # strides 1, 6 of the storage of "window"
    state["window"] = base[1:3, 2:5]            # an offset
    state["parameter"] = torch.nn.Parameter(torch.tensor([1.5, -2.5]))
    state["scalar"] = torch.tensor(7)
    state["empty"] = torch.zeros(0, 3)
    for name in ("float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"):
        state[name] = ramp(3, dtype=getattr(torch, name))
    return {
        "g": state, "iteration": 12345, "large": -(2**40), "rate": 2e-4, "betas": (0.5, 0.999), "name": "käse", "flag": True,
        "nothing": None, "list": [1, [2, {"x": 3}]], "state": {0: {"step": torch.tensor(3.0)}, 1: {"step": 4}},
    }


class Evil:
    def __reduce__(self):
        return os.system, ("echo executed",)


def check(paths):
    def show(name, v):
        if torch.is_tensor(v):
            print(f"{name} {v.dtype} {tuple(v.shape)} {v.double().sum().item():.9g}")
        elif isinstance(v, dict):
            for k in v:
                show(f"{name}.{k}", v[k])
        elif isinstance(v, (list, tuple)):
            for i, x in enumerate(v):
                show(f"{name}.{i}", x)
        else:
            print(name, repr(v))
    for path in paths:
        show(path, torch.load(path, weights_only=True))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        check(sys.argv[2:])
    else:
        HERE.mkdir(exist_ok=True)
        torch.save(values(), HERE / "zip.pth")
        torch.save(values(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)
        torch.save(torch.nn.Linear(2, 2), HERE / "module.pth")
        for form in (True, False):
            torch.save({"x": Evil()}, HERE / ("evil_zip.pth" if form else "evil_legacy.pth"), _use_new_zipfile_serialization=form)
