"""Baselines of benchmarks/heads.py: the bare matrix products of a TACMA epoch, and a plain training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avel.stores.features import FeatureCache

Step = Callable[[], None]


def linear_products(rows: int, width: int, out: int, *, of_data: bool, dtype: torch.dtype) -> Step:
    """Returns a Linear's products: forward, weight gradient and, unless its input is data, input gradient."""
    x, weight = torch.randn(rows, width, dtype=dtype), torch.randn(out, width, dtype=dtype)
    gradient = torch.randn(rows, out, dtype=dtype)
    results = [torch.empty(shape, dtype=dtype) for shape in ((rows, out), (out, width), (rows, width))]

    def step() -> None:
        torch.mm(x, weight.t(), out=results[0])
        torch.mm(gradient.t(), x, out=results[1])
        if not of_data:
            torch.mm(gradient, weight, out=results[2])

    return step


def attention_products(clips: int, m: int, k: int, n: int, dtype: torch.dtype) -> Step:
    """Returns a batched product of (m, k) by (k, n) with both of its gradients."""
    left, right = torch.randn(clips, m, k, dtype=dtype), torch.randn(clips, k, n, dtype=dtype)
    gradient = torch.randn(clips, m, n, dtype=dtype)
    results = [torch.empty(clips, *shape, dtype=dtype) for shape in ((m, n), (m, k), (k, n))]

    def step() -> None:
        torch.bmm(left, right, out=results[0])
        torch.bmm(gradient, right.transpose(1, 2), out=results[1])
        torch.bmm(left.transpose(1, 2), gradient, out=results[2])

    return step


def bare_products(clips: int, segments: int, width: int, classes: int, dtype: torch.dtype) -> Step:
    """Returns only the matrix products of one step of TACMA as Eq. 3-8 write it (d_h = d_e = width)."""
    rows = clips * segments
    of_data = [linear_products(rows, width, width, of_data=True, dtype=dtype) for _ in range(4)]
    layers = [(width, width), (width, width), (width, 128), (128, 64), (64, classes)]
    hidden = [linear_products(rows, *layer, of_data=False, dtype=dtype) for layer in layers]
    shapes = [(segments, width, segments), (segments, segments, width), (segments, segments, width)]
    attention = [attention_products(clips, *shape, dtype) for shape in shapes]

    def step() -> None:
        for product in (*of_data, *hidden, *attention):
            product()

    return step


class PlainTACMA(nn.Module):
    """TACMA as one would first write it: separate queries and keys, Eq. 3-8 line by line."""

    def __init__(self, width: int, classes: int, theta: float = 0.03) -> None:
        super().__init__()
        self.theta, self.width = theta, width
        self.query_a, self.query_v, self.value_a, self.value_v, self.out_a, self.out_v = (
            nn.Linear(width, width, bias=False) for _ in range(6)
        )
        self.norm_a, self.norm_v = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes)
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Computes scores: (B, T, D), (B, T, D) -> (B, T, K)."""
        scores = self.query_a(audio) @ self.query_v(visual).transpose(1, 2) / math.sqrt(self.width)
        scores = torch.relu(scores)
        steps = torch.arange(audio.shape[1])
        away = (steps[:, None] - steps).abs()
        fused = []
        for raw, value, residual in (
            (scores.transpose(1, 2), self.value_a(audio), visual),
            (scores, self.value_v(visual), audio),
        ):
            attention = torch.softmax(raw, -1)
            weighted = torch.exp(-self.theta * away / attention.clamp_min(1e-6)) * attention
            fused.append(weighted @ value + residual)
        logits: Tensor = self.mlp(self.norm_v(self.out_v(fused[0])) + self.norm_a(self.out_a(fused[1])))
        return logits


class RowDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A split's rows one by one, features held in memory, as published code of the field does."""

    def __init__(self, path: Path, split: str) -> None:
        cache = FeatureCache.open(path)
        chosen = cache.places_of_split(split)
        self.video, self.label = cache.samples.video[chosen], cache.labels()[chosen]
        self.audio, self.visual = cache.f_a, cache.f_v

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        video = self.video[place]
        label = torch.from_numpy(self.label[place])
        return torch.from_numpy(self.audio[video]), torch.from_numpy(self.visual[video]), label


class PlainLoop:
    """A loop over epochs with a DataLoader, torch's plain Adam, and the accuracy of each step on the way."""

    def __init__(self, path: Path, width: int, classes: int, workers: int, batch_size: int = 128) -> None:
        rows = RowDataset(path, "train")
        self.loader = DataLoader(
            rows, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.model = PlainTACMA(width, classes)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.criterion = nn.CrossEntropyLoss()

    def epoch(self) -> None:
        """Trains on every row once."""
        self.model.train()
        losses, right = [], []
        for audio, visual, label in self.loader:
            self.optimizer.zero_grad()
            scores = self.model(audio, visual)
            loss = self.criterion(scores.permute(0, 2, 1), label)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            right.append((scores.detach().numpy().argmax(-1) == label.numpy()).mean())
