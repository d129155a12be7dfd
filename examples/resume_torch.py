# Needs: torch
"""A training loop of your own that is saved, resumed, and ends with the same weights in every bit."""

import tempfile
from pathlib import Path

import torch
from multidrop_torch import Dropout
from torch import nn

X, y = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2


def build():
    torch.manual_seed(0)
    # `seed` makes the layer keyed: it counts its calls, and the count is in the state_dict.
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), Dropout(0.5, seed=1), nn.Linear(32, 2))
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def train(net, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), y).backward()
        optimizer.step()


# Ten steps in one go.
net, optimizer = build()
train(net, optimizer, 10)

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "run.pt"

    # Six steps, and the program ends.
    first, optimizer = build()
    train(first, optimizer, 6)
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, file)

    # Another program loads both states and goes on.
    resumed, optimizer = build()
    saved = torch.load(file)
    resumed.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, optimizer, 4)

for name, value in net.state_dict().items():
    assert torch.equal(value, resumed.state_dict()[name]), name
print("seed and next call:", net.state_dict()["2.stream"])
print("The resumed run has the weights of the run without a break.")
