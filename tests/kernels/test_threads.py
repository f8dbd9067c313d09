"""Threads of torch while a training step, in whatever loop, is nearly all ours."""

import threading

import pytest
import torch

from painn_fast.kernels import threads

HAD = 3


@pytest.fixture(autouse=True)
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(HAD)
    yield
    torch.set_num_threads(before)


class Recorded(torch.autograd.Function):
    """The identity; its backward notes how many threads torch has there, and fails for a gradient of 0."""

    seen: list[int] = []

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Recorded.seen.append(torch.get_num_threads())
        if not gradient.any():
            raise ArithmeticError("nothing")
        return gradient


class Optimizer(torch.optim.SGD):
    def step(self, closure=None):
        loss = None if closure is None else closure()
        self.seen = torch.get_num_threads()
        return loss


def result_of(weight):
    """What a model in training gives, by an operation before and one after what is ours."""
    with threads.ours():
        result = Recorded.apply(weight).square()
    threads.ours_in_backward([result, torch.zeros(1)])
    return result


@pytest.fixture
def weight():
    Recorded.seen.clear()
    return torch.ones(3, requires_grad=True)


def test_torch_has_one_thread_from_the_results_to_the_end_of_the_optimizer(weight):
    optimizer = Optimizer([weight], lr=0.1)
    result = result_of(weight)
    assert torch.get_num_threads() == HAD
    Recorded.apply(result).sum().backward()
    assert Recorded.seen == [HAD, 1], "of the loss, and of the model"
    assert torch.get_num_threads() == HAD
    optimizer.step()
    assert (optimizer.seen, torch.get_num_threads()) == (1, HAD)
    optimizer.step()
    assert (optimizer.seen, torch.get_num_threads()) == (HAD, HAD), "a step after no backward pass of ours"


def test_a_step_within_a_closure_has_one_thread_in_each_backward_pass_and_after_it(weight):
    optimizer = Optimizer([weight], lr=0.1)

    def closure():
        assert torch.get_num_threads() == HAD
        loss = result_of(weight).sum()
        loss.backward()
        return loss.detach()

    for _ in range(2):
        assert float(optimizer.step(closure=closure)) == 3.0
        assert (optimizer.seen, torch.get_num_threads()) == (1, HAD)
    assert Recorded.seen == [1, 1]


def test_a_backward_pass_that_fails_gives_the_threads_back(weight):
    with pytest.raises(ArithmeticError, match="nothing"):
        (0.0 * result_of(weight).sum()).backward()
    assert (Recorded.seen, torch.get_num_threads(), threads.count()) == ([1], HAD, HAD)


def test_a_closure_that_fails_gives_the_threads_back(weight):
    optimizer = Optimizer([weight], lr=0.1)
    result_of(weight).sum().backward()

    def closure():
        raise ArithmeticError("nothing")

    with pytest.raises(ArithmeticError, match="nothing"):
        optimizer.step(closure=closure)
    assert (torch.get_num_threads(), threads.count()) == (HAD, HAD)


@pytest.mark.parametrize("number", [1, 3])
def test_work_beside_is_done_when_it_has_been_waited_for(number):
    """With several threads on another one, where operations of ours take a single one: it would wait for itself."""
    torch.set_num_threads(number)
    seen = []

    def work():
        threads.run(lambda part, k: seen.append((part, threads.count(), threading.get_ident())), "abc")

    with threads.ours():
        threads.beside(work)()
    assert [(part, count) for part, count, _ in seen] == [("a", 1), ("b", 1), ("c", 1)]
    assert all((thread == threading.get_ident()) == (number == 1) for *_, thread in seen)


def test_work_beside_that_fails_says_so_to_who_waits_and_leaves_its_thread_as_it_was():
    def work():
        raise ArithmeticError("nothing")

    torch.set_num_threads(2)  # one of which is another
    with threads.ours():
        wait = threads.beside(work)
        with pytest.raises(ArithmeticError, match="nothing"):
            wait()
        counts = []
        threads.beside(lambda: counts.append(threads._local.ours))()
        threads.run(lambda part, k: counts.append(getattr(threads._local, "ours", None)), [0])
        counts.append(threads._pool(1).submit(lambda: getattr(threads._local, "ours", None)).result())
    assert counts == [1, 2, None]
