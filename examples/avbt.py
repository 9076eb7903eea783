"""AV-BT on one page: Section 3.2 of Ran et al. 2022 (Appl. Sci. 12, 12622), in its symbols and numbers.

    python examples/avbt.py    trains a small one on made-up clips for some seconds and prints the loss

B clips, T segments (10), N frames a segment (16), d numbers in an embedding. `avel pretrain` does the same
with real clips; tests/examples/test_avbt.py holds the two to the same numbers.
"""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAMBDA = 5e-3  # Eq. 2
EPOCHS, WARMUP_EPOCHS, BATCH = 100, 10, 128  # Section 4.1, Optimization
LR_WEIGHTS, LR_BIASES = 0.2, 0.0048  # of Barlow Twins [23], for a batch of 256
LR_SCALE = 2e-4  # for the pretrained CNNs alone; with it, random weights would hardly move
MOMENTUM, TRUST, WEIGHT_DECAY = 0.9, 1e-3, 1e-6  # LARS [55], as in [23]
AREA, ASPECT, SIGMA = (0.08, 1.0), (3 / 4, 4 / 3), (0.1, 2.0)  # as in [23]
BLUR_PROBABILITY = 0.5  # not in the paper; [23] has 1 for one view and 0.1 for the other


def preprocess(frames: Tensor, size: int = 224) -> Tensor:
    """Returns V, a random frame of each segment, augmented: (B, T, N, 3, H, W) -> (B, T, 3, size, size)."""
    B, T, N = frames.shape[:3]
    chosen = frames[torch.arange(B)[:, None], torch.arange(T), torch.randint(0, N, (B, T))]
    sigmas = [random.uniform(*SIGMA) if random.random() < BLUR_PROBABILITY else 0.0 for _ in range(B)]
    boxes = [random_box(*frames.shape[-2:]) for _ in range(B)]
    return torch.stack([augment(*each, size) for each in zip(chosen, boxes, sigmas, strict=True)])


def random_box(H: int, W: int) -> tuple[int, int, int, int]:
    """Draws a crop: top, left, height, width, in pixels."""
    while True:
        area, aspect = random.uniform(*AREA), math.exp(random.uniform(*map(math.log, ASPECT)))
        h, w = round(H * math.sqrt(area / aspect)), round(W * math.sqrt(area * aspect))
        if 0 < h <= H and 0 < w <= W:
            return random.randint(0, H - h), random.randint(0, W - w), h, w


def augment(frames: Tensor, box: tuple[int, int, int, int], sigma: float, size: int) -> Tensor:
    """Crops and blurs (Table 5's best row) all frames of a clip alike: (T, 3, H, W) -> (T, 3, size, size)."""
    top, left, h, w = box
    part = frames[..., top : top + h, left : left + w]
    planes = F.interpolate(part, (size, size), mode="bicubic", antialias=True).flatten(0, 1)[:, None]
    gaussian = torch.exp(-0.5 * (torch.arange(-11, 12) / max(sigma, 1e-3)).square())
    kernel = torch.outer(gaussian, gaussian)[None, None]
    inside = F.conv2d(torch.ones_like(planes), kernel, padding=11)  # weight of what lies in the frame
    blurred = F.conv2d(planes, kernel, padding=11) / inside
    return blurred.view(-1, 3, size, size).clamp(0, 1)


class Encoder(nn.Module):
    """A CNN and a Bi-LSTM of one modality. The paper's CNNs: VGGish (width 128), ResNet-50 without fc.

    The paper speaks of 512 visual features, ResNet-50 has 2048: a Linear layer follows it in `cnn`.
    """

    def __init__(self, cnn: nn.Module, width: int) -> None:
        super().__init__()
        self.cnn, self.lstm = cnn, nn.LSTM(width, 128, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns f_a or f_v, d_l = 256: (B, T, 1, 96, 64) or (B, T, 3, 224, 224) -> (B, T, d_l)."""
        f: Tensor = self.lstm(self.cnn(x.flatten(0, 1)).unflatten(0, x.shape[:2]))[0]
        return f


def projector(first: int = 2048, second: int = 4096, d: int = 4096, d_l: int = 256) -> nn.Sequential:
    """Returns three layers, the same ones for both modalities: (n, d_l) -> (n, d)."""
    one = nn.Linear(d_l, first, bias=False), nn.BatchNorm1d(first), nn.ReLU()
    two = nn.Linear(first, second, bias=False), nn.BatchNorm1d(second), nn.ReLU()
    return nn.Sequential(*one, *two, nn.Linear(second, d, bias=False))


def cross_correlation(Z_a: Tensor, Z_v: Tensor) -> Tensor:
    """Returns C of Eq. 1, averaged over clips: (B, T, d), (B, T, d) -> (d, d)."""
    Z_a, Z_v = (Z - Z.mean(1, keepdim=True) for Z in (Z_a, Z_v))
    Z_a, Z_v = (Z / (Z.square().sum(1, keepdim=True) + 1e-8).sqrt() for Z in (Z_a, Z_v))
    # Algorithm 1 takes B products (d, T) (T, d), then their mean; one product over B T segments is the same
    return Z_a.flatten(0, 1).T @ Z_v.flatten(0, 1) / len(Z_a)


def avbt_loss(C: Tensor) -> Tensor:
    """Computes Eq. 2: (d, d) -> scalar."""
    diagonal = C.diagonal()
    return (1 - diagonal).square().sum() + LAMBDA * (C.square().sum() - diagonal.square().sum())


@torch.no_grad()
def lars(momenta: dict[nn.Parameter, Tensor], lr_scale: float, fraction: float, batch: int = BATCH) -> None:
    """Updates parameters: scales the steps of weights, but not of biases and norm layers, to their norm."""
    for w, m in momenta.items():
        assert w.grad is not None
        g, lr = w.grad, LR_BIASES
        if w.ndim > 1:
            g, lr = g + WEIGHT_DECAY * w, LR_WEIGHTS
            g = g * (TRUST * w.norm() / g.norm())
        w.sub_(fraction * lr_scale * lr * batch / 256 * m.mul_(MOMENTUM).add_(g))


def lr_fraction(step: int, epoch_steps: int, epochs: int = EPOCHS, warmup: int = WARMUP_EPOCHS) -> float:
    """Returns the fraction of the highest learning rate: a linear warm-up, then a cosine down to a tenth."""
    if step < warmup * epoch_steps:
        return (step + 1) / (warmup * epoch_steps)
    progress = (step - warmup * epoch_steps) / ((epochs - warmup) * epoch_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


def main(epochs: int = 10, warmup: int = 1, clips: int = 256) -> None:
    """Runs Algorithm 1 with small CNNs and a narrow projector, on clips whose audio follows their colours."""
    torch.manual_seed(0)
    random.seed(0)
    levels = torch.rand(clips, 10, 3)  # of red, green and blue, and of three bands of the log-mel
    bands = F.pad(levels.repeat_interleave(21, -1), (0, 1))[:, :, None, None]
    A = bands + 0.1 * torch.randn(clips, 10, 1, 96, 64)
    frames = (levels[:, :, None, :, None, None] + 0.1 * torch.randn(clips, 10, 2, 3, 20, 20)).clamp(0, 1)
    cnns = nn.Conv2d(1, 16, (12, 64), stride=12), nn.Conv2d(3, 32, 8, stride=8)
    encoder_a, encoder_v = (Encoder(nn.Sequential(cnn, nn.ReLU(), nn.Flatten()), 128) for cnn in cnns)
    network = nn.ModuleList([encoder_a, encoder_v, projector(64, 64, 64)])
    momenta = {w: torch.zeros_like(w) for w in network.parameters()}
    for step in range(epochs * (clips // BATCH)):
        chosen = torch.randperm(clips)[:BATCH]
        f_a, f_v = encoder_a(A[chosen]), encoder_v(preprocess(frames[chosen], size=16))
        Z_a, Z_v = (network[2](f.flatten(0, 1)).unflatten(0, f.shape[:2]) for f in (f_a, f_v))
        C = cross_correlation(Z_a, Z_v)
        loss = avbt_loss(C)
        network.zero_grad()
        loss.backward()
        lars(momenta, 1.0, lr_fraction(step, clips // BATCH, epochs, warmup))
        print(f"step {step + 1:2}  loss {loss:6.3f}  mean of C's diagonal {C.diagonal().mean():.3f}")


if __name__ == "__main__":
    main()
