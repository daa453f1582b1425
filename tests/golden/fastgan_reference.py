"""FastGAN in plain PyTorch: the networks and one training iteration.

This is the yardstick that kiln's own FastGAN is compared with (make_golden.py) and timed against (bench/fastgan_torch.py).
It is written to be read: one small class per block, no options that nothing uses.

Names.  A state-dict name is the kiln tensor name once `weight_orig`, `weight_u` and `weight_v` are read as `weight`, `u` and `v`.
Sizes.  32 to 1024 px, powers of two.  R is the picture's side; S = min(128, R/2) is the side of the second, small picture that
        the generator also draws, and of the discriminator's reconstructions.
Layout. PyTorch's N,C,H,W throughout.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

SIZES = (32, 64, 128, 256, 512, 1024)
DECODER_START = 8  # side of the feature maps that the decoders start from


def small_side(size):
    return min(128, size // 2)


# ------------------------------------------------------------------------------------------------------------------- blocks
# Every convolution is spectrally normalised (one power iteration in each training-mode forward) and has no bias.

def conv(c_in, c_out, kernel, stride=1, padding=0):
    return spectral_norm(nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False))


def conv3x3(c_in, c_out):
    return conv(c_in, c_out, 3, padding=1)


def conv4x4_half(c_in, c_out):
    """Halves the side."""
    return conv(c_in, c_out, 4, stride=2, padding=1)


def lrelu(x):
    return F.leaky_relu(x, 0.2)


def glu(x):
    return F.glu(x, dim=1)


def upsample(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Noise(nn.Module):
    """Adds one picture-sized plane of normal noise to all channels, scaled by one learned number."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, noise=None):
        if noise is None:
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return x + self.weight * noise


class Init(nn.Module):
    """z -> 4x4."""

    def __init__(self, nz, c_out):
        super().__init__()
        self.conv = spectral_norm(nn.ConvTranspose2d(nz, 2 * c_out, 4, 1, 0, bias=False))
        self.bn = nn.BatchNorm2d(2 * c_out)

    def forward(self, z):
        return glu(self.bn(self.conv(z[:, :, None, None])))


class UpBlock(nn.Module):
    noise_sites = 0

    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv1 = conv3x3(c_in, 2 * c_out)
        self.bn1 = nn.BatchNorm2d(2 * c_out)

    def forward(self, x):
        return glu(self.bn1(self.conv1(upsample(x))))


class UpBlockComp(nn.Module):
    noise_sites = 2

    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv1 = conv3x3(c_in, 2 * c_out)
        self.noise1 = Noise()
        self.bn1 = nn.BatchNorm2d(2 * c_out)
        self.conv2 = conv3x3(c_out, 2 * c_out)
        self.noise2 = Noise()
        self.bn2 = nn.BatchNorm2d(2 * c_out)

    def forward(self, x, noise1=None, noise2=None):
        x = glu(self.bn1(self.noise1(self.conv1(upsample(x)), noise1)))
        return glu(self.bn2(self.noise2(self.conv2(x), noise2)))


class SLE(nn.Module):
    """Skip-layer excitation: a low-resolution map decides, per channel, how much of a high-resolution map passes."""

    def __init__(self, c_low, c_high):
        super().__init__()
        self.conv1 = conv(c_low, c_high, 4)
        self.conv2 = conv(c_high, c_high, 1)

    def forward(self, low, high):
        gate = F.silu(self.conv1(F.adaptive_avg_pool2d(low, 4)))
        return high * torch.sigmoid(self.conv2(gate))


class DownBlock(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv1 = conv4x4_half(c_in, c_out)
        self.bn1 = nn.BatchNorm2d(c_out)

    def forward(self, x):
        return lrelu(self.bn1(self.conv1(x)))


class DownBlockComp(nn.Module):
    """The mean of a two-convolution branch (1, 2) and a pooled direct branch (3)."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv1 = conv4x4_half(c_in, c_out)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv3x3(c_out, c_out)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv3 = conv(c_in, c_out, 1)
        self.bn3 = nn.BatchNorm2d(c_out)

    def forward(self, x):
        main = lrelu(self.bn1(self.conv1(x)))
        main = lrelu(self.bn2(self.conv2(main)))
        direct = lrelu(self.bn3(self.conv3(F.avg_pool2d(x, 2))))
        return (main + direct) / 2


# ---------------------------------------------------------------------------------------------------------------- generator

class Generator(nn.Module):
    """z [B,nz] -> (big [B,3,R,R], small [B,3,S,S])."""

    MULTIPLIER = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}

    def __init__(self, size, ngf=64, nz=256):
        super().__init__()
        assert size in SIZES
        self.size, self.small = size, small_side(size)
        width = {side: int(m * ngf) for side, m in self.MULTIPLIER.items()}

        def add_up(side):
            block = UpBlockComp if side in (8, 32, 128, 512) else UpBlock
            self.add_module(f"feat_{side}", block(width[side // 2], width[side]))

        def add_gate(side):
            self.add_module(f"se_{side}", SLE(width[side // 16], width[side]))

        self.init = Init(nz, width[4])
        self.sides = [side for side in (8, 16, *SIZES) if side <= size]
        self.gates = [side for side in (64, 128, 256, 512) if side <= size]
        for side in self.sides:
            if side <= 256:
                add_up(side)
        for side in self.gates:
            if side <= 256:
                add_gate(side)
        self.to_small = conv(width[self.small], 3, 1)
        self.to_big = conv3x3(width[size], 3)
        if size >= 512:
            add_up(512)
            add_gate(512)
        if size >= 1024:
            add_up(1024)

    def noise_sides(self):
        """The side of each noise plane, in forward order."""
        return [side for side in self.sides for _ in range(self.get_submodule(f"feat_{side}").noise_sites)]

    def forward(self, z, noise=None):
        """noise: a list of [B,1,side,side], one for each of noise_sides(); None draws them."""
        pending = iter(noise if noise is not None else [None] * len(self.noise_sides()))
        feat = {4: self.init(z)}
        for side in self.sides:
            block = self.get_submodule(f"feat_{side}")
            x = block(feat[side // 2], *[next(pending) for _ in range(block.noise_sites)])
            if side in self.gates:
                x = self.get_submodule(f"se_{side}")(feat[side // 16], x)
            feat[side] = x
        big, small = self.to_big(feat[self.size]), self.to_small(feat[self.small])
        return (torch.tanh(big), torch.tanh(small)) if self.size == 1024 else (big, small)


# ------------------------------------------------------------------------------------------------------------ discriminator

class Stem(nn.Module):
    """Pictures -> the first feature map: same side up to 256 px, 256 px above."""

    def __init__(self, size, width):
        super().__init__()
        self.two = size == 1024
        if self.two:
            self.conv1 = conv4x4_half(3, width[512])
            self.conv2 = conv4x4_half(width[512], width[256])
            self.bn2 = nn.BatchNorm2d(width[256])
        elif size == 512:
            self.conv1 = conv4x4_half(3, width[256])
        else:
            self.conv1 = conv3x3(3, width[size])

    def forward(self, x):
        x = lrelu(self.conv1(x))
        return lrelu(self.bn2(self.conv2(x))) if self.two else x


class SmallPath(nn.Module):
    """Small pictures -> 8x8."""

    def __init__(self, small, width):
        super().__init__()
        side = small // 2
        self.conv1 = conv4x4_half(3, width[side])
        self.blocks = 0
        while side > 8:
            self.blocks += 1
            self.add_module(f"down{self.blocks}", DownBlock(width[side], width[side // 2]))
            side //= 2

    def forward(self, x):
        x = lrelu(self.conv1(x))
        for i in range(self.blocks):
            x = self.get_submodule(f"down{i + 1}")(x)
        return x


class LogitHead(nn.Module):
    def __init__(self, c_in, c_mid):
        super().__init__()
        self.conv1 = conv(c_in, c_mid, 1)
        self.bn1 = nn.BatchNorm2d(c_mid)
        self.conv2 = conv(c_mid, 1, 4)

    def forward(self, x):
        return self.conv2(lrelu(self.bn1(self.conv1(x))))


class Decoder(nn.Module):
    """8x8 features -> a picture of side `small`, by which the discriminator shows what it has seen."""

    MULTIPLIER = {16: 4, 32: 2, 64: 2, 128: 1}

    def __init__(self, c_in, base, small):
        super().__init__()
        side, self.blocks = DECODER_START, 0
        while side < small:
            side *= 2
            self.blocks += 1
            c_out = int(self.MULTIPLIER[side] * base)
            self.add_module(f"up{self.blocks}", UpBlock(c_in, c_out))
            c_in = c_out
        self.conv = conv3x3(c_in, 3)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(x, DECODER_START)
        for i in range(self.blocks):
            x = self.get_submodule(f"up{i + 1}")(x)
        return torch.tanh(self.conv(x))


def quadrant(x, part):
    """part 0: top left, 1: top right, 2: bottom left, 3: bottom right."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    top, left = h * (part // 2), w * (part % 2)
    return x[:, :, top:top + h, left:left + w]


def resize_nearest(x, side):
    return F.interpolate(x, size=side)


class Discriminator(nn.Module):
    """Reals [B,3,R,R] or fakes (big, small) -> 50*B logits: all of the big picture's 5x5, then all of the small one's."""

    MULTIPLIER = {8: 16, 16: 8, 32: 4, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}
    # A layer's number is how many times smaller than 512 px its map is: down_16 ends at 32x32.
    DOWNS = (4, 8, 16, 32, 64)
    GATES = {16: 2, 32: 4, 64: 8}  # the map gated: the map that decides

    def __init__(self, size, ndf=64):
        super().__init__()
        assert size in SIZES
        self.size, self.small = size, small_side(size)
        nfc = {side: int(m * ndf) for side, m in self.MULTIPLIER.items()}
        width = {side // 2: c for side, c in nfc.items()}        # channels at each side, main path
        small_width = {side // 4: c for side, c in nfc.items()}  # the same, small path

        self.stem = Stem(size, width)
        self.first = 512 // min(size, 256)  # the number of the stem's map
        self.downs = [k for k in self.DOWNS if k > self.first]
        for k in self.downs:
            self.add_module(f"down_{k}", DownBlockComp(width[1024 // k], width[512 // k]))
        self.rf_big = LogitHead(width[8], nfc[8])
        self.gates = {k: low for k, low in self.GATES.items() if low >= self.first}
        for k, low in self.gates.items():
            self.add_module(f"se_{low}_{k}", SLE(width[512 // low], width[512 // k]))
        self.down_small = SmallPath(self.small, small_width)
        self.rf_small = conv(small_width[8], 1, 4)
        self.decoder_big = Decoder(width[8], ndf / 2, self.small)
        self.decoder_part = Decoder(width[16], ndf / 2, self.small)
        self.decoder_small = Decoder(small_width[8], ndf / 2, self.small)

    def forward(self, pictures, part=None):
        """Returns the logits; with part (0..3, reals only) also the reconstructions (all, small, part)."""
        if torch.is_tensor(pictures):
            pictures = resize_nearest(pictures, self.size), resize_nearest(pictures, self.small)
        big, small = pictures

        feat = {self.first: self.stem(big)}
        for k in self.downs:
            x = self.get_submodule(f"down_{k}")(feat[k // 2])
            if k in self.gates:
                low = self.gates[k]
                x = self.get_submodule(f"se_{low}_{k}")(feat[low], x)
            feat[k] = x
        feat_small = self.down_small(small)
        logits = torch.cat([self.rf_big(feat[64]).flatten(), self.rf_small(feat_small).flatten()])
        if part is None:
            return logits
        return logits, (self.decoder_big(feat[64]), self.decoder_small(feat_small),
                        self.decoder_part(quadrant(feat[32], part)))


def initialise(network):
    """The published initialisation."""
    for m in network.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight_orig, 0.0, 0.02)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.zeros_(m.bias)
    return network


# ------------------------------------------------------------------------------------------------------------- augmentation

@dataclass
class Augmentation:
    """DiffAugment's draws, one entry for each picture.  An operation whose draws are None is left out.

    brightness, saturation, contrast: uniform in [0,1), before scaling.  shift_*: out[i,j] = in[i + shift_h, j + shift_w].
    cutout_*: the centre of the square that is blanked.
    """
    brightness: torch.Tensor = None
    saturation: torch.Tensor = None
    contrast: torch.Tensor = None
    shift_h: torch.Tensor = None
    shift_w: torch.Tensor = None
    cutout_h: torch.Tensor = None
    cutout_w: torch.Tensor = None


def max_shift(side):
    return int(side * 0.125 + 0.5)


def cutout_side(side):
    return int(side * 0.5 + 0.5)


def color(x, a):
    x = x + (a.brightness - 0.5).view(-1, 1, 1, 1)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (2 * a.saturation).view(-1, 1, 1, 1) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (a.contrast + 0.5).view(-1, 1, 1, 1) + mean


def translation(x, a):
    b, _, h, w = x.shape
    pad_h, pad_w = max_shift(h), max_shift(w)
    padded = F.pad(x, (pad_w, pad_w, pad_h, pad_h)).permute(0, 2, 3, 1)
    image = torch.arange(b, device=x.device).view(-1, 1, 1)
    row = torch.arange(h, device=x.device).view(1, -1, 1) + (a.shift_h + pad_h).view(-1, 1, 1)
    column = torch.arange(w, device=x.device).view(1, 1, -1) + (a.shift_w + pad_w).view(-1, 1, 1)
    return padded[image, row, column].permute(0, 3, 1, 2)


def cutout(x, a):
    def outside(side, centre):
        first = centre.view(-1, 1) - cutout_side(side) // 2
        i = torch.arange(side, device=x.device).view(1, -1)
        return (i < first) | (i >= first + cutout_side(side))

    keep = outside(x.shape[2], a.cutout_h)[:, :, None] | outside(x.shape[3], a.cutout_w)[:, None, :]
    return x * keep[:, None].to(x.dtype)


def augment(x, a):
    layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
    if a.brightness is not None:
        x = color(x, a)
    if a.shift_h is not None:
        x = translation(x, a)
    if a.cutout_h is not None:
        x = cutout(x, a)
    return x.contiguous(memory_format=layout)


# ----------------------------------------------------------------------------------------------------------------- training

def hinge_real(logits, uniform):
    """The margin is drawn anew for each logit, between 0.8 and 1."""
    return F.relu(0.2 * uniform + 0.8 - logits).mean()


def hinge_fake(logits, uniform):
    return F.relu(0.2 * uniform + 0.8 + logits).mean()


def reconstruction_loss(reconstructions, x, part):
    """Squared error: the mean over each picture, summed over the batch and over the three reconstructions."""
    rec_all, rec_small, rec_part = reconstructions
    side = rec_all.shape[2]
    whole, piece = resize_nearest(x, side), resize_nearest(quadrant(x, part), side)

    def error(a, b):
        return (a - b).square().mean(dim=(1, 2, 3)).sum()

    return error(rec_all, whole) + error(rec_small, whole) + error(rec_part, piece)


@dataclass
class Draws:
    """All that is random in one iteration."""
    z: torch.Tensor
    noise: list
    real: Augmentation
    fake_big: Augmentation
    fake_small: Augmentation
    part: int
    margin_real: torch.Tensor
    margin_fake: torch.Tensor


def random_augmentation(batch, side, device):
    def uniform():
        return torch.rand(batch, device=device)

    def shift():
        return torch.randint(-max_shift(side), max_shift(side) + 1, (batch,), device=device)

    return Augmentation(uniform(), uniform(), uniform(), shift(), shift())


def random_draws(generator, batch, nz=256, device="cpu"):
    """Noise is left to the generator (None)."""
    return Draws(torch.randn(batch, nz, device=device), None,
                 random_augmentation(batch, generator.size, device),
                 random_augmentation(batch, generator.size, device),
                 random_augmentation(batch, generator.small, device),
                 int(torch.randint(0, 4, ())),
                 torch.rand(50 * batch, device=device), torch.rand(50 * batch, device=device))


def adam(network, lr=2e-4):
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), eps=1e-8)


@torch.no_grad()
def average(averages, tensors, decay=0.999):
    for a, t in zip(averages, tensors):
        a.mul_(decay).add_(t, alpha=1 - decay)


def train_step(g, d, opt_g, opt_d, averages, x, draws, skip_d_grads=False):
    """One iteration of the published loop; `averages` are the running averages of g's parameters.

    The published loop lets the generator's step compute gradients of d's weights too, and throws them away.
    skip_d_grads=True does not compute them.  Returns the four losses and the mean logits.
    """
    fakes = g(draws.z, draws.noise)
    x = augment(x, draws.real)
    fakes = augment(fakes[0], draws.fake_big), augment(fakes[1], draws.fake_small)

    opt_d.zero_grad()
    logits_real, reconstructions = d(x, draws.part)
    loss_real = hinge_real(logits_real, draws.margin_real)
    loss_rec = reconstruction_loss(reconstructions, x, draws.part)
    (loss_real + loss_rec).backward()

    logits_fake = d([f.detach() for f in fakes])
    loss_fake = hinge_fake(logits_fake, draws.margin_fake)
    loss_fake.backward()
    opt_d.step()

    opt_g.zero_grad()
    if skip_d_grads:
        d.requires_grad_(False)
    loss_g = -d(fakes).mean()
    loss_g.backward()
    if skip_d_grads:
        d.requires_grad_(True)
    opt_g.step()
    average(averages, g.parameters())

    return {"D_real": loss_real, "rec": loss_rec, "D_fake": loss_fake, "G": loss_g,
            "logit_real": logits_real.mean(), "logit_fake": logits_fake.mean()}


# --------------------------------------------------------------------------------------------------------- parameter counts

PARAMETERS = {  # side: generator, discriminator, its decoders; at ngf = ndf = 64, nz = 256
    32: (25_802_884, 8_672_768, None),
    64: (28_211_460, 10_701_568, 2_809_152),
    128: (28_959_814, 11_319_584, 3_031_104),
    256: (29_127_846, 11_526_160, 3_139_488),
    512: (29_174_392, 11_526_496, 3_139_488),
    1024: (29_176_512, 11_528_192, 3_139_488),
}


def check_parameter_counts():
    def count(*networks):
        return sum(p.numel() for n in networks for p in n.parameters())

    for size, (expected_g, expected_d, expected_decoders) in PARAMETERS.items():
        g, d = Generator(size), Discriminator(size)
        assert count(g) == expected_g, (size, count(g), expected_g)
        assert count(d) == expected_d, (size, count(d), expected_d)
        decoders = count(d.decoder_big, d.decoder_part, d.decoder_small)
        assert expected_decoders in (None, decoders), (size, decoders, expected_decoders)


if __name__ == "__main__":
    check_parameter_counts()
    print("parameter counts agree")
