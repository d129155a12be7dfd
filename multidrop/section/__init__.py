"""The section "Dropout" of *Dive into Deep Learning*: its net, its data and its training, in every framework."""
