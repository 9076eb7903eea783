"""TACMA on one page: Sections 3.3 and 3.4 of Ran et al. 2022 (Appl. Sci. 12, 12622), in the paper's symbols.

    python examples/tacma.py    trains on made-up features for some seconds and prints the accuracy

B clips, T segments (10), C classes: 28 events and, last, background. `avel train-head --head tacma` trains
the same model on cached features; tests/examples/test_tacma.py holds the two to the same numbers.
"""

import math

import torch
from torch import Tensor, nn

THETA = 0.03  # Eq. 4
D_L, D_H, D_E = 256, 256, 256  # d_l is AV-BT's; d_h and d_e are not in the paper
BATCH = 128  # Section 4.1, Optimization


class TACMA(nn.Module):
    """f_a (B, T, d_l), f_v (B, T, d_l) -> pred (B, T, C), before the softmax."""

    def __init__(self, C: int = 29, d_l: int = D_L, d_h: int = D_H, d_e: int = D_E) -> None:
        super().__init__()
        self.W_a1, self.W_v1 = nn.Linear(d_l, d_h, bias=False), nn.Linear(d_l, d_h, bias=False)
        self.W_a2, self.W_v2 = nn.Linear(d_l, d_l, bias=False), nn.Linear(d_l, d_l, bias=False)
        self.W_a3, self.W_v3 = nn.Linear(d_l, d_e, bias=False), nn.Linear(d_l, d_e, bias=False)
        self.norm_a, self.norm_v = nn.LayerNorm(d_e), nn.LayerNorm(d_e)
        self.mlp = nn.Sequential(  # Figure 4
            nn.Linear(d_e, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, C)
        )

    def forward(self, f_a: Tensor, f_v: Tensor) -> Tensor:
        T, d_l = f_a.shape[-2:]

        # Eq. 3, then ReLU and softmax over each row; rows of M_av are audio time, rows of M_va visual time
        M_av = self.W_a1(f_a) @ self.W_v1(f_v).mT / math.sqrt(d_l)
        M_va = M_av.mT
        M_av, M_va = M_av.relu().softmax(-1), M_va.relu().softmax(-1)

        # Eq. 4: a pair of segments weighs less the further apart they are; similar ones lose less
        t = torch.arange(T)
        distance = (t[:, None] - t).abs()  # |i - j|
        W_mv = torch.exp(-THETA * distance / M_av.clamp_min(1e-6))  # a softmax may underflow to 0
        W_ma = torch.exp(-THETA * distance / M_va.clamp_min(1e-6))

        # Eq. 5; rows are not normalised again
        W_av, W_va = W_mv * M_av, W_ma * M_va

        # Eq. 6; the paper prints W_va (f_v W_v2) + f_a, but columns of W_va are audio time: it weighs audio
        V_fuse = W_va @ self.W_a2(f_a) + f_v
        A_fuse = W_av @ self.W_v2(f_v) + f_a

        # Eq. 7
        f_va = self.norm_v(self.W_v3(V_fuse))
        f_av = self.norm_a(self.W_a3(A_fuse))

        # Eq. 8
        pred: Tensor = self.mlp(f_va + f_av)
        return pred


def cross_entropy(pred: Tensor, Y_gt: Tensor) -> Tensor:
    """Computes Eq. 9 without 1/C and with the minus it lacks: (B, T, C), one-hot (B, T, C) -> scalar."""
    return -(Y_gt * pred.log_softmax(-1)).sum(-1).mean()


def adam(model: TACMA) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.StepLR]:
    """Returns the optimizer of Section 4.1: Adam at 1e-4, times 0.98 after every 10 epochs."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.98)


def made_up_clips(count: int, C: int, noise: float = 1.0, T: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Returns f_a, f_v (B, T, d_l), labels (B, T): one event in each clip, background before and after it."""
    # A vector for each class in each modality, the same in all calls
    meaning = torch.randn(2, C, D_L, generator=torch.Generator().manual_seed(0))
    start, length = torch.randint(0, T - 2, (count, 1)), torch.randint(3, T + 1, (count, 1))
    during = (torch.arange(T) >= start) & (torch.arange(T) < start + length)
    labels = torch.where(during, torch.randint(0, C - 1, (count, 1)), C - 1)
    f_a, f_v = meaning[:, labels] + noise * torch.randn(2, count, T, D_L)
    return f_a, f_v, labels


def main(epochs: int = 12, C: int = 11) -> None:
    """Trains on made-up clips of 10 events and background, in batches of 128."""
    torch.manual_seed(0)
    f_a, f_v, labels = made_up_clips(512, C)
    test_a, test_v, test_labels = made_up_clips(256, C)
    model = TACMA(C)
    optimizer, schedule = adam(model)
    print(f"always background: {(test_labels == C - 1).float().mean():.1%} of the test segments")
    for epoch in range(1, epochs + 1):
        for clips in torch.randperm(len(labels)).split(BATCH):
            Y_gt = nn.functional.one_hot(labels[clips], C)
            loss = cross_entropy(model(f_a[clips], f_v[clips]), Y_gt)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            accuracy = (model(test_a, test_v).argmax(-1) == test_labels).float().mean()
        print(f"epoch {epoch:3}  loss {loss:.3f}  test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
