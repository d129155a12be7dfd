# Needs: numpy
"""A member of the family on images: DropBlock drops squares of a feature map (Ghiasi et al., NeurIPS 2018)."""

import numpy as np

import multidrop as md

(images, _), *_ = md.load_data_fashion_mnist(4, "mini")[1]  # one batch of test images, (4, 1, 28, 28)
member = md.family.DropBlock(p=0.2, block_size=7)
Y = md.apply(member, images, key=7)  # a torch, TensorFlow or MXNet tensor works as well

# Ones show what is dropped.
kept = md.apply(member, np.ones_like(images), key=7) != 0
for row in kept[0, 0, ::2]:
    print("".join("█" if element else "·" for element in row))
assert np.array_equal(Y, np.where(kept, images * np.float32(1 / (1 - member.p)), 0))

# Blocks overlap and reach over the edges; the share of dropped elements is p all the same.
many = md.apply(member, np.ones((2000, 1, 28, 28), "float32"), key=8)
print(f"dropped: {(many == 0).mean():.3f}, p = {member.p}")
assert abs((many == 0).mean() - member.p) < 0.01

# p that grows over training, as the paper has it: build the member anew at each step.
p = md.family.schedules.linear(0.0, 0.2, steps=1000)
print([round(md.family.DropBlock(p(step), 7).p, 2) for step in (0, 250, 500, 1000)])
