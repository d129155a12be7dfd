"""The dropout family: what single frameworks have besides, and the p that is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from members import KEY, all_members, one_of_each, values

import multidrop as md
from multidrop import Key, family
from multidrop.family import Member, oracle
from multidrop.testing import same_bits
from multidrop.testing.vectors import BOUNDS


class TestMXNet:
    @one_of_each
    def test_a_gradient_that_is_added(self, need: Any, member: Member) -> None:
        need("mxnet")
        import mxnet as mx

        x = values(member.example_shape)
        X = mx.np.array(x)
        X.attach_grad(grad_req="add")
        for _ in range(2):
            with mx.autograd.record():
                Y = md.apply(member, X, KEY)
            Y.backward(mx.np.array(x))
        assert same_bits(X.grad.asnumpy(), 2 * oracle.apply(member, x, KEY, gradient=True))


class TestTorch:
    """What torch alone has: derivatives of any order, forward mode, and `torch.func`."""

    # By torch itself, for its forward mode.
    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    @all_members
    def test_derivatives(self, need: Any, member: Member) -> None:
        need("torch")
        import torch

        X = torch.from_numpy(values(member.example_shape, np.float64)).requires_grad_()

        def function(X: Any) -> Any:
            return md.apply(member, X, KEY)

        assert torch.autograd.gradcheck(function, X, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, X)

    @one_of_each
    def test_vmap(self, need: Any, member: Member) -> None:
        """With a key, every example has its numbers. Without one, `randomness` decides."""
        need("torch")
        import torch

        X = torch.from_numpy(values((3, *member.example_shape)))
        Y = torch.vmap(lambda x: md.apply(member, x, KEY))(X)
        assert torch.equal(Y, torch.stack([md.apply(member, x, KEY) for x in X]))
        with pytest.raises(RuntimeError, match="randomness"):
            torch.vmap(lambda x: md.apply(member, x))(X)
        for_each = torch.func.grad(lambda x: md.apply(member, x).sum())
        md.manual_seed(1)
        first, *_ = torch.vmap(for_each, randomness="different")(X)
        key = Key(1).fold_in("calls")
        assert torch.equal(first, torch.func.grad(lambda x: md.apply(member, x, key).sum())(X[0]))

    @one_of_each
    def test_checkpointing(self, need: Any, member: Member) -> None:
        """What is recomputed has the numbers of the first time."""
        need("torch")
        import torch
        from torch.utils.checkpoint import checkpoint

        X = torch.from_numpy(values((64, *member.example_shape[1:]))).requires_grad_()
        md.manual_seed(1)
        Y = checkpoint(lambda X: md.apply(member, X.sin()), X, use_reentrant=False)
        Y.sum().backward()
        dY = md.apply(member, torch.ones_like(X).requires_grad_(), Key(1).fold_in("calls"))
        (slope,) = torch.autograd.grad(dY.sum(), dY.grad_fn.next_functions[0][0].variable)
        assert torch.allclose(X.grad, slope * X.detach().cos())

    @one_of_each
    def test_built_in_a_program(self, need: Any, member: Member) -> None:
        need("torch")
        import torch

        cls = type(member)
        torch._dynamo.reset()
        program = torch.compile(lambda X: md.apply(cls(), X, KEY), fullgraph=True, backend="aot_eager")
        x = values(member.example_shape)
        assert np.allclose(program(torch.from_numpy(x)).numpy(), oracle.apply(member, x, KEY), rtol=1e-6)

    # torch's own, at its first compilation: it announces what it is about to change.
    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
    def test_inductor(self, need: Any) -> None:
        """Compiles the formula of a member that learns, and what is around one that is an operator, as all others
        are."""
        need("torch")
        import torch

        learns, noise = family.ConcreteDropout(temperature=0.5), family.GaussianDropout()
        x, logit = values((4, 3)), np.float32(-1.5)

        def program(X: Any, logit: Any) -> Any:
            return md.apply(learns, X, KEY, learned=logit) + 2.0 * md.apply(noise, -X, KEY)

        X, L = torch.from_numpy(x).requires_grad_(), torch.tensor(logit, requires_grad=True)
        torch._dynamo.reset()
        Y = torch.compile(program, fullgraph=True)(X, L)
        dX, dL = torch.autograd.grad(Y.sum(), (X, L))
        ones = np.ones_like(x)
        bound = {"rtol": BOUNDS["float32"], "atol": BOUNDS["float32"]}
        slope = oracle.apply(learns, ones, KEY, learned=logit) - 2.0 * oracle.apply(noise, ones, KEY)
        expected = oracle.apply(learns, x, KEY, learned=logit) - 2.0 * oracle.apply(noise, x, KEY)
        assert np.allclose(Y.detach(), expected, **bound)
        assert np.allclose(dX, slope, **bound)
        assert np.allclose(dL, oracle.learned_gradient(learns, ones, x, np.asarray(logit), KEY), rtol=1e-5)

    @one_of_each
    def test_channels_last_in_memory(self, need: Any, member: Member) -> None:
        """Elements count in their logical order, whatever the layout, which the result keeps."""
        need("torch")
        import torch

        x = values(member.example_shape)
        X = torch.from_numpy(x).transpose(0, -1).contiguous().transpose(0, -1)
        for run in (md.apply, torch.compile(md.apply, fullgraph=True, backend="aot_eager")):
            torch._dynamo.reset()
            assert np.allclose(run(member, X, KEY).numpy(), oracle.apply(member, x, KEY), rtol=1e-6)

    def test_no_strided_tensor(self, need: Any) -> None:
        need("torch")
        import torch

        jagged = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged)
        with pytest.raises(
            TypeError, match=r"X: expected a tensor that is not nested for GaussianNoise; got a nested one"
        ):
            md.apply(family.GaussianNoise(), jagged, KEY)


class TestTensorflow:
    @one_of_each
    def test_sizes_that_are_not_known(self, need: Any, member: Member) -> None:
        need("tensorflow")
        import tensorflow as tf

        x = values(member.example_shape)
        signature = [tf.TensorSpec([None] * x.ndim, tf.float32)]
        program = tf.function(lambda X: md.apply(member, X, KEY), signature, autograph=False)
        assert np.allclose(program(tf.constant(x)), oracle.apply(member, x, KEY), rtol=1e-6)
        if member.axes(x.ndim) or member.margin(x.ndim):
            program = tf.function(lambda X: md.apply(member, X, KEY, start=8), signature, autograph=False)
            with pytest.raises(ValueError, match=r"start: expected 0, where the shape of X\[0\] is not known; got 8"):
                program(tf.constant(x))

    def test_a_rank_that_is_not_known(self, need: Any) -> None:
        need("tensorflow")
        import tensorflow as tf

        def program(member: Member) -> Any:
            return tf.function(lambda X: md.apply(member, X, KEY), [tf.TensorSpec(None)], autograph=False)

        x = values((4, 3))
        got = program(family.Dropout())(tf.constant(x)).numpy()
        assert same_bits(got, oracle.apply(family.Dropout(), x, KEY))
        with pytest.raises(ValueError, match="X: expected a tensor whose number of dimensions is known, for DropPath"):
            program(family.DropPath())(tf.constant(x))


class TestLearned:
    """Concrete dropout's p, by its logit."""

    member = family.ConcreteDropout(temperature=0.5)

    def test_the_gradient_is_the_slope(self) -> None:
        """In NumPy, against differences."""
        x, dy, logit = values((5, 4), np.float64), values((5, 4), np.float64, 1), np.full((1, 4), -1.5)

        def loss(logit: np.ndarray) -> float:
            return float((md.apply(self.member, x, KEY, learned=logit) * dy).sum())

        got = oracle.learned_gradient(self.member, dy, x, logit, KEY)
        step = 1e-6 * np.eye(4)[:, None]
        assert np.allclose(got[0], [(loss(logit + d) - loss(logit - d)) / 2e-6 for d in step], rtol=1e-7)

    @pytest.mark.parametrize("logit", [-1.0, [-1.0, 0.0, 1.0, 2.0], np.float64(-1.0), np.zeros((5, 1), np.float32)])
    def test_host_data(self, backend: Any, logit: Any) -> None:
        """In every framework."""
        x = values((5, 4))
        Y = md.apply(self.member, backend.tensor(x), KEY, learned=logit)
        expected = oracle.apply(self.member, x, KEY, learned=np.asarray(logit))
        assert np.allclose(backend.to_numpy(Y), expected, rtol=1e-5)

    def test_it_is_the_member_with_that_p(self) -> None:
        x = values((5, 4))
        fixed = md.apply(family.ConcreteDropout(0.2, 0.5), x, KEY)
        assert np.allclose(md.apply(self.member, x, KEY, learned=np.log(0.25)), fixed, rtol=1e-6)

    def test_torch(self, need: Any) -> None:
        need("torch")
        import torch

        X, logit = torch.from_numpy(values((5, 4), np.float64)).requires_grad_(), torch.tensor([-1.5]).double()
        logit.requires_grad_()
        expected = oracle.learned_gradient(
            self.member, np.ones((5, 4)), X.detach().numpy(), logit.detach().numpy(), KEY
        )

        def function(X: Any, logit: Any) -> Any:
            return md.apply(self.member, X, KEY, learned=logit)

        assert torch.autograd.gradcheck(function, (X, logit))
        assert torch.autograd.gradgradcheck(function, (X, logit))
        for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
            (got,) = torch.autograd.grad(run(X, logit).sum(), logit)
            assert np.allclose(got.numpy(), expected)

    def test_tensorflow(self, need: Any) -> None:
        need("tensorflow")
        import tensorflow as tf

        x, logit = values((5, 4)), tf.Variable([-1.5])
        expected = oracle.learned_gradient(self.member, np.ones((5, 4)), x, logit.numpy(), KEY)

        def function(X: Any) -> Any:
            with tf.GradientTape() as tape:
                Y = md.apply(self.member, X, KEY, learned=logit)
            return tape.gradient(Y, logit)

        for run in (function, tf.function(function), tf.function(function, jit_compile=True)):
            assert np.allclose(run(tf.constant(x)), expected, rtol=1e-5)

    def test_mxnet(self, need: Any) -> None:
        need("mxnet")
        import mxnet as mx

        x = values((5, 4))
        X, logit = mx.np.array(x), mx.np.array([-1.5])
        X.attach_grad()
        logit.attach_grad()
        with mx.autograd.record():
            Y = md.apply(self.member, X, KEY, learned=logit)
        Y.backward()
        assert np.array_equal(X.grad.asnumpy(), md.apply(self.member, np.ones_like(x), KEY, learned=np.float32([-1.5])))
        assert np.array_equal(
            logit.grad.asnumpy(), oracle.learned_gradient(self.member, np.ones_like(x), x, np.float32([-1.5]), KEY)
        )
