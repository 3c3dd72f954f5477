"""The pretended card of `tests.pretend_cuda`: it refuses what a card refuses, counts what a card waits for, computes alike."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.pretend_cuda import PretendCuda, on_card, pretend_cuda

ROWS = torch.arange(12.0).view(4, 3)


@pytest.mark.parametrize("mixes", [
    lambda card, cpu: card + cpu, lambda card, cpu: cpu + card, lambda card, cpu: cpu @ card.T,
    lambda card, cpu: torch.cat([card, cpu]), lambda card, cpu: torch.stack([card[0, 0], cpu[0, 0]]),
    lambda card, cpu: cpu[card[:, 0].long()], lambda card, cpu: cpu.add_(card), lambda card, cpu: cpu[0, 0].add_(card[0, 0]),
    lambda card, cpu: card.index_add_(0, torch.arange(4), card), lambda card, cpu: card.where(cpu > 2, 0),
    lambda card, cpu: torch.mm(card, card.T, out=torch.empty(4, 4)), lambda card, cpu: F.linear(card, cpu),
    lambda card, cpu: torch.rand(3, device="cuda", generator=torch.Generator()),
    lambda card, cpu: card.index_put_((torch.arange(4),), cpu),
])
def test_what_a_card_refuses_is_refused(mixes):
    """This covers tensors of both devices in one operation, and a CPU generator."""
    with pretend_cuda(), pytest.raises(RuntimeError, match=r"same device|indices|Expected a 'cuda' device"):
        mixes(on_card(ROWS.clone()), ROWS.clone())


@pytest.mark.parametrize("converts", [lambda card: card.numpy(), np.asarray, lambda card: np.concatenate([card, card])])
def test_numpy_is_refused(converts):
    """It needs CPU memory."""
    with pretend_cuda() as card:
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            converts(on_card(ROWS))
        assert card.n_read_backs == 0


@pytest.mark.parametrize(("reads", "n"), [
    (lambda rows: float(rows[0, 0]), 1), (lambda rows: rows.tolist(), 1), (lambda rows: rows.cpu().numpy(), 1),
    (lambda rows: rows.to("cpu"), 1), (lambda rows: bool((rows > 2).any()), 1), (lambda rows: int(rows.argmax()), 1),
    (lambda rows: rows[0, 0].item(), 1), (lambda rows: (rows > 2).nonzero(), 1), (lambda rows: rows[rows[:, 0] > 2], 1),
    (lambda rows: rows[rows[:, 0].argmax()], 1), (lambda rows: rows.unique(), 1), (lambda rows: torch.equal(rows, rows), 1),
    (lambda rows: rows[:, 0].long().bincount(), 1), (lambda rows: torch.empty(4, 3).copy_(rows), 1),
    (lambda rows: rows[:, 0].repeat_interleave(rows[:, 0].long()), 1), (lambda rows: torch.linalg.inv(rows[:3].double()
                                                                                + torch.eye(3, device="cuda")), 1),
    (lambda rows: [float(row) for row in rows[:, 0]], 4), (lambda rows: sum(row[0] for row in rows), 0),
    (lambda rows: rows[rows.argmax(0)], 0), (lambda rows: rows.argsort(descending=True)[:2], 0),
    (lambda rows: rows.masked_fill(rows > 2, 0.0), 0), (lambda rows: rows.clone().index_put_((rows > 2,), rows[0, 0]), 0),
    (lambda rows: (rows @ rows.T).logsumexp(1) + 1.0 + torch.tensor(2.0), 0), (lambda rows: rows[2:].split(1), 0),
    (lambda rows: torch.arange(4, device=rows.device)[None] + rows.new_zeros(4), 0),
])
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_read_backs_are_counted(reads, n, grad_mode):
    """A value that is read, a copy to the CPU and a shape that depends on values are one each; arithmetic is none."""
    with pretend_cuda() as card, grad_mode():
        reads(on_card(ROWS.clone()))
        assert card.n_read_backs == n, card.read_backs


def test_uploads_are_counted():
    """`to`, `copy_`, `torch.tensor` with a device, and indices that lie on the CPU."""
    with pretend_cuda() as card:
        rows = ROWS.to("cuda")
        rows.copy_(ROWS)
        assert torch.tensor([1, 2], device="cuda").tolist() == rows.new_tensor([1, 2]).tolist() == [1, 2]
        assert all(isinstance(rows[index], PretendCuda) for index in (torch.tensor([1, 2]), [1, 2], ([1, 2], 0), np.array([1])))
        assert (card.uploads.total(), card.n_read_backs) == (8, 2)
        card.forget()
        assert torch.zeros(3, device="cuda").device == rows.device == torch.device("cuda:0")
        assert card.uploads.total() == 0


def test_a_change_in_place_is_seen_through_views():
    """Writing into a slice, by indices and by `out` changes the tensor itself, as on any device."""
    with pretend_cuda():
        rows = on_card(torch.zeros(4, 3))
        rows[1] = 1
        rows[torch.tensor([2], device="cuda")] = torch.full((1, 3), 2.0, device="cuda")
        assert torch.mm(rows, rows.T, out=(products := rows.new_empty(4, 4))) is products
        rows.view(-1)[9:] += 3
        rows[[0], [1]] = 5
        rows[[]] = 7
        assert rows.cpu().tolist() == [[0.0, 5.0, 0.0], [1.0] * 3, [2.0] * 3, [3.0] * 3]
        assert products.cpu()[2].tolist() == [0, 6, 12, 0]
        assert rows[:1].squeeze_(0).tolist() == rows.t()[:, 0].tolist() == [0, 5, 0]


def _trained(device):
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(3, 5)
    layer.weight.data, layer.bias.data = torch.randn(5, 3, generator=generator), torch.zeros(5)
    layer = layer.to(device)
    optimizer, rows = torch.optim.AdamW(layer.parameters(), lr=0.1), torch.randn(8, 3, generator=generator).to(device)
    labels = (torch.arange(8) % 5).to(device)
    for _ in range(3):
        hidden = F.scaled_dot_product_attention(*(F.layer_norm(rows, (3,))[None, None],) * 3)[0, 0]
        loss = F.cross_entropy(layer(hidden), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.weight.detach().cpu()


def test_training_steps_are_those_of_the_cpu():
    """Moving a module, attention, a loss, its gradient and an optimizer give the same numbers, and nothing is read back."""
    with pretend_cuda() as card:
        there = _trained("cuda")
        assert card.n_read_backs == 1  # the weight at the end
    assert torch.allclose(there, _trained("cpu"), atol=1e-6)


def test_a_tensor_that_is_there_already_is_not_copied():
    """`to` and `cuda` return the tensor itself, unless a copy or another type is asked for."""
    with pretend_cuda() as card:
        rows = on_card(ROWS)
        assert all(same is rows for same in (rows.cuda(), rows.to("cuda"), rows.to(rows.device), rows.to(rows), rows.float()))
        assert rows.to("cuda", copy=True) is not rows
        assert (rows.to(torch.float64).dtype, rows.double().device) == (torch.float64, rows.device)
        assert (card.n_read_backs, card.uploads.total()) == (0, 0)


def test_nothing_is_pretended_outside():
    """A tensor that is left over cannot be used by accident."""
    with pretend_cuda():
        rows = on_card(ROWS)
    with pytest.raises(RuntimeError, match="outside of"):
        rows + 1
