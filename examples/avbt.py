"""AV-BT on one page: Section 3.2 of Ran et al. 2022 (Appl. Sci. 12, 12622), in its symbols and numbers.

    python examples/avbt.py    trains a small one on made-up clips for some seconds and prints the loss

B clips, T segments (10), N frames a segment (16), d features of an embedding. `avel pretrain` does the same
with real clips; tests/examples/test_avbt.py holds the two to the same numbers.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

LAMBDA = 5e-3  # Eq. 2
EPOCHS, WARMUP_EPOCHS, BATCH = 100, 10, 128  # Section 4.1, Optimization
LR_WEIGHTS, LR_BIASES = 0.2, 0.0048  # of Barlow Twins [23], for a batch of 256
LR_SCALE = 2e-4  # for the pretrained CNNs alone; with it, random weights would hardly move
MOMENTUM, TRUST, WEIGHT_DECAY = 0.9, 1e-3, 1e-6  # LARS [55], as in [23]


def augmentation(size: int = 224) -> v2.Transform:
    """Returns crop and blur, Table 5's best row; one draw for all frames (T, 3, H, W) in [0, 1] of a clip."""
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))])])


def preprocess(frames: Tensor, augment: v2.Transform) -> Tensor:
    """Returns V, a random frame of each segment, augmented: (B, T, N, 3, H, W) -> (B, T, 3, size, size)."""
    B, T, N = frames.shape[:3]
    chosen = frames[torch.arange(B)[:, None], torch.arange(T), torch.randint(0, N, (B, T))]
    return torch.stack([augment(clip) for clip in chosen])


class Encoder(nn.Module):
    """A CNN and a Bi-LSTM for each modality. The paper's CNNs: VGGish (d_a = 128), ResNet-50 without fc."""

    def __init__(self, audio: nn.Module, visual: nn.Module, d_a: int = 128, d_v: int = 2048) -> None:
        super().__init__()
        self.audio, self.visual = audio, visual
        self.visual_linear = nn.Linear(d_v, 512)  # the paper speaks of 512 features, ResNet-50 has 2048
        self.audio_lstm = nn.LSTM(d_a, 128, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(512, 128, batch_first=True, bidirectional=True)

    def forward(self, A: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f_a, f_v with d_l = 256: (B, T, 96, 64), (B, T, 3, 224, 224) -> two (B, T, d_l)."""
        cnn_a = self.audio(A.flatten(0, 1)[:, None]).unflatten(0, A.shape[:2])
        cnn_v = self.visual_linear(self.visual(V.flatten(0, 1))).unflatten(0, V.shape[:2])
        return self.audio_lstm(cnn_a)[0], self.visual_lstm(cnn_v)[0]


def projector(first: int = 2048, second: int = 4096, d: int = 4096, d_l: int = 256) -> nn.Sequential:
    """Returns three layers, the same ones for both modalities: (n, d_l) -> (n, d)."""
    return nn.Sequential(
        *(nn.Linear(d_l, first, bias=False), nn.BatchNorm1d(first), nn.ReLU()),
        *(nn.Linear(first, second, bias=False), nn.BatchNorm1d(second), nn.ReLU()),
        nn.Linear(second, d, bias=False),
    )


def cross_correlation(Z_a: Tensor, Z_v: Tensor) -> Tensor:
    """Returns C of Eq. 1, averaged over clips: (B, T, d), (B, T, d) -> (d, d)."""
    Z_a, Z_v = (Z - Z.mean(1, keepdim=True) for Z in (Z_a, Z_v))
    Z_a, Z_v = (Z / (Z.square().sum(1, keepdim=True) + 1e-8).sqrt() for Z in (Z_a, Z_v))
    # Algorithm 1 takes B products (d, T) (T, d), then their mean; one product over B T segments is the same
    return Z_a.flatten(0, 1).T @ Z_v.flatten(0, 1) / len(Z_a)


def avbt_loss(C: Tensor) -> Tensor:
    """Computes Eq. 2: (d, d) -> scalar."""
    invariance = (1 - C.diagonal()).square().sum()
    redundancy_reduction = C.square().sum() - C.diagonal().square().sum()
    return invariance + LAMBDA * redundancy_reduction


class LARS:
    """SGD with steps in proportion to a weight's norm; biases and norm layers have neither that nor decay."""

    def __init__(self, lr_scale: dict[nn.Parameter, float], batch: int = BATCH) -> None:
        self.lr_scale, self.batch = lr_scale, batch
        self.momenta = {w: torch.zeros_like(w) for w in lr_scale}

    @torch.no_grad()
    def step(self, fraction: float) -> None:
        """Takes one step at a fraction of the highest learning rates."""
        for w, m in self.momenta.items():
            assert w.grad is not None
            g, lr = w.grad, LR_BIASES
            if w.ndim > 1:
                g, lr = g + WEIGHT_DECAY * w, LR_WEIGHTS
                g = g * (TRUST * w.norm() / g.norm())
            w.sub_(fraction * self.lr_scale[w] * lr * self.batch / 256 * m.mul_(MOMENTUM).add_(g))


def lr_fraction(step: int, epoch_steps: int, epochs: int = EPOCHS, warmup: int = WARMUP_EPOCHS) -> float:
    """Returns the fraction of the highest learning rate: a linear warm-up, then a cosine down to a tenth."""
    if step < warmup * epoch_steps:
        return (step + 1) / (warmup * epoch_steps)
    progress = (step - warmup * epoch_steps) / ((epochs - warmup) * epoch_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


def made_up_clips(clips: int, T: int = 10, N: int = 2) -> tuple[Tensor, Tensor]:
    """Returns log-mel spectrograms whose three bands are as loud as the frames are red, green and blue."""
    levels = torch.rand(clips, T, 3)
    bands = nn.functional.pad(levels.repeat_interleave(21, -1), (0, 1))[:, :, None]
    frames = levels[:, :, None, :, None, None] + 0.1 * torch.randn(clips, T, N, 3, 20, 20)
    return bands + 0.1 * torch.randn(clips, T, 96, 64), frames.clamp(0, 1)


def main(epochs: int = 10, warmup: int = 1, clips: int = 256) -> None:
    """Runs Algorithm 1, with small CNNs and a narrow projector in the place of the paper's."""
    torch.manual_seed(0)
    audio = nn.Sequential(nn.Conv2d(1, 16, (12, 64), stride=12), nn.ReLU(), nn.Flatten())
    visual = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.ReLU(), nn.Flatten())
    encoder, project = Encoder(audio, visual, d_a=128, d_v=64), projector(64, 64, 64)
    lr_scale = dict.fromkeys([*encoder.parameters(), *project.parameters()], 1.0)
    lr_scale |= dict.fromkeys([*audio.parameters(), *visual.parameters()], LR_SCALE)
    optimizer = LARS(lr_scale)
    spectrograms, frames = made_up_clips(clips)
    augment = augmentation(size=16)
    for step in range(epochs * (clips // BATCH)):
        chosen = torch.randperm(clips)[:BATCH]
        f_a, f_v = encoder(spectrograms[chosen], preprocess(frames[chosen], augment))
        Z_a, Z_v = (project(f.flatten(0, 1)).unflatten(0, f.shape[:2]) for f in (f_a, f_v))
        C = cross_correlation(Z_a, Z_v)
        loss = avbt_loss(C)
        encoder.zero_grad()
        project.zero_grad()
        loss.backward()
        optimizer.step(lr_fraction(step, clips // BATCH, epochs, warmup))
        print(f"step {step + 1:2}  loss {loss:6.3f}  mean of C's diagonal {C.diagonal().mean():.3f}")


if __name__ == "__main__":
    main()
