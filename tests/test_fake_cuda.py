"""The engine that stands in for autograd's gives its gradients, and notices what a GPU would wait for."""

import torch
from torch import nn

from tests.fake_cuda import CUDA, Watch, backward, fake_cuda


def test_its_gradients_are_autograds() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 6)
    )
    found = []
    for run in (torch.autograd.backward, backward):
        net.zero_grad()
        out = net(torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
        run((out.square().sum() + out[0].sum()) * 0.5)  # a result that is used twice, and a broadcast
        found.append([weight.grad for weight in net.parameters()])
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_watch_sees_what_the_host_reads_and_sends() -> None:
    with fake_cuda(), Watch() as watch:
        there = torch.ones(3).to(CUDA)
        (there * 2 + 1).cpu()
    assert (sum(watch.sends.values()), sum(watch.reads.values()), watch.launches) == (1, 1, 4)
