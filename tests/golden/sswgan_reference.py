"""SSW-GAN in plain PyTorch, from docs/sswgan.md: the generators and discriminators of its stages, and one training iteration.

The yardstick for kiln's own (make_sswgan_golden.py) and for its speed (bench/sswgan_torch.py). Written to be read; nothing is folded or
fused. Clips are [n, c, t, h, w]. State-dict names are kiln's tensor names; v is not kept, since an iteration makes it from u.
"""

import torch
import torch.nn.functional as F
from torch import nn

from biggan_reference import CondNorm, Conv, DownBlock, Linear, Spectral, up


def frames_of(x):
    n, c, t, h, w = x.shape
    return x.transpose(1, 2).reshape(n * t, c, h, w)


def clip_of(x, t):
    nt, c, h, w = x.shape
    return x.reshape(nt // t, t, c, h, w).transpose(1, 2)


def view(x, stride, shrink):
    """Every stride-th frame from the first on, means of shrink x shrink pixels."""
    return F.avg_pool3d(x[:, :, ::stride], (1, shrink, shrink))


def enlarge(c, rho, scale):
    """Linear in time with frame i at rho i, bilinear in space."""
    t = c.shape[2]
    if rho > 1:
        r = torch.repeat_interleave(c, rho, dim=2)
        r = torch.cat([r] + [r[:, :, -1:]] * (rho - 1), dim=2)
        c = sum(r[:, :, i:i + rho * t] for i in range(rho)) / rho
    return clip_of(F.interpolate(frames_of(c), scale_factor=scale, mode="bilinear", align_corners=False), c.shape[2])


class ClipConv(Spectral):
    """3-D convolution; zeros around space, around time zeros or the end frames again."""

    def __init__(self, c_in, c_out, replicate):
        super().__init__((c_out, c_in, 3, 3, 3), c_out)
        bound = (c_in * 9) ** -0.5
        self.bias = nn.Parameter(torch.empty(c_out).uniform_(-bound, bound))
        self.mode = "replicate" if replicate else "constant"

    def forward(self, x):
        return F.conv3d(F.pad(x, (0, 0, 0, 0, 1, 1), mode=self.mode), self.normalised(), self.bias, padding=(0, 1, 1))


class ClipNorm(CondNorm):
    """Statistics over all frames of all clips, gain and bias of a clip's condition for all its frames."""

    def forward(self, x, y):
        t = x.shape[2]
        frames = F.batch_norm(frames_of(x), self.running_mean, self.running_var, training=self.training, momentum=0.1, eps=self.eps)
        return clip_of(frames, t) * (1 + self.gain(y)[:, :, None, None, None]) + self.bias(y)[:, :, None, None, None]


class Gru(nn.Module):
    def __init__(self, c, act=torch.relu):
        super().__init__()
        self.input, self.gates, self.candidate = Spectral((3 * c, c, 3, 3), 3 * c), Spectral((2 * c, c, 3, 3), 2 * c), Spectral((c, c, 3, 3), c)
        self.bias = nn.Parameter(torch.zeros(3 * c))
        self.c, self.act = c, act

    def forward(self, x, t):
        """x: a list of t pictures, or one for all."""
        w, gates, candidate = self.input.normalised(), self.gates.normalised(), self.candidate.normalised()
        if isinstance(x, torch.Tensor):
            x = [F.conv2d(x, w, self.bias, padding=1)] * t
        else:
            x = [F.conv2d(frame, w, self.bias, padding=1) for frame in x]
        h, out = torch.zeros_like(x[0][:, :self.c]), []
        for i in range(t):
            r, u = torch.sigmoid(x[i][:, :2 * self.c] + F.conv2d(h, gates, padding=1)).chunk(2, dim=1)
            k = self.act(x[i][:, 2 * self.c:] + F.conv2d(r * h, candidate, padding=1))
            h = u * h + (1 - u) * k
            out.append(h)
        return torch.stack(out, dim=2)


class FrameBlock(nn.Module):
    def __init__(self, c_in, c_out, grow, norm):
        super().__init__()
        self.conv1, self.conv2 = Conv(c_in, c_out, 3), Conv(c_out, c_out, 3)
        self.conv_sc = Conv(c_in, c_out, 1) if grow or c_in != c_out else None
        self.bn1, self.bn2 = norm(c_in), norm(c_out)
        self.grow = up if grow else (lambda x: x)

    def forward(self, x, y):
        t = x.shape[2]
        h = self.conv1(self.grow(frames_of(F.relu(self.bn1(x, y)))))
        h = self.conv2(frames_of(F.relu(self.bn2(clip_of(h, t), y))))
        s = self.grow(frames_of(x))
        return clip_of(h + (self.conv_sc(s) if self.conv_sc is not None else s), t)


class ClipBlock(nn.Module):
    def __init__(self, c_in, c_out, rho, scale, norm):
        super().__init__()
        self.conv1, self.conv2 = ClipConv(c_in, c_out, True), Conv(c_out, c_out, 3)
        self.conv_sc = Conv(c_in, c_out, 1) if c_in != c_out or rho * scale > 1 else None
        self.bn1, self.bn2 = norm(c_in), norm(c_out)
        self.factors = (rho, scale, scale)

    def resize(self, x):
        return x if self.factors == (1, 1, 1) else F.interpolate(x, scale_factor=self.factors, mode="nearest")

    def forward(self, x, y):
        h = self.conv1(self.resize(F.relu(self.bn1(x, y))))
        t = h.shape[2]
        h = self.conv2(frames_of(F.relu(self.bn2(h, y))))
        s = frames_of(self.resize(x))
        return clip_of(h + (self.conv_sc(s) if self.conv_sc is not None else s), t)


class Output(nn.Module):
    def __init__(self, c, conv):
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(c, eps=1e-5), conv

    def forward(self, x):
        h = F.relu(self.bn(frames_of(x)))
        return self.conv(clip_of(h, x.shape[2])) if isinstance(self.conv, ClipConv) else clip_of(self.conv(h), x.shape[2])


class FirstGenerator(nn.Module):
    def __init__(self, side, ch, classes, z, shared_dim):
        super().__init__()
        self.z, self.width = z, 8 * ch
        self.shared = nn.Parameter(torch.randn(classes, shared_dim)) if classes > 1 else None
        condition = z + (shared_dim if classes > 1 else 0)

        def norm(c):
            return ClipNorm(c, condition, 0, 1e-5)

        self.linear = Linear(condition, 16 * self.width)
        groups = (side // 4).bit_length() - 1
        self.groups, c_in = nn.ModuleList(), self.width
        for i in range(groups):
            c_out = ch * min(8, 2 << (groups - 1 - i))
            self.groups.append(nn.ModuleDict({"gru": Gru(c_in), "keep": FrameBlock(c_in, c_in, False, norm), "grow": FrameBlock(c_in, c_out, True, norm)}))
            c_in = c_out
        self.output = Output(c_in, Conv(c_in, 3, 3))

    def forward(self, z, labels, frames):
        y = torch.cat([z, self.shared[labels]], dim=1) if self.shared is not None else z
        x = self.linear(y).reshape(len(z), self.width, 4, 4)
        for g in self.groups:
            x = g["gru"](x if x.dim() == 4 else list(x.unbind(2)), frames)
            x = g["grow"](g["keep"](x, y), y)
        return torch.tanh(self.output(x))


class UpsamplingGenerator(nn.Module):
    def __init__(self, rho, scale, ch, classes, z, shared_dim, residual=True):
        super().__init__()
        self.z, self.rho, self.scale, self.residual = z, rho, scale, residual
        self.shared = nn.Parameter(torch.randn(classes, shared_dim)) if classes > 1 else None
        condition = z + (shared_dim if classes > 1 else 0)

        def norm(c):
            return ClipNorm(c, condition, 0, 1e-5)

        steps = 2 if scale == 4 else 1
        c_in = ch * (2 << steps)
        self.stem, self.blocks = ClipConv(3, c_in, True), nn.ModuleList()
        for i in range(steps):
            width = ch * (2 << (steps - i))
            self.blocks += [ClipBlock(c_in, width, 1, 1, norm), ClipBlock(width, width // 2, rho if i == 0 else 1, 2, norm)]
            c_in = width // 2 + 3
        self.output = Output(c_in, ClipConv(c_in, 3, True))

    def forward(self, z, labels, condition):
        y = torch.cat([z, self.shared[labels]], dim=1) if self.shared is not None else z
        x, scale = self.stem(condition), 1
        for i in range(0, len(self.blocks), 2):
            x, scale = self.blocks[i + 1](self.blocks[i](x, y), y), 2 * scale
            large = enlarge(condition, self.rho, scale)
            x = torch.cat([x, large], dim=1)
        x = torch.tanh(self.output(x))
        return x + large if self.residual else x


# -------------------------------------------------------------------------------------------------------------- discriminators

def critic_plan(side):
    plan, c_in, width = [], 0, 1
    while side > 4:
        plan.append((c_in, width, True))
        c_in, width, side = width, min(2 * width, 16), side // 2
    return plan + [(c_in, width, False)]


class ClipDownBlock(nn.Module):
    def __init__(self, c_in, c_out, first, pool):
        super().__init__()
        self.conv1, self.conv2 = ClipConv(c_in, c_out, False), ClipConv(c_out, c_out, False)
        self.conv_sc = Conv(c_in, c_out, 1) if pool or c_in != c_out else None
        self.first, self.pool = first, pool

    def forward(self, x):
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        factors = (2 if x.shape[2] % 2 == 0 else 1, 2, 2)
        if self.pool:
            h, x = F.avg_pool3d(h, factors), F.avg_pool3d(x, factors)
        return h + (x if self.conv_sc is None else clip_of(self.conv_sc(frames_of(x)), x.shape[2]))


class Embed(Spectral):
    def __init__(self, classes, c):
        super().__init__((classes, c), classes)


class Critic(nn.Module):
    """D_S of frames where clips = 0; D_T and D_M with their first two blocks of clips."""

    def __init__(self, side, channels, ch, classes, clips):
        super().__init__()
        if clips:
            self.clips = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for i, (c_in, c_out, pool) in enumerate(critic_plan(side)):
            c_in = c_in * ch if c_in else channels
            if i < clips:
                self.clips.append(ClipDownBlock(c_in, c_out * ch, i == 0, pool))
            else:
                self.blocks.append(DownBlock(c_in, c_out * ch, i == 0, pool))
        self.linear = Linear(c_out * ch, 1)
        self.embed = Embed(classes, c_out * ch) if classes > 1 else None

    def forward(self, x, labels=None):
        for block in self.clips if hasattr(self, "clips") else []:
            x = block(x)
        t = x.shape[2]
        x = frames_of(x)
        for block in self.blocks:
            x = block(x)
        h = F.relu(x).sum(dim=(2, 3)).reshape(-1, t, x.shape[1]).sum(dim=1)
        score = self.linear(h)[:, 0]
        return score if self.embed is None else score + (h * self.embed.normalised()[labels]).sum(dim=1)


class Critics(nn.Module):
    def __init__(self, side, ch, classes, low_side=0):
        super().__init__()
        self.spatial, self.temporal = Critic(side, 3, ch, classes, 0), Critic(side // 2, 3, ch, classes, 2)
        self.matching = Critic(low_side, 6, ch, 0, 2) if low_side else None


# --------------------------------------------------------------------------------------------------------------------- training

def adam(network, lr, eps=1e-6):
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.0, 0.999), eps=eps)


def scores(d, clips, labels, frames, condition=None, seen=None):
    """Of all discriminators, with `frames` random frames for the spatial one."""
    n, t = clips.shape[0], clips.shape[2]
    pick = torch.rand(n, t, device=clips.device).argsort(dim=1)[:, :frames].sort(dim=1).values
    some = torch.stack([clips[i, :, pick[i]] for i in range(n)])
    out = [d.spatial(some, labels), d.temporal(F.avg_pool3d(clips, (1, 2, 2)), labels)]
    if condition is not None:
        both = torch.cat([condition, seen], dim=1)
        out.append(d.matching(both + 0.05 * torch.randn_like(both)))
    return out


def iteration(g, d, opt_g, opt_d, make, real, labels, frames, condition=None):
    """One D step on real and generated clips in one forward, one G step. make() -> clips, labels; condition: of the generated ones."""
    n = len(real)
    with torch.no_grad():
        fake, fake_labels = make()
    both, y = torch.cat([real, fake]), torch.cat([labels, fake_labels])
    seen = view(both, g.rho, g.scale) if condition is not None else None
    conditions = torch.cat([seen[:n], condition]) if condition is not None else None
    loss = sum(F.relu(1 - s[:n]).mean() + F.relu(1 + s[n:]).mean() for s in scores(d, both, y, frames, conditions, seen))
    opt_d.zero_grad()
    loss.backward()
    opt_d.step()
    for p in d.parameters():
        p.requires_grad_(False)
    fake, fake_labels = make()
    loss = -sum(s.mean() for s in scores(d, fake, fake_labels, frames, condition, view(fake, g.rho, g.scale) if condition is not None else None))
    opt_g.zero_grad()
    loss.backward()
    opt_g.step()
    for p in d.parameters():
        p.requires_grad_(True)
    return loss.detach()
