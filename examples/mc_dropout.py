# Needs: torch
"""Monte Carlo dropout (Gal and Ghahramani, ICML 2016): uncertainty from many masks at test time, by hand.

Each sample's masks have a key of their own, so that any sample can be computed again alone.
"""

import torch
from torch import nn

import multidrop as md

torch.manual_seed(0)
hidden, out = nn.Linear(1, 128), nn.Linear(128, 1)


def forward(X, key=None):
    """The net's output. A key names the mask; without one, each call takes the next mask of `manual_seed`."""
    return out(md.dropout_layer(torch.relu(hidden(X)), 0.2, key=key))


# Train on x in [-1, 1] alone.
md.manual_seed(0)
x = torch.linspace(-1, 1, 64)[:, None]
y = torch.sin(3 * x)
optimizer = torch.optim.Adam([*hidden.parameters(), *out.parameters()], lr=0.01)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.mse_loss(forward(x), y).backward()
    optimizer.step()

# Predict with 100 masks, within the data and far outside of it.
key = md.Key(2016)
points = torch.tensor([[0.0], [4.0]])
with torch.no_grad():
    samples = torch.stack([forward(points, key.fold_in(sample)) for sample in range(100)])
    again = forward(points, key.fold_in(42))
assert torch.equal(again, samples[42])  # one sample, alone

mean, deviation = samples.mean(0).ravel(), samples.std(0).ravel()
for point, m, s in zip(points.ravel(), mean, deviation, strict=True):
    print(f"x = {point:4.1f}: {m:6.2f} ± {s:.2f}")
assert deviation[1] > 2 * deviation[0]  # less is known where there was no data
