#!/usr/bin/env python3
"""Writes the golden files that kiln's FastGAN is compared with.

    python3 make_golden.py            write *.safetensors beside this file
    python3 make_golden.py --check    write nothing; compare the same runs in float32 with those in float64

Neither inputs nor initial weights are stored: both sides compute them from a hash of a name, by the rules below.
All arithmetic is float64 (PyTorch, CPU) on inputs and weights that are exactly float32 numbers.


1. Names and layouts
--------------------
A weight's name is "G." or "D." and its path, e.g. G.feat_8.conv1.weight, D.down_4.bn3.bias, D.decoder_big.up1.conv1.u.
Leaves: convolution weight, u, v; batch norm weight, bias, running_mean, running_var; noise weight ([1]).
kiln layouts: pictures and noise N,H,W,C; convolution weights [C_out,kh,kw,C_in], also G.init.conv.weight (there
out[b,y,x,o] = sum_i z[b,i] W[o,y,x,i]); u [C_out]; v in the order (kh,kw,C_in); z [B,256]; logits [50*B], all 25*B of the big
picture (image by image, rows first), then all 25*B of the small one.

2. Hash
-------
For a name and a flat index i in the kiln layout, in 64-bit unsigned arithmetic:
    state = fnv1a64(name) + i                       fnv1a64: h = 0xcbf29ce484222325; for each byte: h ^= byte, h *= 0x100000001b3
    x = state + 0x9e3779b97f4a7c15
    x ^= x >> 30;  x *= 0xbf58476d1ce4e5b9;  x ^= x >> 27;  x *= 0x94d049bb133111eb;  x ^= x >> 31
    U = (x >> 40) * 2^-24                           in [0,1), exactly a float32
Everything below but u, v and the factor 1.7320508f is exact in float32.
hash.safetensors holds a few values of each rule, to debug against.

3. Rules
--------
    convolution weight            4 * (2U-1)
    batch norm weight             0.5 + 0.0625 * (2U-1)
    batch norm bias               0.125 * (2U-1); but in D outside the decoders 0.25 * (2U-1) + 0.75, or - 0.75 where 2U-1 < 0
    noise weight                  0.125 * (2U-1)
    running_mean, running_var     0, 1
    u, v                          2U-1, divided by its length in float64, rounded to float32
    z, noise.J                    (2U-1) * 1.7320508f      unit variance; J = 0, 1, .. in forward order; noise is [B,side,side,1]
    pictures, cotangents          2U-1
    margin.*, aug.*.brightness, .saturation, .contrast     U
    aug.*.shift_h, .shift_w       floor(U * (2s+1)) - s    s = int(0.125*side + 0.5); side = height for _h, width for _w
    aug.*.cutout_h, .cutout_w     floor(U * (side + 1 - c % 2))     c = int(0.5*side + 0.5); the centre of the blanked rectangle
Both floors are taken in float64.  Augmentation draws are [B], all others have the shape of what they stand for.

Why these numbers: W/sigma does not depend on the scale of W, but Adam's steps and the flips of sign that rounding causes in them
are small beside large weights.  With gains of 0.5 G's gates stay nearly linear, where gains of 1 give pictures whose extremes
are 20 standard deviations out and lose a digit in float32.  And D's large biases keep its values away from LeakyReLU's kink,
where rounding decides between two gradients: half of its channels lie mostly above it, half mostly below.

4. What is stored
-----------------
Under each tensor's name: float32 values in kiln layout if it has at most 2048 elements; else the flat subset x[::stride],
stride = ceil(n / 2048), plus 1 if that is even.  Under name + ".moments": its sum and sum of squares, float64, over all elements.
A sum may nearly cancel: compare it relative to sqrt(n * sum of squares).

5. Cases
--------
ngf = ndf = 8, nz = 256 everywhere (decoder base 4).  Batch 4 at 64 px, 3 at 128, 2 at 256, 512, 1024.

forward_{size}: from the initial weights,
  G.big, G.small                training-mode G(z), noise.J
  grad.z, grad.G.*              of sum(big * cot.big) + sum(small * cot.small)
  after.G.*                     u, v, running_mean, running_var after that one forward
  G.eval.big, G.eval.small      then eval-mode G, same z and noise: stored u, v and running statistics
  (the real pictures are hashed as 'real', at 512 and 1024 px as 'real.b')
  D.real.logits, D.real.rec_all, D.real.rec_small, D.real.rec_part
                                training-mode D('real'), part = 0, 1, 2, 3, 0 for 64, 128, 256, 512, 1024 px
  loss.D_real, loss.rec         mean relu(0.2*U + 0.8 - logit), U = margin.real; squared error: mean over a picture's elements,
                                summed over the batch and the three reconstructions, against the nearest-resized 'real'
  grad.D.*                      of loss.D_real + loss.rec
  D.fake.logits                 then training-mode D('fake.big', 'fake.small')
  loss.G                        -mean of those logits
  grad.fake.big, grad.fake.small
                                its gradient
  after.D.*                     u, v, running_mean, running_var after both forwards (decoders: one)

augment: 'x' and cotangent 'cot' of [3,20,12,3], draws aug.brightness, aug.saturation, ...; for each POLICY of color,
  translation, cutout, color_translation, all: POLICY.out and POLICY.grad (of sum(out * cot) with respect to x).
  The same again on odd numbers: [2,18,14,3] (blanked rectangle 9 x 7) with every name, hashed and stored, under "odd.", e.g.
  'odd.x', 'odd.aug.shift_h', 'odd.all.out'.

train_{size} (64, 256): three whole iterations, k = 0, 1, 2, in the order of train_step in fastgan_reference.py.
  Inputs: real#k, z#k, noise.J#k, margin.real#k, margin.fake#k, part = (k+1) % 4, color and translation with
  aug.real.brightness#k .. aug.real.shift_w#k, aug.fake.big.*#k, aug.fake.small.*#k.  No flips.  Adam: 2e-4, (0.5, 0.999), 1e-8.
  Each iteration's: loss.D_real#k, loss.rec#k, loss.D_fake#k, loss.G#k, mean.logit_real#k, mean.logit_fake#k.
  After the last: final.G.*, final.D.* (every parameter and buffer), ema.G.* (parameters, running_mean, running_var; from the
  initial ones, decay 0.999 after each iteration; not u, v).
"""

import argparse
import pathlib
import warnings

import numpy as np
import torch
from safetensors.numpy import save_file

import fastgan_reference as fastgan

WIDTH = 8
BATCH = {64: 4, 128: 3, 256: 2, 512: 2, 1024: 2}
PART = {64: 0, 128: 1, 256: 2, 512: 3, 1024: 0}
# Under these names no activation of D lies within rounding of LeakyReLU's kink (README.md says what that would do).
REAL = {64: "real", 128: "real", 256: "real", 512: "real.b", 1024: "real.b"}
STEPS, DECAY, LR = 3, 0.999, 2e-4
LARGEST_WHOLE = 2048
F32 = np.float32


# --------------------------------------------------------------------------------------------------------------------- hash

def uniform(name, shape):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        x = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64) + np.uint64((h + 0x9E3779B97F4A7C15) % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(40)).astype(np.float64) * 2.0**-24).astype(F32).reshape(shape)


def signed(name, shape):
    return F32(2) * uniform(name, shape) - F32(1)


def normal(name, shape):
    return signed(name, shape) * F32(1.7320508)


def direction(name, shape):
    x = signed(name, shape).astype(np.float64)
    return (x / np.sqrt(np.sum(x * x))).astype(F32)


def initial(name, shape):
    """A weight or buffer of a network."""
    owner, leaf = name.split(".")[-2:]
    if leaf in ("u", "v"):
        return direction(name, shape)
    if leaf == "running_mean":
        return np.zeros(shape, F32)
    if leaf == "running_var":
        return np.ones(shape, F32)
    if owner.startswith("bn") and leaf == "weight":
        return F32(0.5) + F32(0.0625) * signed(name, shape)
    if owner.startswith("bn") and name.startswith("D.") and not name.startswith("D.decoder"):
        s = signed(name, shape)
        return F32(0.25) * s + np.where(s < 0, F32(-0.75), F32(0.75))
    if owner.startswith(("bn", "noise")):
        return F32(0.125) * signed(name, shape)
    return F32(4) * signed(name, shape)


# ------------------------------------------------------------------------------------- between kiln's and PyTorch's layouts

def nchw(array, dtype):
    return torch.tensor(array).permute(0, 3, 1, 2).to(dtype).contiguous()


def nhwc(tensor):
    return tensor.detach().permute(0, 2, 3, 1).contiguous()


class Layout:
    """One network's tensors: PyTorch's state dict seen under kiln's names and in kiln's layouts."""

    def __init__(self, prefix, network):
        self.network = network
        self.kernels = {}  # kiln name of v: kh, kw, C_in
        self.torch_name = {}
        for name, _ in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                kiln = prefix + name.replace("weight_orig", "weight").replace("weight_u", "u").replace("weight_v", "v")
                self.torch_name[kiln] = name
        self.transposed = {k for k in self.torch_name if k.endswith("init.conv.weight")}
        state = network.state_dict()
        for k, name in self.torch_name.items():
            if k.endswith(".v"):
                weight = self.to_kiln(k[:-1] + "weight", state[name[:-1] + "orig"])
                self.kernels[k] = tuple(weight.shape[1:])

    def to_kiln(self, kiln, t):
        t = t.detach()
        if kiln in self.kernels:
            kh, kw, c_in = self.kernels[kiln]
            return t.reshape(c_in, kh, kw).permute(1, 2, 0).reshape(-1)
        if t.dim() == 4:
            return t.permute(1, 2, 3, 0) if kiln in self.transposed else t.permute(0, 2, 3, 1)
        return t

    def to_torch(self, kiln, t):
        if kiln in self.kernels:
            kh, kw, c_in = self.kernels[kiln]
            return t.reshape(kh, kw, c_in).permute(2, 0, 1).reshape(-1)
        if t.dim() == 4:
            return t.permute(3, 0, 1, 2) if kiln in self.transposed else t.permute(0, 3, 1, 2)
        return t

    @torch.no_grad()
    def initialise(self):
        for kiln, name in self.torch_name.items():
            target = self.network.state_dict()[name]  # shares the network's memory
            shape = tuple(self.to_kiln(kiln, target).shape)
            target.copy_(self.to_torch(kiln, torch.tensor(initial(kiln, shape))))

    def state(self, prefix, keep=lambda kiln: True):
        state = self.network.state_dict()
        return {prefix + k: self.to_kiln(k, state[n]).clone() for k, n in self.torch_name.items() if keep(k)}

    def gradients(self):
        parameters = dict(self.network.named_parameters())
        return {"grad." + k: self.to_kiln(k, parameters[n].grad).clone()
                for k, n in self.torch_name.items() if n in parameters}


def is_buffer(kiln):
    return kiln.endswith((".u", ".v")) or is_running(kiln)


def is_running(kiln):
    return kiln.endswith((".running_mean", ".running_var"))


def networks(size, dtype):
    g = fastgan.Generator(size, WIDTH).to(dtype)
    d = fastgan.Discriminator(size, WIDTH).to(dtype)
    layouts = Layout("G.", g), Layout("D.", d)
    for layout in layouts:
        layout.initialise()
    return g, d, *layouts


def z_and_noise(g, batch, dtype, suffix=""):
    z = torch.tensor(normal("z" + suffix, (batch, 256))).to(dtype)
    noise = [nchw(normal(f"noise.{j}{suffix}", (batch, side, side, 1)), dtype) for j, side in enumerate(g.noise_sides())]
    return z, noise


# -------------------------------------------------------------------------------------------------------------------- cases

def forward_case(size, dtype):
    batch, part, out = BATCH[size], PART[size], {}
    g, d, g_layout, d_layout = networks(size, dtype)
    small = g.small

    def picture(name, side):
        return nchw(signed(name, (batch, side, side, 3)), dtype)

    z, noise = z_and_noise(g, batch, dtype)
    z.requires_grad_()
    big, small_picture = g(z, noise)
    ((big * picture("cot.big", size)).sum() + (small_picture * picture("cot.small", small)).sum()).backward()
    out |= {"G.big": nhwc(big), "G.small": nhwc(small_picture), "grad.z": z.grad}
    out |= g_layout.gradients() | g_layout.state("after.", is_buffer)
    g.eval()
    with torch.no_grad():
        big, small_picture = g(z, noise)
    out |= {"G.eval.big": nhwc(big), "G.eval.small": nhwc(small_picture)}

    real = picture(REAL[size], size)
    logits, reconstructions = d(real, part)
    assert logits.numel() == 50 * batch
    loss_real = fastgan.hinge_real(logits, torch.tensor(uniform("margin.real", (50 * batch,))).to(dtype))
    loss_rec = fastgan.reconstruction_loss(reconstructions, real, part)
    (loss_real + loss_rec).backward()
    out |= {"D.real.logits": logits.detach(), "loss.D_real": loss_real.detach(), "loss.rec": loss_rec.detach()}
    out |= {"D.real.rec_" + name: nhwc(r) for name, r in zip(("all", "small", "part"), reconstructions)}
    out |= d_layout.gradients()

    fakes = [picture("fake.big", size).requires_grad_(), picture("fake.small", small).requires_grad_()]
    logits = d(fakes)
    loss = -logits.mean()
    grads = torch.autograd.grad(loss, fakes)
    out |= {"D.fake.logits": logits.detach(), "loss.G": loss.detach()}
    out |= {"grad.fake.big": nhwc(grads[0]), "grad.fake.small": nhwc(grads[1])}
    return out | d_layout.state("after.", is_buffer)


def augmentation(prefix, batch, height, width, suffix="", cut=False, dtype=torch.float64):
    def draw(name):
        return uniform(f"{prefix}.{name}{suffix}", (batch,))

    def number(name):
        return torch.tensor(draw(name)).to(dtype)

    def integer(name, choices, first):
        return torch.tensor(np.floor(draw(name).astype(np.float64) * choices).astype(np.int64) + first)

    def shift(name, side):
        s = fastgan.max_shift(side)
        return integer(name, 2 * s + 1, -s)

    def centre(name, side):
        return integer(name, side + 1 - fastgan.cutout_side(side) % 2, 0)

    a = fastgan.Augmentation(number("brightness"), number("saturation"), number("contrast"),
                             shift("shift_h", height), shift("shift_w", width))
    if cut:
        a.cutout_h, a.cutout_w = centre("cutout_h", height), centre("cutout_w", width)
    return a


def augment_case(dtype):
    color, move, cut = ("brightness", "saturation", "contrast"), ("shift_h", "shift_w"), ("cutout_h", "cutout_w")
    policies = {"color": color, "translation": move, "cutout": cut, "color_translation": color + move,
                "all": color + move + cut}
    out = {}
    for case, shape in (("", (3, 20, 12, 3)), ("odd.", (2, 18, 14, 3))):
        draws = augmentation(case + "aug", *shape[:3], cut=True, dtype=dtype)
        cotangent = nchw(signed(case + "cot", shape), dtype)
        for policy, fields in policies.items():
            x = nchw(signed(case + "x", shape), dtype).requires_grad_()
            y = fastgan.augment(x, fastgan.Augmentation(**{f: getattr(draws, f) for f in fields}))
            (y * cotangent).sum().backward()
            out |= {f"{case}{policy}.out": nhwc(y), f"{case}{policy}.grad": nhwc(x.grad)}
    return out


def train_case(size, dtype):
    batch, out = BATCH[size], {}
    g, d, g_layout, d_layout = networks(size, dtype)
    opt_g, opt_d = fastgan.adam(g, LR), fastgan.adam(d, LR)
    averages = [p.detach().clone() for p in g.parameters()]
    running = {k: n for k, n in g_layout.torch_name.items() if is_running(k)}
    running_averages = {k: g.state_dict()[n].clone() for k, n in running.items()}

    for k in range(STEPS):
        suffix = f"#{k}"

        def margin(name):
            return torch.tensor(uniform(f"margin.{name}{suffix}", (50 * batch,))).to(dtype)

        def draws_for(name, side):
            return augmentation(f"aug.{name}", batch, side, side, suffix, dtype=dtype)

        z, noise = z_and_noise(g, batch, dtype, suffix)
        draws = fastgan.Draws(z, noise, draws_for("real", size), draws_for("fake.big", size), draws_for("fake.small", g.small),
                              (k + 1) % 4, margin("real"), margin("fake"))
        real = nchw(signed("real" + suffix, (batch, size, size, 3)), dtype)
        result = fastgan.train_step(g, d, opt_g, opt_d, averages, real, draws)
        fastgan.average(running_averages.values(), [g.state_dict()[n] for n in running.values()], DECAY)
        for name, value in result.items():
            out[("mean." if name.startswith("logit") else "loss.") + name + suffix] = value.detach()

    out |= g_layout.state("final.") | d_layout.state("final.")
    by_name = dict(zip((n for n, _ in g.named_parameters()), averages))
    out |= {"ema." + k: g_layout.to_kiln(k, by_name[n]) for k, n in g_layout.torch_name.items() if n in by_name}
    return out | {"ema." + k: v for k, v in running_averages.items()}


def hash_case():
    names = {"z": (4, 256), "noise.0": (4, 8, 8, 1), "real": (4, 64, 64, 3), "margin.real": (200,),
             "G.feat_8.conv1.weight": (128, 3, 3, 128), "G.feat_8.noise1.weight": (1,), "G.feat_8.bn1.weight": (128,),
             "G.feat_8.bn1.bias": (128,), "G.feat_8.conv1.u": (128,), "G.feat_8.conv1.v": (1152,),
             "D.down_16.bn1.bias": (16,), "D.decoder_big.up1.bn1.bias": (32,)}
    rules = {"z": normal, "noise.0": normal, "real": signed, "margin.real": uniform}
    return {name: torch.tensor(rules.get(name, initial)(name, shape)).to(torch.float64) for name, shape in names.items()}


# ------------------------------------------------------------------------------------------------------------------ writing

def stride_of(n):
    stride = -(-n // LARGEST_WHOLE)
    return stride + 1 if stride % 2 == 0 else stride


def stored(tensors):
    out = {}
    for name, tensor in tensors.items():
        x = np.atleast_1d(tensor.detach().numpy())
        assert np.isfinite(x).all(), name
        flat = x.reshape(-1)
        out[name] = (x if x.size <= LARGEST_WHOLE else flat[::stride_of(x.size)]).astype(F32).copy()
        out[name + ".moments"] = np.array([flat.sum(dtype=np.float64), np.square(flat).sum(dtype=np.float64)])
    return out


CASES = {"hash": lambda dtype: hash_case(), "augment": augment_case}
CASES |= {f"forward_{size}": (lambda dtype, size=size: forward_case(size, dtype)) for size in BATCH}
CASES |= {f"train_{size}": (lambda dtype, size=size: train_case(size, dtype)) for size in (64, 256)}


def check_sane(case, tensors):
    for name, t in tensors.items():
        if name in ("G.big", "G.small"):
            assert 0.05 < t.std() < 5, (case, name, float(t.std()))
        if name in ("G.eval.big", "G.eval.small"):  # running statistics have only begun to move, so these are faint
            assert 0.005 < t.std() < 5, (case, name, float(t.std()))
        if name.startswith(("grad.", "D.")):
            assert t.abs().max() > 1e-9, (case, name)


def write(folder, only):
    total = 0
    for case, run in CASES.items():
        if only and case not in only:
            continue
        tensors = run(torch.float64)
        check_sane(case, tensors)
        path = folder / f"{case}.safetensors"
        save_file(stored(tensors), path)
        path.chmod(0o644)
        total += path.stat().st_size
        print(f"{path.name:24} {len(tensors):5} tensors {path.stat().st_size / 1e6:6.2f} MB", flush=True)
        assert path.stat().st_size < 1.5e6
    print(f"{total / 1e6:.2f} MB")
    assert total < 8e6


def check_float32(only):
    """How far float32 is from float64: what a comparison with these files can ask for at best."""
    for case, run in CASES.items():
        if case == "hash" or (only and case not in only):
            continue
        exact, rounded = run(torch.float64), run(torch.float32)
        groups = {}
        missed = weights = 0
        for name, a in exact.items():
            error = (a - rounded[name].double()).abs()
            group = name.split(".")[0] if name.startswith(("grad.", "after.", "final.", "ema.", "loss.", "mean.")) else "forward"
            relative = float(error.max() / a.abs().max().clamp_min(1e-300))
            groups.setdefault(group, []).append((relative, name))
            if name.startswith("final.") and not is_buffer(name):
                missed += int((error > 0.1 * LR * STEPS).sum())
                weights += error.numel()
        for group, errors in groups.items():
            errors.sort(reverse=True)
            print(f"{case:14} {group:8} {len(errors):4} tensors  max|a-b|/max|a|: " +
                  "  ".join(f"{e:.1e} {n}" for e, n in errors[:3]) + f"  median {errors[len(errors) // 2][0]:.1e}", flush=True)
        if weights:
            print(f"{case:14} weights further than 0.1*lr*steps: {missed} of {weights} ({missed / weights:.2e})", flush=True)


def main():
    parser = argparse.ArgumentParser(description="write the golden files")
    parser.add_argument("--check", action="store_true", help="compare float32 with float64 instead")
    parser.add_argument("--case", action="append", help="only this case, e.g. forward_64 (repeatable)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    fastgan.check_parameter_counts()
    if args.check:
        check_float32(args.case)
    else:
        write(args.out, args.case)


if __name__ == "__main__":
    main()
