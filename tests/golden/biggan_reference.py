"""BigGAN and BigGAN-deep in plain PyTorch: the networks and one training iteration.

The yardstick for kiln's own (make_biggan_golden.py) and for its speed (bench/biggan_torch.py). Written to be read; nothing is folded
or fused. State-dict names are kiln's tensor names; v is not kept, since an iteration makes it from u.

Run by itself it checks parameter counts against the published widths.
"""

import torch
import torch.nn.functional as F
from torch import nn

G_WIDTHS = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1),
            512: (16, 16, 8, 8, 4, 2, 1, 1)}
D_WIDTHS = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16),
            512: (1, 1, 2, 4, 8, 8, 16, 16)}


def pooled(size, stages):
    """Which stages halve the side."""
    return [i < 2 for i in range(stages)] if size == 32 else [i < stages - 1 for i in range(stages)]


# ------------------------------------------------------------------------------------------------------ spectral normalisation

class Spectral(nn.Module):
    """W / sigma. One power iteration in every forward; its u is kept in training mode only."""

    def __init__(self, shape, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_buffer("u", torch.randn(rows))
        nn.init.orthogonal_(self.weight)

    def normalised(self):
        w = self.weight.reshape(self.weight.shape[0], -1)
        with torch.no_grad():
            v = F.normalize(w.t() @ self.u, dim=0, eps=1e-12)
            u = F.normalize(w @ v, dim=0, eps=1e-12)
            if self.training:
                self.u.copy_(u)
        return self.weight / (u @ w @ v)


class Conv(Spectral):
    def __init__(self, c_in, c_out, kernel, bias=True):
        super().__init__((c_out, c_in, kernel, kernel), c_out)
        bound = (c_in * kernel * kernel) ** -0.5
        self.bias = nn.Parameter(torch.empty(c_out).uniform_(-bound, bound)) if bias else None

    def forward(self, x):
        return F.conv2d(x, self.normalised(), self.bias, padding=self.weight.shape[2] // 2)


class Linear(Spectral):
    def __init__(self, c_in, c_out, bias=True):
        super().__init__((c_out, c_in), c_out)
        self.bias = nn.Parameter(torch.empty(c_out).uniform_(-c_in**-0.5, c_in**-0.5)) if bias else None

    def forward(self, x):
        return F.linear(x, self.normalised(), self.bias)


# --------------------------------------------------------------------------------------------------------------------- blocks

class CondNorm(nn.Module):
    """Batch norm whose gain and bias come from the condition: by linear layers of a vector, or from tables by label."""

    def __init__(self, channels, condition, classes, eps):
        super().__init__()
        self.eps = eps
        if condition:
            self.gain, self.bias = Linear(condition, channels, bias=False), Linear(condition, channels, bias=False)
        else:
            self.gain = nn.Parameter(torch.randn(max(classes, 1), channels) * 0.02)
            self.bias = nn.Parameter(torch.randn(max(classes, 1), channels) * 0.02)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x, y):
        gain, bias = (self.gain(y), self.bias(y)) if isinstance(self.gain, Linear) else (self.gain[y], self.bias[y])
        x = F.batch_norm(x, self.running_mean, self.running_var, training=self.training, momentum=0.1, eps=self.eps)
        return x * (1 + gain[:, :, None, None]) + bias[:, :, None, None]


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.theta, self.phi = Conv(c, c // 8, 1, bias=False), Conv(c, c // 8, 1, bias=False)
        self.g, self.o = Conv(c, c // 2, 1, bias=False), Conv(c // 2, c, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, c, h, w = x.shape
        theta = self.theta(x).reshape(n, c // 8, h * w)
        phi = F.max_pool2d(self.phi(x), 2).reshape(n, c // 8, h * w // 4)
        g = F.max_pool2d(self.g(x), 2).reshape(n, c // 2, h * w // 4)
        beta = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)
        return self.gamma * self.o((g @ beta.transpose(1, 2)).reshape(n, c // 2, h, w)) + x


def up(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


class UpBlock(nn.Module):
    def __init__(self, c_in, c_out, norm):
        super().__init__()
        self.conv1, self.conv2, self.conv_sc = Conv(c_in, c_out, 3), Conv(c_out, c_out, 3), Conv(c_in, c_out, 1)
        self.bn1, self.bn2 = norm(c_in), norm(c_out)

    def forward(self, x, y):
        h = self.conv1(up(F.relu(self.bn1(x, y))))
        return self.conv2(F.relu(self.bn2(h, y))) + self.conv_sc(up(x))


class DeepUpBlock(nn.Module):
    def __init__(self, c_in, c_out, upsample, norm):
        super().__init__()
        m = c_in // 4
        self.conv1, self.conv2, self.conv3, self.conv4 = Conv(c_in, m, 1), Conv(m, m, 3), Conv(m, m, 3), Conv(m, c_out, 1)
        self.bn1, self.bn2, self.bn3, self.bn4 = norm(c_in), norm(m), norm(m), norm(m)
        self.c_out, self.change = c_out, up if upsample else (lambda x: x)

    def forward(self, x, y):
        h = self.conv1(F.relu(self.bn1(x, y)))
        h = self.conv2(self.change(F.relu(self.bn2(h, y))))
        h = self.conv3(F.relu(self.bn3(h, y)))
        return self.conv4(F.relu(self.bn4(h, y))) + self.change(x[:, :self.c_out])


class DownBlock(nn.Module):
    def __init__(self, c_in, c_out, first, pool):
        super().__init__()
        self.conv1, self.conv2 = Conv(c_in, c_out, 3), Conv(c_out, c_out, 3)
        self.conv_sc = Conv(c_in, c_out, 1) if pool or c_in != c_out else None
        self.first, self.pool = first, pool

    def forward(self, x):
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        s = x if self.conv_sc is None else self.conv_sc(x)
        return F.avg_pool2d(h, 2) + F.avg_pool2d(s, 2) if self.pool else h + s


class DeepDownBlock(nn.Module):
    def __init__(self, c_in, c_out, pool):
        super().__init__()
        m = c_out // 4
        self.conv1, self.conv2, self.conv3, self.conv4 = Conv(c_in, m, 1), Conv(m, m, 3), Conv(m, m, 3), Conv(m, c_out, 1)
        self.conv_sc = Conv(c_in, c_out - c_in, 1) if c_in != c_out else None
        self.pool = pool

    def forward(self, x):
        h = F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(F.relu(x)))))))
        if self.pool:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.conv_sc is not None:
            x = torch.cat([x, self.conv_sc(x)], dim=1)
        return self.conv4(h) + x


# ------------------------------------------------------------------------------------------------------------------- networks

class Generator(nn.Module):
    def __init__(self, size, ch, classes, z, shared=True, shared_dim=128, hierarchical=True, attention=0, deep=False, bn_eps=1e-5):
        super().__init__()
        widths = [w * ch for w in G_WIDTHS[size]]
        slots, embedded = len(widths), shared_dim if shared and classes > 1 else 0
        self.classes, self.deep, self.hierarchical = classes, deep, hierarchical
        self.chunk = z // slots
        self.z = self.chunk * slots if hierarchical and not deep else z
        condition = embedded + (z if deep else self.chunk if hierarchical else 0)
        self.shared = nn.Parameter(torch.randn(classes, shared_dim)) if embedded else None

        def norm(c):
            return CondNorm(c, condition, classes, bn_eps)

        self.linear = Linear(condition if deep else self.chunk if hierarchical else z, 16 * widths[0])
        self.blocks = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(zip(widths, widths[1:])):
            if deep:
                self.blocks += [DeepUpBlock(c_in, c_in, False, norm), DeepUpBlock(c_in, c_out, True, norm)]
            else:
                self.blocks.append(UpBlock(c_in, c_out, norm))
            if 8 << i == attention:
                self.attention, self.attention_after = Attention(c_out), len(self.blocks) - 1
        if not attention:
            self.attention = None
        self.output = nn.ModuleDict({"bn": nn.BatchNorm2d(widths[-1], eps=1e-5), "conv": Conv(widths[-1], 3, 3)})
        self.width = widths[0]

    def forward(self, z, labels):
        if self.classes < 2:
            labels = torch.zeros(len(z), dtype=torch.long, device=z.device)
        embedded = [self.shared[labels]] if self.shared is not None else []
        pieces = z.split(self.chunk, dim=1) if self.hierarchical and not self.deep else [z]
        start = torch.cat(embedded + [z], dim=1) if self.deep else pieces[0]
        x = self.linear(start).reshape(len(z), self.width, 4, 4)
        for i, block in enumerate(self.blocks):
            if self.deep:
                y = start
            elif self.hierarchical:
                y = torch.cat(embedded + [pieces[i + 1]], dim=1)
            else:
                y = embedded[0] if embedded else labels
            x = block(x, y)
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        return torch.tanh(self.output["conv"](F.relu(self.output["bn"](x))))


class Discriminator(nn.Module):
    def __init__(self, size, ch, classes, attention=0, deep=False):
        super().__init__()
        widths = [w * ch for w in D_WIDTHS[size]]
        self.blocks, self.attention, side, c_in = nn.ModuleList(), None, size, 3
        self.stem = None
        if deep:
            self.stem, c_in = Conv(3, widths[0], 3), widths[0]
            stages = [(c, i < 2 if size == 32 else True) for i, c in enumerate(widths[1:])]
        else:
            stages = list(zip(widths, pooled(size, len(widths))))
        for i, (c_out, pool) in enumerate(stages):
            side //= 2 if pool else 1
            if deep:
                self.blocks += [DeepDownBlock(c_in, c_out, pool), DeepDownBlock(c_out, c_out, False)]
            else:
                self.blocks.append(DownBlock(c_in, c_out, i == 0, pool))
            if attention and side == attention and self.attention is None:
                self.attention, self.attention_after = Attention(c_out), len(self.blocks) - 1
            c_in = c_out
        self.linear = Linear(c_in, 1)
        self.embed = Spectral((classes, c_in), classes) if classes > 1 else None

    def forward(self, x, labels):
        if self.stem is not None:
            x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        h = F.relu(x).sum(dim=(2, 3))
        out = self.linear(h)[:, 0]
        return out if self.embed is None else out + (self.embed.normalised()[labels] * h).sum(dim=1)


# ------------------------------------------------------------------------------------------------------------------- training

def adam(network, lr, eps):
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.0, 0.999), eps=eps)


def add_orthogonal_gradient(network, strength, without=()):
    """The public code's: twice, not four times, since its strength counts half."""
    for name, p in network.named_parameters():
        if p.dim() >= 2 and name not in without:
            w = p.detach().reshape(p.shape[0], -1)
            gram = w @ w.t()
            p.grad += (2 * strength * (gram - torch.diag(torch.diag(gram))) @ w).reshape(p.shape)


def d_step(g, d, opt, parts, strength):
    """parts: (real, real labels, z, fake labels) whose gradients are added up."""
    opt.zero_grad()
    real_loss = fake_loss = 0
    for real, real_y, z, fake_y in parts:
        with torch.no_grad():
            fake = g(z, fake_y)
        logits = d(torch.cat([real, fake]), torch.cat([real_y, fake_y]))
        on_real, on_fake = logits.split([len(real), len(fake)])
        a, b = F.relu(1 - on_real).mean() / len(parts), F.relu(1 + on_fake).mean() / len(parts)
        (a + b).backward()
        real_loss, fake_loss = real_loss + a.detach(), fake_loss + b.detach()
    if strength:
        add_orthogonal_gradient(d, strength)
    opt.step()
    return real_loss, fake_loss


def g_step(g, d, opt, parts, strength):
    """parts: (z, labels)."""
    for p in d.parameters():
        p.requires_grad_(False)
    opt.zero_grad()
    total = 0
    for z, y in parts:
        loss = -d(g(z, y), y).mean() / len(parts)
        loss.backward()
        total = total + loss.detach()
    if strength:
        add_orthogonal_gradient(g, strength, without=("shared",))
    opt.step()
    for p in d.parameters():
        p.requires_grad_(True)
    return total


@torch.no_grad()
def average(target, source, decay):
    """The whole state: parameters, running statistics, singular vectors."""
    for name, x in source.state_dict().items():
        if x.is_floating_point():
            target.state_dict()[name].mul_(decay).add_(x, alpha=1 - decay)


def count(network):
    return sum(p.numel() for p in network.parameters())


if __name__ == "__main__":
    for expected, network in (
            (31969540, Generator(64, 64, 1000, 120, attention=32)), (20571842, Discriminator(64, 64, 1000, attention=32)),
            (70433988, Generator(128, 96, 1000, 120, attention=64)), (87982370, Discriminator(128, 96, 1000, attention=64)),
            (4304387, Generator(32, 64, 10, 128, shared=False, hierarchical=False)), (4207361, Discriminator(32, 64, 10))):
        assert count(network) == expected, (count(network), expected)
    print("parameter counts are the published ones")
