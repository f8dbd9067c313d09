"""AdamW on flat parameters."""

import copy

import torch
from torch import nn

from painn_fast.train.optimizer import AdamW, FlatParameters


def steps(model, flat, optimizer, seeds):
    for seed in seeds:
        inputs = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
        flat.zero_grad()
        model(inputs).square().mean().backward()
        flat.collect()
        optimizer.step(1e-2)


def test_equals_that_of_torch():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(7, 9), nn.SiLU(), nn.Linear(9, 3))
    theirs = copy.deepcopy(ours)
    flat = FlatParameters(ours)
    steps(ours, flat, AdamW(flat, weight_decay=0.1), range(20))
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    for seed in range(20):
        inputs = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        theirs(inputs).square().mean().backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_goes_on_from_its_state_bit_for_bit():
    torch.manual_seed(0)
    whole, half = nn.Linear(7, 3), nn.Linear(7, 3)
    half.load_state_dict(whole.state_dict())
    flat = FlatParameters(whole)
    optimizer = AdamW(flat, weight_decay=0.01)
    steps(whole, flat, optimizer, range(6))
    flat = FlatParameters(half)
    optimizer = AdamW(flat, weight_decay=0.01)
    steps(half, flat, optimizer, range(3))
    state = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    again = AdamW(flat, weight_decay=0.01)
    again.restore(state)
    steps(half, flat, again, range(3, 6))
    for a, b in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(a, b)
