"""TACMA against Eq. 3-8 written out in loops."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from avel.heads.models.head import Model, Widths, build_model
from avel.heads.training.trials import Stacked
from tests.heads.by_hand import layer_norm, softmax
from tests.heads.synthetic import train_config

Arrays = Mapping[str, np.ndarray]
B, T, D_L, D_H, D_E, K = 3, 5, 6, 4, 8, 7


def model_of(**settings: object) -> Model:
    config = train_config(**({"d_h": D_H, "d_e": D_E} | settings))  # type: ignore[arg-type]
    return build_model(config, Widths(D_L, D_L, K), seed=1).double().eval()


def attention_by_hand(
    w: Arrays, f_a: np.ndarray, f_v: np.ndarray, theta: float
) -> tuple[np.ndarray, np.ndarray]:
    """W^av and W^va of one clip, Eq. 3-5."""
    M = np.zeros((T, T))
    for i in range(T):
        for j in range(T):
            query = sum(f_a[i, d] * w["W_a1"][:, d] for d in range(D_L))
            key = sum(f_v[j, d] * w["W_v1"][:, d] for d in range(D_L))
            M[i, j] = max(0.0, float(query @ key) / np.sqrt(D_L))
    M_av, M_va = (np.array([softmax(row) for row in each]) for each in (M, M.T))
    W_av, W_va = np.zeros((T, T)), np.zeros((T, T))
    for i in range(T):
        for j in range(T):
            W_av[i, j] = np.exp(-theta * abs(i - j) / M_av[i, j]) * M_av[i, j]
            W_va[i, j] = np.exp(-theta * abs(i - j) / M_va[i, j]) * M_va[i, j]
    return W_av, W_va


def scores_by_hand(w: Arrays, f_a: np.ndarray, f_v: np.ndarray, theta: float, routing: str) -> np.ndarray:
    """Logits of one clip, Eq. 6-8, residuals as printed or corrected."""
    W_av, W_va = attention_by_hand(w, f_a, f_v, theta)
    value_a, value_v = f_a @ w["W_a2"].T, f_v @ w["W_v2"].T
    if routing == "printed":
        V_fuse, A_fuse = W_va @ value_v + f_a, W_av @ value_a + f_v
    else:
        V_fuse, A_fuse = W_va @ value_a + f_v, W_av @ value_v + f_a
    fused = layer_norm(V_fuse @ w["W_v3"].T, w["norm_v.weight"], w["norm_v.bias"], 1e-5)
    fused = fused + layer_norm(A_fuse @ w["W_a3"].T, w["norm_a.weight"], w["norm_a.bias"], 1e-5)
    hidden = np.maximum(fused @ w["mlp.0"].T + w["mlp.0.bias"], 0)
    hidden = np.maximum(hidden @ w["mlp.2"].T + w["mlp.2.bias"], 0)
    return np.asarray(hidden @ w["mlp.4"].T + w["mlp.4.bias"])


def weights_of(model: Model) -> Arrays:
    """Weights by the paper's names; a Linear's matrix is (out, in)."""
    state = {name: value.numpy() for name, value in model.head.state_dict().items()}
    named = {name.removesuffix(".weight"): value for name, value in state.items() if "norm" not in name}
    return named | {name: value for name, value in state.items() if "norm" in name}


def features(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    audio = 3 * torch.randn(B, T, D_L, generator=random, dtype=torch.float64)
    return audio, 3 * torch.randn(B, T, D_L, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("routing", ["cross", "printed"])
@pytest.mark.parametrize("theta", [0.0, 0.03, 0.4])
def test_equals_the_equations_written_out(routing: str, theta: float) -> None:
    model = model_of(theta=theta, routing=routing)
    model.head.theta = torch.tensor(theta, dtype=torch.float64)
    audio, visual = features()
    output = model(audio, visual)
    weights = weights_of(model)
    for clip in range(B):
        f_a, f_v = audio[clip].numpy(), visual[clip].numpy()
        expected = scores_by_hand(weights, f_a, f_v, theta, routing)
        np.testing.assert_allclose(output.logits[clip].detach().numpy(), expected, rtol=1e-9, atol=1e-11)
        W_av, W_va = attention_by_hand(weights, f_a, f_v, theta)
        np.testing.assert_allclose(output.extras["W_av"][clip].detach().numpy(), W_av, rtol=1e-9)
        np.testing.assert_allclose(output.extras["W_va"][clip].detach().numpy(), W_va, rtol=1e-9)


def test_stacked_trials_compute_what_each_does_alone() -> None:
    models = [model_of(theta=theta) for theta in (0.0, 0.03, 0.4)]
    audio, visual = features()
    alone = [model(audio, visual).logits for model in models]
    stacked = Stacked(models, torch.device("cpu"))
    torch.testing.assert_close(stacked.logits(audio, visual), torch.stack(alone))


def test_features_that_want_a_gradient_get_it() -> None:
    head = model_of().head
    audio, visual = (values.requires_grad_() for values in features())
    gradients = torch.autograd.grad(head(audio, visual).logits.square().sum(), [audio, visual])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_bfloat16_products_leave_attention_in_float32() -> None:
    head = model_of().float().head
    audio, visual = (values.float() for values in features())
    with torch.autocast("cpu", torch.bfloat16):
        logits, extras, _ = head(audio, visual)
    exact = head(audio, visual).logits
    assert (logits.dtype, extras["W_av"].dtype, extras["W_va"].dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)
    (logits.float().sum() + extras["W_av"].sum()).backward()
    assert head.W_a1.weight.grad.dtype == head.W_a2.weight.grad.dtype == torch.float32


def test_attention_that_underflows_gives_finite_gradients() -> None:
    model = model_of(theta=0.03).float()
    audio, visual = (1e3 * values.float() for values in features())
    loss = model.loss(model(audio, visual), torch.zeros(B, T, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_cross_attention_is_tacma_without_the_weights_of_time() -> None:
    audio, visual = features()
    model = model_of(theta=0.0)
    config = train_config(head="cross_attention", d_h=D_H, d_e=D_E)
    other = build_model(config, Widths(D_L, D_L, K), seed=1).double().eval()
    torch.testing.assert_close(model(audio, visual).logits, other(audio, visual).logits)
    rows = other(audio, visual).extras["W_av"].sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_loss_is_cross_entropy_averaged_over_segments() -> None:
    model = model_of()
    output = model(*features())
    labels = torch.randint(0, K, (B, T), generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for clip in range(B):
        for segment in range(T):
            row = output.logits[clip, segment].detach().numpy()
            expected -= float(row[labels[clip, segment]] - np.log(np.exp(row).sum()))
    assert model.loss(output, labels).item() == pytest.approx(expected / (B * T), rel=1e-12)
