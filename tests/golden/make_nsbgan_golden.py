#!/usr/bin/env python3
"""Writes the golden files that kiln's NSB-GAN decoders are compared with: nsbgan_*.safetensors beside this file.

    python3 make_nsbgan_golden.py

Names, hash and what is stored: make_golden.py, sections 1, 2 and 4. All arithmetic is float64 on inputs and weights that are exactly
float32 numbers. Initial values, s = 2U - 1 of the tensor's name ("G." or "D." in front):
    running_mean, running_var   0, 1
    bn*.weight                  1 + 0.25 s
    bias                        0.125 s
    any other weight            s times the largest power of two below sqrt(6 / fan in)

tails, residual   a U-Net in training mode on x, then in evaluation mode: y, grad.G.* of sum(y * cot), after.G.* (running statistics), eval
published, haar   the SRResNet as a decoder of a band 5 * hashed + 2: y, grad.G.* of sum(y * cot)
gan               two steps of the adversarial stage on real#i on [0, 1] and their low bands: losses, final.G.*, final.D.*; Adam, lr 1e-3 for
                  G, 2e-3 for D, (0.9, 0.99), 1e-8
vgg               VGG19's conv5_4 before its rectifier of a picture on [0, 1]: y, and grad.x of sum(y * cot). Weights "vgg19.features.N.weight" are
                  s times float32(sqrt(6 / fan in)), biases 0.1 s
"""

import math
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

import nsbgan_reference as nsbgan
from make_biggan_golden import gradients, state, to_kiln, to_torch
from make_golden import F32, nchw, nhwc, signed, stored, uniform

DTYPE = torch.float64


def initial(name, shape):
    owner, leaf = name.split(".")[-2:]
    s = signed(name, shape)
    if leaf == "running_mean":
        return np.zeros(shape, F32)
    if leaf == "running_var":
        return np.ones(shape, F32)
    if leaf == "bias":
        return F32(0.125) * s
    if owner.startswith("bn"):
        return F32(1) + F32(0.25) * s
    fan_in = int(np.prod(shape[1:]))
    return F32(2.0 ** math.floor(math.log2(math.sqrt(6 / fan_in)))) * s


@torch.no_grad()
def initialised(network, prefix):
    network.to(DTYPE)
    for name, t in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            t.copy_(to_torch(initial(prefix + name, tuple(to_kiln(t).shape)), t))
    return network


def statistics(name):
    return name.endswith(("running_mean", "running_var"))


def unet_case(network, x):
    g = initialised(network, "G.")
    y = g(x)
    (y * nchw(signed("cot", nhwc(y).shape), DTYPE)).sum().backward()
    out = {"y": nhwc(y)} | gradients(g, "grad.G.") | state(g, "after.G.", statistics)
    g.eval()
    with torch.no_grad():
        return out | {"eval": nhwc(g(x))}


def decoder_case(wavelet, published):
    g = initialised(nsbgan.Decoder(8, 2, 2, wavelet, 3, 10, published), "G.")
    band = nchw(F32(5) * signed("band", (2, 8, 8, 3)) + F32(2), DTYPE)
    y = g(band)
    (y * nchw(signed("cot", (2, 32, 32, 3)), DTYPE)).sum().backward()
    return {"y": nhwc(y)} | gradients(g, "grad.G.")


def gan_case():
    g, d = initialised(nsbgan.Decoder(8, 2, 2, "haar", 0, 4, False), "G."), initialised(nsbgan.Discriminator(32, 4), "D.")
    opt_g = torch.optim.Adam(g.parameters(), 1e-3, (0.9, 0.99))
    opt_d = torch.optim.Adam(d.parameters(), 2e-3, (0.9, 0.99))
    out = {}
    for i in range(2):
        real = nchw(uniform(f"real#{i}", (4, 32, 32, 3)), DTYPE)
        l1, adversarial, loss_d = nsbgan.gan_step(g, d, opt_g, opt_d, nsbgan.low_band(real, "haar", 2), real)
        out |= {f"loss.l1#{i}": l1, f"loss.gan#{i}": adversarial, f"loss.d#{i}": loss_d}
    return out | state(g, "final.G.") | state(d, "final.D.")


def vgg_case():
    x = nchw(uniform("picture", (1, 32, 48, 3)), DTYPE).requires_grad_()
    mean, deviation = (torch.tensor(v, dtype=DTYPE).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    y, channels, at = (x - mean) / deviation, 3, 0
    for block, (width, convolutions) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))):
        if block:
            y, at = torch.nn.functional.max_pool2d(y, 2), at + 1
        for k in range(convolutions):
            name, shape = f"vgg19.features.{at}.", (width, channels, 3, 3)
            w = torch.tensor(F32(math.sqrt(6 / (9 * channels))) * signed(name + "weight", shape)).to(DTYPE)
            y = torch.nn.functional.conv2d(y, w, torch.tensor(F32(0.1) * signed(name + "bias", (width,))).to(DTYPE), padding=1)
            channels, at = width, at + 2
            if block < 4 or k < 3:
                y = torch.relu(y)
    (y * nchw(signed("cot", nhwc(y).shape), DTYPE)).sum().backward()
    return {"y": nhwc(y), "grad.x": nhwc(x.grad)}


def main():
    folder = pathlib.Path(__file__).resolve().parent
    cases = {
        "tails": unet_case(nsbgan.TailUNet(12, 12, 8), nchw(signed("x", (4, 16, 16, 12)), DTYPE)),
        "residual": unet_case(nsbgan.ResidualUNet(4), nchw(signed("x", (4, 32, 32, 3)), DTYPE)),
        "published": decoder_case("bior2.2", True),
        "haar": decoder_case("haar", False),
        "gan": gan_case(),
        "vgg": vgg_case(),
    }
    for name, tensors in cases.items():
        path = folder / f"nsbgan_{name}.safetensors"
        save_file(stored({k: t.contiguous() for k, t in tensors.items()}), path)
        path.chmod(0o644)
        print(f"{path.name:36} {len(tensors):5} tensors {path.stat().st_size / 1e6:6.2f} MB")


if __name__ == "__main__":
    main()
