#!/usr/bin/env python3
"""What PyTorch's own networks make of hashed weights: features.safetensors beside this file, for tests/feature_network_test.cpp.

    pip install torch torchvision pytorch-fid scipy safetensors
    python3 tests/golden/make_features.py

The graphs are pytorch-fid's Inception and torchvision's VGG16, AlexNet and SqueezeNet 1.1. Their weights are not stored: tensor T
of a state dict is, in PyTorch's layout and with signed() of make_golden.py,
    convolution weight   signed(NETWORK.T) * sqrt(6 / inputs of one output)
    bias                 0.1 * signed(...)         batch norm weight 1 + 0.1 * signed(...), running_var 1 + 0.5 * signed(...),
    running_mean, bias   0.1 * signed(...)
(gamma, moving_variance, moving_mean, beta and kernels under Keras' names by the same rules), and the names and shapes are in the file's metadata. Heads of LPIPS: (signed + 1) / 8. Everything is computed in float64.
Also: FID, KID and precision/recall of two hashed sets of features, by numpy and scipy; and one iteration of FastGAN at 64 px (as
train_64's, make_golden.py) with LPIPS in place of the squared error: the loss and the gradients of the decoders and of D's first layer.
"""

import json
import pathlib

import numpy as np
import scipy.linalg
import torch
import torchvision
from pytorch_fid import inception
from safetensors.numpy import save_file

import fastgan_reference as fastgan
import make_golden
from make_golden import nchw, signed, uniform

HERE = pathlib.Path(__file__).parent


def hashed(network, name, shape, inputs=None):
    x = signed(f"{network}.{name}", tuple(shape))
    leaf = name.replace("/", ".").split(".")[-1]
    if len(shape) == 4:
        return x * np.float32(np.sqrt(6.0 / (inputs or np.prod(shape[1:]))))
    if leaf in ("weight", "gamma"):
        return np.float32(1) + np.float32(0.1) * x
    if leaf in ("running_var", "moving_variance"):
        return np.float32(1) + np.float32(0.5) * x
    return np.float32(0.1) * x


def fill(network, module, shapes):
    state = module.state_dict()
    for name, t in state.items():
        if name.endswith("num_batches_tracked") or name.startswith(("fc.", "classifier.", "AuxLogits.")):
            continue
        t.copy_(torch.tensor(hashed(network, name, t.shape)))
        shapes[f"{network}.{name}"] = list(t.shape)
    return module.double().eval()


class Keras:
    """Layers that make their hashed weights, kernel [kh, kw, c, oc], when they are called."""

    def __init__(self, network, shapes):
        self.network, self.shapes = network, shapes

    def weight(self, name, *shape):
        self.shapes[f"{self.network}.{name}"] = list(shape)
        return torch.tensor(hashed(self.network, name, shape, np.prod(shape[:3]) if len(shape) == 4 else None)).double()

    def conv(self, x, kernel, oc, k, bias="", stride=1, same=True):
        w = self.weight(kernel, k, k, x.shape[1], oc).permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, w, self.weight(bias, oc) if bias else None, stride, k // 2 if same else 0)


def squeezenet(picture, shapes):
    """SqueezeNet v1.1 as Keras' users have it: BGR less ImageNet's means; the mean of fire9."""
    k = Keras("squeezenet", shapes)
    relu, pool = torch.nn.functional.relu, torch.nn.MaxPool2d(3, 2)
    x = torch.nn.functional.interpolate(picture, (227, 227), mode="bilinear", align_corners=False)
    x = x[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64).view(1, 3, 1, 1)
    x = pool(relu(k.conv(x, "conv1/kernel:0", 64, 3, "conv1/bias:0", stride=2, same=False)))
    for fire, (squeezed, expanded) in enumerate([(16, 64)] * 2 + [(32, 128)] * 2 + [(48, 192)] * 2 + [(64, 256)] * 2, 2):
        def part(x, name, oc, size):
            return relu(k.conv(x, f"fire{fire}/{name}/kernel:0", oc, size, f"fire{fire}/{name}/bias:0"))
        s = part(x, "squeeze1x1", squeezed, 1)
        x = torch.cat([part(s, "expand1x1", expanded, 1), part(s, "expand3x3", expanded, 3)], 1)
        if fire in (3, 5):
            x = pool(x)
    return x.mean((2, 3))


def darknet(picture, shapes):
    """Tiny Darknet's first 14 convolutions, under Keras' names; the mean of the last."""
    k = Keras("darknet", shapes)
    x = torch.nn.functional.interpolate(picture, (224, 224), mode="bilinear", align_corners=False) / 255
    for i, (oc, size) in enumerate([(16, 3), (32, 3), (16, 1), (128, 3), (16, 1), (128, 3), (32, 1), (256, 3), (32, 1), (256, 3), (64, 1),
                                    (512, 3), (64, 1), (512, 3)], 1):
        x = k.conv(x, f"conv2d_{i}/kernel", oc, size)
        gamma, beta, mean, variance = (k.weight(f"batch_normalization_{i}/{n}", oc) for n in ("gamma", "beta", "moving_mean", "moving_variance"))
        x = torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)
        x = torch.nn.functional.leaky_relu(x, 0.1)
        if i in (1, 2, 6, 10):
            x = torch.nn.functional.max_pool2d(x, 2)
    return x.mean((2, 3))


def lpips(features, heads, a, b):
    shift = torch.tensor([-.030, -.088, -.188], dtype=torch.float64).view(1, 3, 1, 1)
    scale = torch.tensor([.458, .448, .450], dtype=torch.float64).view(1, 3, 1, 1)
    total = 0
    for f, g, head in zip(features((a - shift) / scale), features((b - shift) / scale), heads):
        f = f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10)
        g = g / (g.square().sum(1, keepdim=True).sqrt() + 1e-10)
        total = total + ((f - g).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
    return total


def taps(sequence, at):
    def run(x):
        out = []
        for i, layer in enumerate(sequence[:max(at) + 1]):
            x = layer(x)
            if i in at:
                out.append(x.clone())  # the next layer may be an in-place ReLU
        return out
    return run


def train_with_lpips(features, heads, size=64, batch=2):
    dtype = torch.float64
    g, d, _, layout = make_golden.networks(size, dtype)
    z, noise = make_golden.z_and_noise(g, batch, dtype, "#0")
    draws = fastgan.Draws(z, noise, *(make_golden.augmentation(f"aug.{name}", batch, side, side, "#0", dtype=dtype)
                                      for name, side in (("real", size), ("fake.big", size), ("fake.small", g.small))), 1,
                          *(torch.tensor(uniform(f"margin.{name}#0", (50 * batch,))).to(dtype) for name in ("real", "fake")))

    def loss(reconstructions, x, part):
        side = reconstructions[0].shape[2]
        whole, piece = fastgan.resize_nearest(x, side), fastgan.resize_nearest(fastgan.quadrant(x, part), side)
        return sum(lpips(features, heads, r, t).sum() for r, t in zip(reconstructions, (whole, whole, piece)))

    plain, fastgan.reconstruction_loss = fastgan.reconstruction_loss, loss
    real = nchw(signed("real#0", (batch, size, size, 3)), dtype)
    averages = [p.detach().clone() for p in g.parameters()]
    result = fastgan.train_step(g, d, fastgan.adam(g), fastgan.adam(d), averages, real, draws, skip_d_grads=True)
    fastgan.reconstruction_loss = plain
    kept = {"train." + k: v for k, v in layout.gradients().items() if ".decoder_" in k or k.endswith("stem.conv1.weight")}
    return {"train.rec": result["rec"].detach()} | kept


def frechet(a, b):
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(ca @ cb)
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca) + np.trace(cb) - 2 * np.trace(root.real)


def kernel_distance(a, b):
    """The unbiased estimate over all pairs, with the cubic kernel."""
    d, m, n = a.shape[1], len(a), len(b)
    kaa, kbb, kab = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    return (kaa.sum() - np.trace(kaa)) / (m * (m - 1)) + (kbb.sum() - np.trace(kbb)) / (n * (n - 1)) - 2 * kab.mean()


def covered(points, centres, k=3):
    """Share of points that lie in the ball of a centre to its k-th nearest other centre."""
    between = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(-1))
    radius = np.sort(between, axis=1)[:, k]
    distance = np.sqrt(((points[:, None] - centres[None]) ** 2).sum(-1))
    return (distance <= radius).any(1).mean()


@torch.no_grad()
def main():
    out, shapes = {}, {}

    inception.load_state_dict_from_url = lambda *a, **k: None
    torchvision.models.inception.Inception3.load_state_dict = lambda self, state: None
    net = inception.fid_inception_v3()
    del torchvision.models.inception.Inception3.load_state_dict
    fill("inception", net, shapes)
    original, inception.fid_inception_v3 = inception.fid_inception_v3, lambda: net
    fid = inception.InceptionV3().double().eval()
    inception.fid_inception_v3 = original
    picture = np.floor(uniform("picture", (2, 75, 60, 3)) * 256)
    out["inception"] = fid(torch.tensor(picture).double().permute(0, 3, 1, 2) / 255)[0][:, :, 0, 0]

    nchw = torch.tensor(picture).double().permute(0, 3, 1, 2)
    out["squeezenet"], out["darknet"] = squeezenet(nchw, shapes), darknet(nchw, shapes)

    nets = {"vgg": (torchvision.models.vgg16(weights=None), (3, 8, 15, 22, 29)),
            "alex": (torchvision.models.alexnet(weights=None), (1, 4, 7, 9, 11)),
            "squeeze": (torchvision.models.squeezenet1_1(weights=None), (1, 4, 7, 9, 10, 11, 12))}
    for name, (net, at) in nets.items():
        features = taps(fill(name, net, shapes).features, at)
        a, b = (torch.tensor(signed(f"{name}.{p}", (2, 48, 64, 3))).double().permute(0, 3, 1, 2) for p in "ab")
        channels = [f.shape[1] for f in features(a)]
        heads = [torch.tensor((signed(f"{name}.lin{i}", (c,)) + 1) / 8).double() for i, c in enumerate(channels)]
        a.requires_grad_()
        with torch.enable_grad():
            d = lpips(features, heads, a, b)
            d.sum().backward()
        out[f"{name}.distance"] = d.detach()
        out[f"{name}.grad"] = make_golden.nhwc(a.grad)
        if name == "vgg":
            with torch.enable_grad():
                out |= train_with_lpips(features, heads)

    a = signed("real features", (60, 12)).astype(np.float64)
    b = signed("fake features", (50, 12)).astype(np.float64) * 0.8 + 0.2
    out["fid"] = torch.tensor(frechet(a, b))
    out["fid.few"] = torch.tensor(frechet(a[:8], b[:8]))  # singular covariances
    out["kid"] = torch.tensor(kernel_distance(a, b))
    out["precision"], out["recall"] = torch.tensor(covered(b, a)), torch.tensor(covered(a, b))

    stored = make_golden.stored(out)
    path = HERE / "features.safetensors"
    save_file(stored, path, metadata={"shapes": json.dumps(shapes)})
    path.chmod(0o644)
    print({k: v.ravel()[:3] for k, v in stored.items()}, path.stat().st_size)


if __name__ == "__main__":
    main()
