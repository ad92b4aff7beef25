"""Row-wise Adam against torch's Adam, AdamW and SparseAdam."""

from copy import deepcopy

import pytest
import torch

from scmvp_scvi._optimizer import RowAdam, SteppedGradients, trust_rows, values_of_gradient
from scmvp_scvi._rows import take_rows

N_ROWS, OPTIONS = 8, {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8}
DECAYS = [
    pytest.param({"weight_decay": 0.0}, torch.optim.Adam, id="no decay"),
    pytest.param({"weight_decay": 0.3}, torch.optim.Adam, id="decay added to the gradient"),
    pytest.param(
        {"weight_decay": 0.3, "decoupled_weight_decay": True},
        torch.optim.AdamW,
        id="decay beside the gradient",
    ),
]


def parameter(rng, *shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.as_tensor(rng.normal(size=shape)))


def copy(p: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(p.detach().clone())


def as_rows(gradient: torch.Tensor, rows: list[int]) -> torch.Tensor:
    rows = torch.tensor(rows)
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), gradient[rows], gradient.shape, check_invariants=True
    )


@pytest.mark.parametrize(("options", "reference"), DECAYS)
@pytest.mark.parametrize("shape", [(N_ROWS,), (N_ROWS, 3)])
def test_a_row_moves_as_if_torch_optimised_it_alone_at_the_steps_it_is_drawn(
    rng, shape, options, reference
):
    weight = parameter(rng, *shape)
    alone = [copy(weight[[i]]) for i in range(N_ROWS)]
    optimizer = RowAdam([weight], **OPTIONS, **options)
    decay = options["weight_decay"]
    references = [reference([row], **OPTIONS, weight_decay=decay) for row in alone]
    for _ in range(12):
        gradient = torch.as_tensor(rng.normal(size=shape))
        rows = sorted(rng.choice(N_ROWS, size=3, replace=False).tolist())
        weight.grad = as_rows(gradient, rows)
        optimizer.step()
        for i in rows:
            alone[i].grad = gradient[[i]]
            references[i].step()
    torch.testing.assert_close(weight.detach(), torch.cat([row.detach() for row in alone]))


@pytest.mark.parametrize("is_sparse", [False, True])
def test_scaled_gradients_are_unscaled_and_infinite_ones_left_out(rng, is_sparse):
    weight = parameter(rng, N_ROWS, 3)
    gradient = torch.as_tensor(rng.normal(size=weight.shape))
    moved = {}
    for scale, found_inf in ((1.0, 0.0), (1024.0, 0.0), (1024.0, 1.0)):
        p = copy(weight)
        optimizer = RowAdam([p], **OPTIONS, weight_decay=0.3)
        # as torch.amp.GradScaler does for optimisers that unscale by themselves
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(found_inf)
        scaled = gradient * scale
        p.grad = as_rows(scaled, list(range(N_ROWS))) if is_sparse else scaled
        optimizer.step()
        moved[scale, found_inf] = p.detach() - weight.detach()
    assert moved[1.0, 0.0].abs().min() > 0
    torch.testing.assert_close(moved[1024.0, 0.0], moved[1.0, 0.0])
    assert not moved[1024.0, 1.0].any()


@pytest.mark.parametrize(("options", "reference"), DECAYS)
def test_dense_gradients_are_stepped_as_torch_does(rng, options, reference):
    weight = parameter(rng, N_ROWS, 3)
    expected = copy(weight)
    optimizer = RowAdam([weight], **OPTIONS, **options)
    plain = reference([expected], **OPTIONS, weight_decay=options["weight_decay"])
    for _ in range(5):
        weight.grad = torch.as_tensor(rng.normal(size=weight.shape))
        expected.grad = weight.grad.clone()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(weight, expected)


def test_rows_of_the_whole_matrix_move_as_under_torch_sparse_adam(rng):
    weight = parameter(rng, N_ROWS, 3)
    expected = copy(weight)
    optimizer, plain = RowAdam([weight], **OPTIONS), torch.optim.SparseAdam([expected], **OPTIONS)
    for _ in range(5):
        gradient = as_rows(torch.as_tensor(rng.normal(size=weight.shape)), list(range(N_ROWS)))
        weight.grad, expected.grad = gradient, gradient.clone()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(weight, expected)


def test_rows_that_are_not_drawn_stay_to_the_bit(rng):
    weight = parameter(rng, N_ROWS, 3)
    before = weight.detach().clone()
    optimizer = RowAdam([weight], **OPTIONS, weight_decay=0.3)
    weight.grad = as_rows(torch.ones(N_ROWS, 3, dtype=torch.float64), [2, 5])
    optimizer.step()
    moved = (weight.detach() != before).any(1)
    assert moved.nonzero().flatten().tolist() == [2, 5]


def test_dense_and_sparse_gradients_share_a_step_and_both_remain_readable(rng):
    dense, sparse = parameter(rng, 4), parameter(rng, N_ROWS, 3)
    before = dense.detach().clone(), sparse.detach().clone()
    optimizer = RowAdam([{"params": [dense]}, {"params": [sparse]}], **OPTIONS)
    dense.grad = torch.ones(4, dtype=torch.float64)
    sparse.grad = as_rows(torch.ones(N_ROWS, 3, dtype=torch.float64), [1])
    optimizer.step()
    # the first step of Adam is the learning rate against the sign of the gradient
    torch.testing.assert_close(dense.detach(), before[0] - 0.05)
    torch.testing.assert_close(sparse[1].detach(), before[1][1] - 0.05)
    assert sparse.grad.is_sparse


def test_a_parameter_may_turn_from_dense_to_sparse_gradients(rng):
    weight = parameter(rng, N_ROWS, 3)
    expected = copy(weight)
    optimizer, plain = RowAdam([weight], **OPTIONS), torch.optim.Adam([expected], **OPTIONS)
    for step in range(6):
        gradient = torch.as_tensor(rng.normal(size=weight.shape))
        weight.grad = gradient if step < 3 else as_rows(gradient, list(range(N_ROWS)))
        expected.grad = gradient.clone()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(weight, expected)


def test_state_survives_saving_and_loading(rng):
    weight = parameter(rng, N_ROWS, 3)
    twin = copy(weight)
    gradients = [torch.as_tensor(rng.normal(size=weight.shape)) for _ in range(6)]
    optimizer = RowAdam([weight], **OPTIONS)
    for gradient in gradients[:3]:
        weight.grad = as_rows(gradient, [0, 4])
        optimizer.step()
    twin.data.copy_(weight)
    resumed = RowAdam([twin], **OPTIONS)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for gradient in gradients[3:]:
        for p, o in ((weight, optimizer), (twin, resumed)):
            p.grad = as_rows(gradient, [0, 4, 6])
            o.step()
    torch.testing.assert_close(twin, weight, rtol=0, atol=0)


def test_a_copy_takes_the_steps_of_the_original(rng):
    weight = parameter(rng, N_ROWS, 3)
    optimizer = RowAdam([weight], **OPTIONS)
    weight.grad = torch.as_tensor(rng.normal(size=weight.shape))
    optimizer.step()
    twin, copied = deepcopy((weight, optimizer))
    for p, o in ((weight, optimizer), (twin, copied)):
        p.grad = torch.ones_like(p)
        o.step()
    torch.testing.assert_close(twin, weight, rtol=0, atol=0)


def test_loss_of_the_closure_is_returned(rng):
    weight = parameter(rng, 3)

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    expected = weight.detach().square().sum()
    torch.testing.assert_close(RowAdam([weight], **OPTIONS).step(closure).detach(), expected)


def test_values_of_a_sparse_gradient_are_those_in_the_gradient(rng):
    weight = parameter(rng, N_ROWS, 3)
    weight.grad = as_rows(torch.ones(N_ROWS, 3, dtype=torch.float64), [1, 6])
    values_of_gradient(weight).mul_(0.5)
    assert weight.grad.to_dense().sum() == 3


@pytest.mark.parametrize("is_sparse", [False, True])
def test_steps_with_a_learning_rate_of_their_own_are_those_of_an_optimiser_that_has_it(
    rng, is_sparse
):
    weight, gradient = parameter(rng, N_ROWS, 3), torch.as_tensor(rng.normal(size=(N_ROWS, 3)))
    found, expected = copy(weight), copy(weight)
    optimizer, other = (RowAdam([p], lr=lr) for p, lr in ((found, 0.5), (expected, 0.01)))
    rate = torch.tensor(0.0)

    def give_gradients():
        for p in (found, expected):
            p.grad = as_rows(gradient, [1, 4, 6]) if is_sparse else gradient

    give_gradients()
    for one in (optimizer, other):
        one.param_groups[0]["lr"] = 0.02
        one.step()
    optimizer.param_groups[0]["lr"] = 0.5
    for lr in (0.01, 0.03):
        give_gradients()
        rate.fill_(lr)
        with optimizer.learning_rate(rate):
            optimizer.step()
        other.param_groups[0]["lr"] = lr
        other.step()
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert not optimizer.param_groups[0]["capturable"]
    torch.testing.assert_close(found, expected)


def test_a_parameter_that_begins_to_learn_is_not_recorded(rng):
    known, new = parameter(rng, 3), parameter(rng, 3)
    optimizer = RowAdam([known, new], lr=0.1)
    known.grad = torch.ones_like(known)
    optimizer.step()
    new.grad = torch.ones_like(new)
    kept = [p.detach().clone() for p in (known, new)]
    with (
        pytest.raises(RuntimeError, match="began to learn"),
        optimizer.learning_rate(torch.tensor(0.1)),
    ):
        optimizer.step()
    torch.testing.assert_close([known.detach(), new.detach()], kept)


def test_rows_that_were_taken_once_are_in_order_and_need_no_look(rng):
    weight, factors = parameter(rng, N_ROWS, 3), torch.as_tensor(rng.normal(size=(3, 3)))
    dense = parameter(rng, 2)
    rows = torch.tensor([1, 4, 6])
    ((take_rows(weight, rows) * factors).sum() + dense.sum()).backward()
    assert not weight.grad.is_coalesced()  # which autograd forgot
    trust_rows([weight, dense, parameter(rng, 1)])
    assert weight.grad.is_coalesced()
    torch.testing.assert_close(weight.grad.indices()[0], rows)
    torch.testing.assert_close(weight.grad.values(), factors)


def put_in_blocks(gradients: SteppedGradients, weight: torch.Tensor, gradient: torch.Tensor):
    """Hand on a gradient in blocks of three rows; what is left for the optimiser."""
    taker = gradients.of(weight)
    for start in range(0, N_ROWS, 3):
        rows = slice(start, min(start + 3, N_ROWS))
        taker.put(rows, gradient[rows])
    return taker.result()


@pytest.mark.parametrize(("options", "reference"), DECAYS)
@pytest.mark.parametrize("held", [[], [0], [2, 3, 7], list(range(N_ROWS))])
def test_steps_by_blocks_are_those_of_torch_on_the_whole_gradient(rng, options, reference, held):
    weight = parameter(rng, N_ROWS, 4)
    expected = copy(weight)
    optimizer = RowAdam([weight], **OPTIONS, **options)
    plain = reference([expected], **OPTIONS, weight_decay=options["weight_decay"])
    gradients = SteppedGradients(optimizer, [weight])
    for _ in range(6):
        first, second = (torch.as_tensor(rng.normal(size=weight.shape)) for _ in range(2))
        gradients.hold(torch.tensor(held, dtype=torch.long), [weight])
        assert put_in_blocks(gradients, weight.detach(), first) is None
        weight.grad = as_rows(second, held) if held else None  # the other part of their gradient
        expected.grad = first.clone()
        expected.grad[held] += second[held]
        optimizer.step()
        plain.step()
        torch.testing.assert_close(weight, expected)


def test_held_rows_stay_to_the_bit_until_the_step(rng):
    weight = parameter(rng, N_ROWS, 4)
    before = weight.detach().clone()
    gradients = SteppedGradients(RowAdam([weight], **OPTIONS, weight_decay=0.3), [weight])
    gradients.hold(torch.tensor([1, 5]), [weight])
    put_in_blocks(gradients, weight, torch.ones_like(before))
    stayed = (weight.detach() == before).all(1)
    assert stayed.nonzero().flatten().tolist() == [1, 5]


def test_rows_of_a_weight_that_is_not_named_are_not_held(rng):
    weight, other = parameter(rng, N_ROWS, 4), parameter(rng, N_ROWS, 4)
    before = other.detach().clone()
    gradients = SteppedGradients(RowAdam([weight, other], **OPTIONS), [weight, other])
    gradients.hold(torch.tensor([1, 5]), [weight])
    put_in_blocks(gradients, other, torch.ones_like(before))
    assert (other.detach() != before).all()


@pytest.mark.parametrize("option", ["amsgrad", "maximize", "foreach"])
def test_options_that_rows_do_not_heed_are_refused(rng, option):
    with pytest.raises(ValueError, match=f"`{option}` is not offered"):
        RowAdam([parameter(rng, 2, 3)], **{option: True})


def test_a_frozen_weight_is_not_stepped_by_blocks(rng):
    weight = parameter(rng, N_ROWS, 3)
    optimizer = RowAdam([weight], lr=0.1)
    gradients = SteppedGradients(optimizer, [weight])
    weight.requires_grad_(False)
    before = weight.detach().clone()
    put_in_blocks(gradients, weight, torch.ones(N_ROWS, 3))
    assert torch.equal(weight, before)


def test_gradient_of_a_weight_that_is_not_stepped_by_blocks_is_collected_whole(rng):
    weight, other = parameter(rng, N_ROWS, 4), parameter(rng, N_ROWS, 4)
    before = other.detach().clone()
    gradients = SteppedGradients(RowAdam([weight, other], **OPTIONS), [weight])
    gradient = torch.as_tensor(rng.normal(size=other.shape))
    torch.testing.assert_close(put_in_blocks(gradients, other, gradient), gradient)
    torch.testing.assert_close(other.detach(), before, rtol=0, atol=0)


def test_a_second_gradient_in_one_step_is_refused_and_in_the_next_one_taken(rng):
    weight = parameter(rng, N_ROWS, 4)
    optimizer = RowAdam([weight], **OPTIONS)
    gradients = SteppedGradients(optimizer, [weight])
    gradient = torch.ones(N_ROWS, 4, dtype=torch.float64)
    put_in_blocks(gradients, weight, gradient)
    with pytest.raises(RuntimeError, match="formed twice in a step"):
        put_in_blocks(gradients, weight, gradient)
    optimizer.step()
    put_in_blocks(gradients, weight, gradient)
    assert optimizer.state[weight]["step"] == 2


def test_a_gradient_elsewhere_of_rows_that_were_not_held_is_refused(rng):
    weight = parameter(rng, N_ROWS, 4)
    optimizer = RowAdam([weight], **OPTIONS)
    gradients = SteppedGradients(optimizer, [weight])
    gradients.hold(torch.tensor([1, 5]), [weight])
    put_in_blocks(gradients, weight, torch.ones_like(weight))
    weight.grad = as_rows(torch.ones_like(weight), [1, 6])
    with pytest.raises(
        RuntimeError, match="2 rows have a gradient elsewhere and 2 were held back"
    ):
        optimizer.step()


@pytest.mark.parametrize("in_blocks", [False, True])
def test_rows_heed_the_eps_asked_for_and_stay_where_their_gradient_is_zero(rng, in_blocks):
    options = {"lr": 0.05, "eps": 0.3}
    weight = parameter(rng, N_ROWS, 3)
    expected = copy(weight)
    optimizer, plain = RowAdam([weight], **options), torch.optim.Adam([expected], **options)
    gradient = torch.as_tensor(rng.normal(size=weight.shape))
    gradient[2] = 0
    for _ in range(3):
        if in_blocks:
            put_in_blocks(SteppedGradients(optimizer, [weight]), weight.detach(), gradient)
        else:
            weight.grad = as_rows(gradient, list(range(N_ROWS)))
        expected.grad = gradient.clone()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(weight, expected)


def test_a_parameter_may_turn_from_sparse_to_dense_gradients(rng):
    weight = parameter(rng, N_ROWS, 3)
    expected = copy(weight)
    optimizer, plain = RowAdam([weight], **OPTIONS), torch.optim.Adam([expected], **OPTIONS)
    for step in range(6):
        gradient = torch.as_tensor(rng.normal(size=weight.shape))
        weight.grad = as_rows(gradient, list(range(N_ROWS))) if step < 3 else gradient
        expected.grad = gradient.clone()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(weight, expected)
