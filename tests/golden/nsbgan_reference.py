#!/usr/bin/env python3
"""NSB-GAN's decoders (Han et al. 2020) in PyTorch, under kiln's names, and the adversarial stage's iteration.

    pip install torch numpy
    python3 nsbgan_reference.py      # checks parameter counts and that stacked heads are independent ones

Written from descriptions of the public code. Two orders differ from it: sub-pixel shuffling takes channel (a + 2b) c + k to pixel
(2i + a, 2j + b), and the discriminator's first linear layer reads pixels row by row, channels last.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


# ---- wavelets: one level along an axis as a matrix, lows and highs interleaved --------------------------------------------------
def axis(n, wavelet, inverse=False):
    r = math.sqrt(2)
    m = torch.zeros(n, n, dtype=torch.float64)
    if wavelet == "haar":
        for k in range(0, n, 2):
            m[k, k] = m[k, k + 1] = m[k + 1, k] = 1 / r
            m[k + 1, k + 1] = -1 / r
        return m
    low, high = ((1 / 4, 1 / 2, 1 / 4), (1 / 8, 1 / 4, -3 / 4, 1 / 4, 1 / 8)) if inverse else ((-1 / 8, 1 / 4, 3 / 4, 1 / 4, -1 / 8), (1 / 4, -1 / 2, 1 / 4))
    for k in range(n):
        taps = high if k % 2 else low
        for t, v in enumerate(taps):
            at = k + t - len(taps) // 2
            if 0 <= at < n:
                m[(at, k) if inverse else (k, at)] += r * v
    return m


def split(x, wavelet):
    """[n, c, h, w] -> [TL, TR, BL, BR]: TR high along the height, BL along the width."""
    h, w = (axis(s, wavelet).to(x.dtype) for s in x.shape[2:])
    y = h @ x @ w.T
    return [y[:, :, 0::2, 0::2], y[:, :, 1::2, 0::2], y[:, :, 0::2, 1::2], y[:, :, 1::2, 1::2]]


def join(bands, wavelet):
    n, c, h, w = bands[0].shape
    y = bands[0].new_zeros(n, c, 2 * h, 2 * w)
    for band, i, j in zip(bands, (0, 1, 0, 1), (0, 0, 1, 1)):
        y[:, :, i::2, j::2] = band
    rows, columns = (axis(s, wavelet, wavelet != "haar").to(y.dtype) for s in y.shape[2:])
    return rows @ y @ columns.T


def low_band(x, wavelet, levels):
    for _ in range(levels):
        x = split(x, wavelet)[0]
    return x


def from_low_band(x, wavelet, levels):
    for _ in range(levels):
        x = join([x] + [torch.zeros_like(x)] * 3, wavelet)
    return x


# ---- networks -------------------------------------------------------------------------------------------------------------------
class ConvNorm(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def double(i, o):
    return nn.Sequential(ConvNorm(i, o), ConvNorm(o, o))


def up2(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class TailUNet(nn.Module):
    def __init__(self, i, tails, w):
        super().__init__()
        self.inc = double(i, w)
        for k in (1, 2, 3):
            setattr(self, f"down{k}", double(w, w))
            setattr(self, f"up{k}", double(2 * w, w))
        self.tails = nn.ModuleList([ConvNorm(w, w // 2 * tails), nn.Conv2d(w // 2 * tails, 3 * tails, 3, padding=1, groups=tails)])

    def trunk(self, x):
        maps = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3):
            maps.append(down(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for up in (self.up1, self.up2, self.up3):
            x = up(torch.cat([maps.pop(), up2(x)], 1))
        return x

    def forward(self, x):
        return self.tails[1](self.tails[0](self.trunk(x)))


class ResidualUNet(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.inc = double(3, w)
        widths = [1, 2, 4, 8, 8]
        for k, (i, o) in enumerate(zip([16, 8, 4, 2], [4, 2, 1, 1])):
            setattr(self, f"down{k + 1}", double(widths[k] * w, widths[k + 1] * w))
            setattr(self, f"up{k + 1}", double(i * w, o * w))
        self.outc = nn.Conv2d(w, 3, 1)

    def forward(self, x):
        maps = [self.inc(x)]
        for k in range(4):
            maps.append(getattr(self, f"down{k + 1}")(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for k in range(4):
            x = getattr(self, f"up{k + 1}")(torch.cat([maps.pop(), up2(x)], 1))
        return self.outc(x)


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 2, 5, 1).reshape(n, c // 4, 2 * h, 2 * w)


class Block(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(w, w, 3, padding=1), nn.Conv2d(w, w, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(x)))


class SrResNet(nn.Module):
    def __init__(self, w, blocks, doublings):
        super().__init__()
        self.conv_first = nn.Conv2d(3, w, 3, padding=1)
        self.body = nn.ModuleList(Block(w) for _ in range(blocks))
        self.doublings = doublings
        for k in range(doublings):
            setattr(self, f"upconv{k + 1}", nn.Conv2d(w, 4 * w, 3, padding=1))
        self.conv_hr, self.conv_last = nn.Conv2d(w, w, 3, padding=1), nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, x):
        x = F.leaky_relu(self.conv_first(x), 0.1)
        for block in self.body:
            x = block(x)
        for k in range(self.doublings):
            x = F.leaky_relu(shuffle(getattr(self, f"upconv{k + 1}")(x)), 0.1)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.1))


class Decoder(nn.Module):
    """The SRResNet as a decoder of wavelet bands, on [0, 1]."""

    def __init__(self, w, blocks, levels, wavelet, shift, scale, published_base):
        super().__init__()
        self.net = SrResNet(w, blocks, levels)
        self.levels, self.wavelet, self.shift, self.scale, self.published = levels, wavelet, shift, scale, published_base

    def forward(self, band):
        x = (band + self.shift) / self.scale
        return self.net(x) + from_low_band(x if self.published else band, self.wavelet, self.levels)


class Discriminator(nn.Module):
    def __init__(self, size, w):
        super().__init__()
        self.halvings = int(math.log2(size // 4))
        i = 3
        for k in range(self.halvings):
            o = w * min(2 ** k, 8)
            setattr(self, f"conv{k}_0", nn.Conv2d(i, o, 3, padding=1, bias=k == 0))
            if k:
                setattr(self, f"bn{k}_0", nn.BatchNorm2d(o))
            setattr(self, f"conv{k}_1", nn.Conv2d(o, o, 4, 2, 1, bias=False))
            setattr(self, f"bn{k}_1", nn.BatchNorm2d(o))
            i = o
        self.linear1, self.linear2 = nn.Linear(16 * i, 100), nn.Linear(100, 1)

    def forward(self, x):
        for k in range(self.halvings):
            for part in (0, 1):
                x = getattr(self, f"conv{k}_{part}")(x)
                if k or part:
                    x = getattr(self, f"bn{k}_{part}")(x)
                x = F.leaky_relu(x, 0.2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.linear2(F.leaky_relu(self.linear1(x), 0.2)).flatten()


# ---- the adversarial stage ------------------------------------------------------------------------------------------------------
def above(x, mean, wanted):
    return F.binary_cross_entropy_with_logits(x - mean, torch.full_like(x, wanted))


def gan_step(g, d, opt_g, opt_d, band, real, pixel=1e-2, gan=5e-3):
    """Returns L1, the generator's and the discriminator's adversarial loss."""
    fake = g(band)
    l1 = (fake - real).abs().mean()
    on_real, on_fake = d(real).detach(), d(fake)
    adversarial = (above(on_real, on_fake.mean(), 0.0) + above(on_fake, on_real.mean(), 1.0)) / 2
    opt_g.zero_grad()
    (pixel * l1 + gan * adversarial).backward()
    opt_g.step()
    fake = fake.detach()
    opt_d.zero_grad()
    on_fake = d(fake).detach()
    on_real = d(real)
    loss_real = above(on_real, on_fake.mean(), 1.0) * 0.5
    loss_real.backward()
    loss_fake = above(d(fake), on_real.detach().mean(), 0.0) * 0.5
    loss_fake.backward()
    opt_d.step()
    return l1.detach(), adversarial.detach(), (loss_real + loss_fake).detach()


def count(network):
    return sum(p.numel() for p in network.parameters())


def main():
    for name, network, expected in (("U-Net 12 -> 36", TailUNet(12, 12, 512), 52.07e6), ("U-Net 48 -> 144", TailUNet(48, 48, 512), 94.98e6),
                                    ("SRResNet", SrResNet(64, 16, 2), 1517571), ("discriminator", Discriminator(256, 64), 21055049)):
        n = count(network)
        print(f"{name:16} {n:10}")
        assert abs(n - expected) < (1 if expected == int(expected) and expected < 3e7 else 5e3), (name, n, expected)
    torch.manual_seed(1)
    net, x = TailUNet(12, 3, 8), torch.randn(2, 12, 16, 16)
    whole, t = net(x), net.trunk(x)
    for k in range(3):  # a head by itself
        rows, out = slice(4 * k, 4 * k + 4), slice(3 * k, 3 * k + 3)
        conv, bn, last = net.tails[0].conv, net.tails[0].bn, net.tails[1]
        y = F.batch_norm(F.conv2d(t, conv.weight[rows], conv.bias[rows], padding=1), None, None, bn.weight[rows], bn.bias[rows], True)
        assert torch.allclose(F.conv2d(F.relu(y), last.weight[out], last.bias[out], padding=1), whole[:, out], atol=1e-5)


if __name__ == "__main__":
    main()
