#!/usr/bin/env python3
"""Writes the golden files that kiln's BigGAN is compared with: biggan_*.safetensors beside this file.

    python3 make_biggan_golden.py

Names, hash and what is stored: make_golden.py, sections 1, 2 and 4. Weights of linear layers and embeddings are [out, 1, 1, in] in
kiln. All arithmetic is float64 on inputs and weights that are exactly float32 numbers. v is neither an input nor stored.

Rules for the initial values, s = 2U - 1 of the tensor's name ("G." or "D." in front):
    u                           s, divided by its length in float64, rounded to float32
    running_mean, running_var   0, 1
    gamma                       0.5
    output.bn.weight            0.5 + 0.0625 s
    a vector named bias         0.125 s
    tables of gain and bias     0.25 s
    G.shared                    s
    any other weight            4 s

Cases, see CASES below: forward_* has
  G                 training-mode G(z, y): z = hashed normal "z", y[i] = (7 i + 3) % classes
  grad.G.*          of sum(G * cot)
  after.G.*         u and running statistics after it
  G.eval            then in evaluation mode
  D.logits          training-mode D(real, y) and loss.D = mean relu(1 - first half) + mean relu(1 + second half); grad.D.* of it
  loss.G            then -mean D(fake, y), and grad.fake
  after.D.*         u after both
train: three iterations of two D steps and one G step, each in two parts of the same z and labels (but other pictures), with
orthogonal regularisation of 1e-3 and an average of decay 0 before iteration 2, then 0.9. Inputs: z.dK#i, z.g#i, labels floor(classes *
U) of y.dK#i, y.g#i, pictures real.K.P#i with labels (real index + P + K) % classes. Adam: lr 1e-3 for G, 2e-3 for D, (0, 0.999), 1e-6.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

import biggan_reference as biggan
from make_golden import F32, nchw, nhwc, normal, signed, stored, uniform

DTYPE = torch.float64
# z, real and fake are hashed under these names, chosen so that no activation lies within rounding of relu's kink, where a gradient
# has two values (make_golden.py's README says what that does).
NAMES = {"64_whole_z": ("z.35", "real", "fake"), "64_deep": ("z.214", "real.22", "fake.29")}
CASES = {
    "32_tables": dict(size=32, ch=4, classes=3, z=9, shared=False, hierarchical=False, batch=6),
    "64": dict(size=64, ch=8, classes=4, z=17, shared_dim=6, attention=32, batch=4),
    "64_whole_z": dict(size=64, ch=4, classes=4, z=10, shared_dim=6, hierarchical=False, batch=4),
    "64_deep": dict(size=64, ch=8, classes=4, z=7, shared_dim=6, attention=32, deep=True, batch=2),
    "32_deep": dict(size=32, ch=4, classes=3, z=7, shared_dim=5, deep=True, batch=2),
    "32_no_class": dict(size=32, ch=4, classes=0, z=9, batch=6),
}


def initial(name, shape):
    owner, leaf = name.split(".")[-2:]
    s = signed(name, shape)
    if leaf == "u":
        x = s.astype(np.float64)
        return (x / np.sqrt(np.sum(x * x))).astype(F32)
    if leaf == "running_mean":
        return np.zeros(shape, F32)
    if leaf == "running_var":
        return np.ones(shape, F32)
    if leaf == "gamma":
        return np.full(shape, 0.5, F32)
    if name == "G.output.bn.weight":
        return F32(0.5) + F32(0.0625) * s
    if len(shape) == 1:
        return F32(0.125) * s
    if leaf in ("gain", "bias"):
        return F32(0.25) * s
    return s if name == "G.shared" else F32(4) * s


def to_kiln(t):
    t = t.detach()
    if t.dim() == 4:
        return t.permute(0, 2, 3, 1)
    return t


def to_torch(x, like):
    t = torch.tensor(x)
    return t.permute(0, 3, 1, 2) if like.dim() == 4 else t.reshape(like.shape)


def state(network, prefix, keep=lambda name: True):
    return {prefix + n: to_kiln(t).clone() for n, t in network.state_dict().items()
            if keep(n) and not n.endswith("num_batches_tracked")}


def gradients(network, prefix):
    return {prefix + n: to_kiln(p.grad).clone() for n, p in network.named_parameters()}


@torch.no_grad()
def initialise(network, prefix):
    for name, t in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            t.copy_(to_torch(initial(prefix + name, tuple(to_kiln(t).shape)), t))
    return network


def networks(size, ch, classes, z, attention=0, deep=False, batch=0, **g_options):
    g = biggan.Generator(size, ch, classes, z, attention=attention, deep=deep, **g_options).to(DTYPE)
    d = biggan.Discriminator(size, ch, classes, attention=attention, deep=deep).to(DTYPE)
    return initialise(g, "G."), initialise(d, "D.")


def is_buffer(name):
    return name.endswith((".u", ".running_mean", ".running_var"))


def forward_case(c, z_name="z", real_name="real", fake_name="fake"):
    g, d = networks(**c)
    batch, size, out = c["batch"], c["size"], {}
    shape = (batch, size, size, 3)
    y = torch.tensor([(7 * i + 3) % max(c["classes"], 1) for i in range(batch)])
    z = torch.tensor(normal(z_name, (batch, g.z))).to(DTYPE)
    picture = g(z, y)
    (picture * nchw(signed("cot", shape), DTYPE)).sum().backward()
    out |= {"G": nhwc(picture)} | gradients(g, "grad.G.") | state(g, "after.G.", is_buffer)
    g.eval()
    with torch.no_grad():
        out["G.eval"] = nhwc(g(z, y))
    logits = d(nchw(signed(real_name, shape), DTYPE), y)
    loss = torch.relu(1 - logits[:batch // 2]).mean() + torch.relu(1 + logits[batch // 2:]).mean()
    loss.backward()
    out |= {"D.logits": logits.detach(), "loss.D": loss.detach()} | gradients(d, "grad.D.")
    fake = nchw(signed(fake_name, shape), DTYPE).requires_grad_()
    loss = -d(fake, y).mean()
    out |= {"loss.G": loss.detach(), "grad.fake": nhwc(torch.autograd.grad(loss, fake)[0])}
    return out | state(d, "after.D.", is_buffer)


def train_case(c):
    g, d = networks(**c)
    g_average, _ = networks(**c)
    opt_g, opt_d = biggan.adam(g, 1e-3, 1e-6), biggan.adam(d, 2e-3, 1e-6)
    batch, size, classes, out = c["batch"], c["size"], c["classes"], {}

    def drawn(site):
        z = torch.tensor(normal("z." + site, (batch, g.z))).to(DTYPE)
        return z, torch.tensor(np.floor(classes * uniform("y." + site, (batch,))).astype(np.int64))

    for i in range(3):
        for k in range(2):
            parts = []
            for p in range(2):
                real = nchw(signed(f"real.{k}.{p}#{i}", (batch, size, size, 3)), DTYPE)
                parts.append((real, torch.tensor([(j + p + k) % classes for j in range(batch)]), *drawn(f"d{k}#{i}")))
            real_loss, fake_loss = biggan.d_step(g, d, opt_d, parts, 1e-3)
            out |= {f"loss.D_real.{k}#{i}": real_loss, f"loss.D_fake.{k}#{i}": fake_loss}
        out[f"loss.G#{i}"] = biggan.g_step(g, d, opt_g, [drawn(f"g#{i}")] * 2, 1e-3)
        biggan.average(g_average, g, 0.9 if i + 1 >= 2 else 0.0)
    return out | state(g, "final.G.") | state(d, "final.D.") | state(g_average, "ema.G.")


def main():
    folder = pathlib.Path(__file__).resolve().parent
    cases = {f"biggan_forward_{name}": forward_case(c, *NAMES.get(name, ())) for name, c in CASES.items()}
    cases["biggan_train"] = train_case(CASES["32_tables"] | dict(shared=True, hierarchical=True, shared_dim=5))
    for name, tensors in cases.items():
        path = folder / f"{name}.safetensors"
        save_file(stored({k: t.contiguous() for k, t in tensors.items()}), path)
        path.chmod(0o644)
        print(f"{path.name:36} {len(tensors):5} tensors {path.stat().st_size / 1e6:6.2f} MB")


if __name__ == "__main__":
    main()
