# Needs: numpy
"""Monte Carlo dropout (Gal and Ghahramani, ICML 2016): uncertainty from many thinned networks at test time.

The net is of NumPy here. A model of torch, Keras or Gluon gives the same samples for the same weights.
"""

import numpy as np

import multidrop as md

md.manual_seed(0)
train_iter, test_iter = md.load_data_fashion_mnist(256, "mini")
net = md.Net(dropout1=0.5, dropout2=0.5)
md.train(net, train_iter, test_iter, num_epochs=10, lr=0.3)

# 50 thinned networks look at clothes, and at noise, of which the net has seen nothing.
images, labels = (np.concatenate(parts) for parts in zip(*test_iter, strict=True))
noise = np.random.default_rng(0).random(images.shape, dtype="float32")
clothes, unknown = (md.mc_predict(net, X, samples=50, seed=2016) for X in (images, noise))
print(clothes, unknown, sep="\n")

# The thinned networks disagree about noise.
for name in ("entropy", "mutual_information"):
    print(f"{name}: AUROC {md.auroc(getattr(clothes, name), getattr(unknown, name)):.3f}")
assert md.auroc(clothes.mutual_information, unknown.mutual_information) > 0.9

# With dropout off, on once, and averaged over the samples; and if the uncertain half is rejected.
once = next(md.mc_samples(net, images, 1, seed=2016))
for name, p in {"off": md.predict(net, images), "on once": once, "averaged": clothes.mean}.items():
    accuracy, error = (p.argmax(axis=1) == labels).mean(), md.calibration_error(p, labels)
    print(f"{name:8}  accuracy {accuracy:.3f}, NLL {md.negative_log_likelihood(p, labels):.3f}, ECE {error:.3f}")
curve = md.rejection_curve(clothes.mean, labels, clothes.entropy)
print(f"accuracy on the certain half: {curve.accuracy[len(labels) // 2 - 1]:.3f}")
assert curve.accuracy[len(labels) // 2 - 1] > curve.accuracy[-1]

# Any sample can be computed again, alone.
with md.mc_dropout(net, seed=2016) as mc:
    mc.sample(0)
    again = net(images[:5])
assert np.allclose(again.argmax(axis=1), once[:5].argmax(axis=1))
