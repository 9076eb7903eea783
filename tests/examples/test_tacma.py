"""examples/tacma.py runs, and avel's head, loss and schedule give its numbers."""

import re

import pytest
import torch

from avel.heads.config import TrainConfig
from avel.heads.models.head import HeadOutput, Model, Widths, build_model
from avel.heads.training.fit import learning_rate
from examples import tacma as page

B, T, C = 6, 10, 29


def avels(given: page.TACMA) -> Model:
    """avel's head at its defaults, with the weights of the page's."""
    model = build_model(TrainConfig(), Widths(page.D_L, page.D_L, C), seed=1)
    model.head.load_state_dict(given.state_dict() | {"theta": torch.tensor(page.THETA)})
    return model


def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    f_a, f_v = torch.randn(2, B, T, page.D_L, generator=random)
    return f_a, f_v, torch.randint(0, C, (B, T), generator=random)


def test_the_page_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    page.main(epochs=6)
    baseline, *epochs = re.findall(r"([\d.]+)%", capsys.readouterr().out)
    assert len(epochs) == 6
    assert float(epochs[-1]) > float(baseline) + 10


def test_avels_head_has_the_logits_and_the_gradients_of_the_page() -> None:
    torch.manual_seed(0)
    given = page.TACMA()
    model = avels(given)
    f_a, f_v, labels = features()
    pred, output = given(f_a, f_v), model(f_a, f_v)
    torch.testing.assert_close(output.logits, pred)
    assert pred.std() > 0.01
    page.cross_entropy(pred, torch.nn.functional.one_hot(labels, C)).backward()
    model.loss(output, labels).backward()
    for name, weight in given.named_parameters():
        torch.testing.assert_close(model.head.get_parameter(name).grad, weight.grad)
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0


def test_avels_loss_is_that_of_the_page() -> None:
    random = torch.Generator().manual_seed(1)
    pred, labels = torch.randn(B, T, C, generator=random), features()[2]
    loss = avels(page.TACMA()).loss(HeadOutput(pred, {}), labels)
    torch.testing.assert_close(loss, page.cross_entropy(pred, torch.nn.functional.one_hot(labels, C)))


def test_avel_trains_at_the_rates_of_the_page() -> None:
    config = TrainConfig()
    optimizer, schedule = page.adam(page.TACMA())
    for epoch in range(1, 31):
        assert learning_rate(config.head, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert config.head.batch_size == page.BATCH
    assert config.head.theta == page.THETA
