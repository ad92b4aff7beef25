"""Denoised profiles: what a trained model expects of the counts of cells."""

import weakref
from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scmvp_scvi import SCMVPModel, _denoised
from scmvp_scvi.distributions._cubature import cubature_points

N_CELLS, N_GENES, N_PEAKS, N_LATENT = 300, 80, 150, 5


@pytest.fixture(scope="module")
def expression(trained_model) -> pd.DataFrame:
    return trained_model.get_normalized_expression()


@pytest.fixture(scope="module")
def accessibility(trained_model) -> pd.DataFrame:
    return trained_model.get_normalized_accessibility()


# -- denoised profiles ----------------------------------------------------------------------------


def test_denoised_profiles_are_named_by_cell_and_feature(expression, accessibility, mdata):
    for found, modality in ((expression, "rna"), (accessibility, "atac")):
        assert found.index.equals(mdata.obs_names)
        assert list(found.columns) == list(mdata[modality].var_names)


def test_denoised_profiles_are_the_same_twice(trained_model, expression, accessibility):
    pd.testing.assert_frame_equal(trained_model.get_normalized_expression(), expression)
    pd.testing.assert_frame_equal(trained_model.get_normalized_accessibility(), accessibility)


def test_denoised_profiles_do_not_depend_on_the_batch_size(
    trained_model, expression, accessibility
):
    found = trained_model.get_normalized_expression(batch_size=7)
    np.testing.assert_allclose(found, expression, rtol=1e-4)
    found = trained_model.get_normalized_accessibility(batch_size=7)
    np.testing.assert_allclose(found, accessibility, rtol=1e-4)


def test_denoised_profiles_follow_the_order_of_the_indices(
    trained_model, expression, accessibility
):
    rows = [17, 3, 250]
    found = trained_model.get_normalized_expression(indices=rows)
    pd.testing.assert_frame_equal(found, expression.iloc[rows], rtol=1e-4)
    found = trained_model.get_normalized_accessibility(indices=rows)
    pd.testing.assert_frame_equal(found, accessibility.iloc[rows], rtol=1e-4)


def test_denoised_profiles_of_new_data_are_those_of_the_training_cells(
    trained_model, some_cells, expression, accessibility
):
    found = trained_model.get_normalized_expression(some_cells)
    np.testing.assert_allclose(found, expression.iloc[30:230], rtol=1e-4)
    found = trained_model.get_normalized_accessibility(some_cells)
    np.testing.assert_allclose(found, accessibility.iloc[30:230], rtol=1e-4)


def test_denoised_expression_sums_to_one(expression):
    np.testing.assert_allclose(expression.sum(axis=1), 1, rtol=1e-4)


def test_library_size_scales_the_profile(trained_model, expression, accessibility):
    found = trained_model.get_normalized_expression(library_size=1e4)
    np.testing.assert_allclose(found, 1e4 * expression, rtol=1e-5)
    found = trained_model.get_normalized_accessibility(library_size=1e4)
    np.testing.assert_allclose(found, 1e4 * accessibility, rtol=1e-5)


def test_observed_library_size_is_the_depth_of_the_cell(
    trained_model, mdata, expression, accessibility
):
    found = trained_model.get_normalized_expression(library_size="observed")
    depth = mdata["rna"].X.sum(1).A1[:, None]
    np.testing.assert_allclose(found, depth * expression, rtol=1e-4)
    found = trained_model.get_normalized_accessibility(library_size="observed")
    depth = mdata["atac"].X.sum(1).A1[:, None]
    np.testing.assert_allclose(found, depth * accessibility, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "missing"),
    [("get_normalized_expression", "rna"), ("get_normalized_accessibility", "atac")],
)
def test_cells_without_an_observed_depth_have_one_and_a_warning(with_empty_cells, method, missing):
    with pytest.warns(UserWarning, match="has no depth for 30 cells"):
        found = getattr(with_empty_cells, method)(library_size="observed")
    shares = getattr(with_empty_cells, method)()
    empty = with_empty_cells.adata.obs[f"{missing}_missing"].to_numpy()
    np.testing.assert_allclose(found[empty], shares[empty], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_library_size_may_be_a_number_of_numpy(trained_model, expression, kind):
    found = trained_model.get_normalized_expression(library_size=kind(100))
    np.testing.assert_allclose(found, 100 * expression, rtol=1e-5)


@pytest.mark.parametrize("library_size", [0, -1, np.nan, np.inf, "latent", None])
def test_library_size_that_is_no_depth_is_refused(trained_model, library_size):
    with pytest.raises(
        (TypeError, ValueError), match="`library_size` must be (a .*number|above 0)"
    ):
        trained_model.get_normalized_expression(library_size=library_size)


@pytest.mark.parametrize("depth", ["observed", 700.0, None])
def test_log_normalised_expression_is_the_mean_of_that_of_drawn_counts(
    trained_model, mdata, rng, depth
):
    expression = trained_model.get_normalized_expression(n_points=1)
    depths = np.asarray(mdata["rna"].X.sum(1))
    known = {"observed": depths[:3], None: np.median(depths)}.get(depth, depth)
    theta = trained_model.module.rna_decoder.log_inverse_dispersion.detach()[0].exp().numpy()
    mean = expression.to_numpy(dtype=float)[:3] * known
    # numpy's negative binomial: numbers of failures of probability theta / (theta + mean)
    draws = rng.negative_binomial(theta, theta / (theta + mean), (20_000, *mean.shape))
    logs = np.log1p(1e4 * draws / known)
    found = trained_model.get_log_normalized_expression(
        indices=[0, 1, 2], library_size=depth, n_points=1
    )
    errors = logs.std(0) / np.sqrt(len(draws))
    assert (np.abs(found - logs.mean(0)) < 5 * errors + 1e-6).to_numpy().all()


def test_log_normalised_expression_is_named_and_chosen_as_expression_is(trained_model, mdata):
    whole = trained_model.get_log_normalized_expression()
    assert whole.index.equals(mdata.obs_names)
    assert whole.columns.equals(mdata["rna"].var_names)
    genes = list(mdata["rna"].var_names[[5, 2]])
    some = trained_model.get_log_normalized_expression(indices=[9, 4], gene_list=genes)
    pd.testing.assert_frame_equal(some, whole.iloc[[9, 4]][genes], rtol=1e-5)


def test_log_normalised_expression_of_cells_without_rna_is_at_the_median_depth(with_empty_cells):
    denoise = with_empty_cells.get_log_normalized_expression
    is_empty = np.asarray(with_empty_cells.adata["rna"].X.sum(1))[:, 0] == 0
    with pytest.warns(UserWarning, match="no depth for 30 .* the median of the training cells"):
        own = denoise(library_size="observed")
    at_median = denoise()
    pd.testing.assert_frame_equal(own[is_empty], at_median[is_empty])
    assert not np.allclose(own[~is_empty], at_median[~is_empty], rtol=1e-2)


def test_target_sum_is_that_of_the_log_normalised_counts(trained_model):
    # at small values the logarithm is linear
    small, smaller = (
        trained_model.get_log_normalized_expression(target_sum=target) for target in (1e-3, 1e-4)
    )
    np.testing.assert_allclose(small, 10 * smaller, rtol=1e-2)


@pytest.mark.parametrize("target_sum", [0, -1.0, np.nan, np.inf])
def test_target_sum_that_is_no_positive_number_is_refused(trained_model, target_sum):
    with pytest.raises(ValueError, match="`target_sum` must be"):
        trained_model.get_log_normalized_expression(target_sum=target_sum)


def test_gene_list_chooses_columns_of_the_whole_in_its_order(trained_model, expression):
    genes = list(expression.columns[[40, 3, 77]])
    found = trained_model.get_normalized_expression(gene_list=genes)
    pd.testing.assert_frame_equal(found, expression[genes], rtol=1e-5)


def test_region_list_chooses_columns_of_the_whole_in_its_order(trained_model, accessibility):
    regions = list(accessibility.columns[[140, 3, 77]])
    found = trained_model.get_normalized_accessibility(region_list=regions)
    pd.testing.assert_frame_equal(found, accessibility[regions], rtol=1e-5)


def test_unknown_gene_is_refused(trained_model):
    with pytest.raises(KeyError, match="`gene_list`: 1 of 1 names are unknown: `nobody`"):
        trained_model.get_normalized_expression(gene_list=["nobody"])


def test_unknown_region_is_refused(trained_model):
    with pytest.raises(KeyError, match="`region_list`: 1 of 1 names are unknown: `chr0:1-2`"):
        trained_model.get_normalized_accessibility(region_list=["chr0:1-2"])


@pytest.mark.parametrize("n_points", [1, 4])
@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_profiles_are_the_mean_of_those_decoded_at_fixed_points_of_the_posterior(
    trained_model, modality, n_points
):
    module, law = trained_model.module, {"rna": "px", "atac": "py"}[modality]
    (tensors,) = trained_model._make_data_loader(trained_model.adata, batch_size=N_CELLS)
    with torch.inference_mode():
        outputs = module.embed(tensors)
        qz, decoded = outputs["qz"], []
        for point in cubature_points(n_points, N_LATENT):
            laws = module.decode(tensors, outputs, z=qz.loc + qz.scale * point)
            of_counts = laws[law].distribution()
            decoded.append((of_counts.mean if modality == "rna" else of_counts.rate).numpy())
    found = {
        "rna": trained_model.get_normalized_expression,
        "atac": trained_model.get_normalized_accessibility,
    }[modality](library_size="observed", n_points=n_points)
    np.testing.assert_allclose(found, np.mean(decoded, axis=0), rtol=1e-4)


@pytest.mark.parametrize("method", ["get_normalized_expression", "get_log_normalized_expression"])
def test_fixed_points_are_nearer_the_mean_over_the_posterior_than_its_mean_is(
    trained_model, method
):
    decode = getattr(trained_model, method)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        truth = decode(n_samples=400)
    by_points, at_mean = (
        np.abs(np.log(decode(n_points=n) / truth)).to_numpy().mean() for n in (8, 1)
    )
    assert by_points < 0.5 * at_mean


@pytest.mark.parametrize("n_points", [0, 3, 2.0])
def test_number_of_points_without_pairs_is_refused(trained_model, n_points):
    with pytest.raises((TypeError, ValueError), match="`n_points` must be"):
        trained_model.get_normalized_expression(n_points=n_points)


def test_draws_that_are_not_averaged_have_an_axis_in_front(trained_model):
    draws = {"n_samples": 3, "return_mean": False, "indices": np.arange(20)}
    expression = trained_model.get_normalized_expression(**draws)
    assert expression.shape == (3, 20, N_GENES)
    accessibility = trained_model.get_normalized_accessibility(**draws, batch_size=8)
    assert accessibility.shape == (3, 20, N_PEAKS)


def test_one_draw_is_a_table_as_in_scvi_tools(trained_model, mdata):
    draw = {"n_samples": 1, "return_mean": False, "indices": np.arange(20)}
    found = trained_model.get_normalized_expression(**draw, batch_size=8)
    assert found.index.equals(mdata.obs_names[:20])
    assert found.columns.equals(mdata["rna"].var_names)
    sparse_draw = trained_model.get_normalized_accessibility(**draw, threshold=0.01)
    assert sparse_draw.shape == (20, N_PEAKS)


def test_averaged_draws_are_the_mean_of_the_draws(trained_model, mdata):
    found = []
    for return_mean in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.append(
                trained_model.get_normalized_expression(n_samples=4, return_mean=return_mean)
            )
    assert found[0].index.equals(mdata.obs_names)
    np.testing.assert_allclose(found[0], found[1].mean(0), rtol=1e-5)
    assert (found[1].std(0) > 0).any()


def test_points_beside_draws_are_refused(trained_model):
    with pytest.raises(ValueError, match="`n_points` .* and `n_samples` .*, got 4 and 2: leave"):
        trained_model.get_normalized_expression(n_points=4, n_samples=2)


@pytest.mark.parametrize("averaged", [{"n_samples": 20}, {"n_points": 20}])
def test_what_is_averaged_is_never_held_at_once(trained_model, monkeypatch, averaged):
    value_at, alive = _denoised._Denoiser._at, []

    def counted(self, *args):
        value = value_at(self, *args)
        alive.append(weakref.ref(value))
        # this one, the one before, and their sum
        assert sum(other() is not None for other in alive) <= 3
        return value

    monkeypatch.setattr(_denoised._Denoiser, "_at", counted)
    trained_model.get_normalized_expression(**averaged, batch_size=300)
    assert len(alive) == 20


def test_transform_batch_of_a_cells_own_batch_changes_nothing(trained_model, mdata, expression):
    name = mdata.obs["batch"].cat.categories[0]
    found = trained_model.get_normalized_expression(transform_batch=name)
    own = (mdata.obs["batch"] == name).to_numpy()
    np.testing.assert_allclose(found[own], expression[own], rtol=1e-5)
    assert not np.allclose(found[~own], expression[~own], rtol=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        "get_normalized_expression",
        "get_log_normalized_expression",
        "get_normalized_accessibility",
    ],
)
def test_transform_batch_of_several_batches_is_their_average(trained_model, mdata, method):
    names = list(mdata.obs["batch"].cat.categories)
    denoise = getattr(trained_model, method)
    each = [denoise(transform_batch=name) for name in names]
    np.testing.assert_allclose(denoise(transform_batch=names), sum(each) / 2, rtol=1e-5)
    np.testing.assert_allclose(denoise(transform_batch=names[:1]), each[0], rtol=1e-6)


def test_unknown_batch_is_refused(trained_model):
    with pytest.raises(ValueError, match="`transform_batch` must be one of .*got 'elsewhere'"):
        trained_model.get_normalized_expression(transform_batch="elsewhere")


def test_batches_named_by_numbers_are_found(make_mdata, register, train):
    mdata = make_mdata()
    mdata.obs["run"] = np.arange(300) % 2 + 7
    model = train(register(mdata, batch_key="run"), max_epochs=1)
    plain = model.get_normalized_expression(transform_batch=8)
    numpy = model.get_normalized_expression(transform_batch=mdata.obs["run"].max())
    pd.testing.assert_frame_equal(numpy, plain)


def test_batches_that_are_dates_are_found_and_can_be_averaged_over(make_mdata, register, train):
    mdata = make_mdata()
    days = pd.to_datetime(["2024-01-01", "2024-01-02"])
    mdata.obs["day"] = days[np.arange(300) % 2]
    model = train(register(mdata, batch_key="day"), max_epochs=1)
    each = [model.get_normalized_expression(transform_batch=day) for day in days]
    both = model.get_normalized_expression(transform_batch=mdata.obs["day"].unique())
    np.testing.assert_allclose(both, (each[0] + each[1]) / 2, rtol=1e-5)
    tested = model.differential_expression(
        idx1=np.arange(50), idx2=np.arange(50, 100), batch_correction=True
    )
    assert np.isfinite(tested["proba_de"]).all()


def test_empty_list_of_batches_is_refused(trained_model):
    with pytest.raises(ValueError, match="`transform_batch`"):
        trained_model.get_normalized_expression(transform_batch=[])


@pytest.mark.parametrize("return_numpy", [False, True])
def test_threshold_gives_the_sparse_form_of_the_thresholded_profile(
    trained_model, accessibility, return_numpy
):
    cut = float(np.quantile(accessibility, 0.7))
    found = trained_model.get_normalized_accessibility(threshold=cut, return_numpy=return_numpy)
    if return_numpy:
        assert isinstance(found, sp.csr_matrix)
        assert found.nnz < 0.31 * found.shape[0] * found.shape[1]
    else:
        assert all(isinstance(dtype, pd.SparseDtype) for dtype in found.dtypes)
        assert found.columns.equals(accessibility.columns)
        found = sp.csr_matrix(found.sparse.to_coo())
    np.testing.assert_allclose(
        found.toarray(), accessibility.where(accessibility >= cut, 0), rtol=1e-5
    )


def test_negative_threshold_is_refused(trained_model):
    with pytest.raises(ValueError, match=r"`threshold` must be at least 0 and finite, got -0\.1"):
        trained_model.get_normalized_accessibility(threshold=-0.1)


def test_number_of_draws_is_checked_before_it_is_compared(trained_model):
    with pytest.raises(TypeError, match="`n_samples` must be an integer, got '2'"):
        trained_model.get_normalized_accessibility(threshold=0.1, n_samples="2", return_mean=False)


def test_threshold_on_draws_that_are_not_averaged_is_refused(trained_model):
    with pytest.raises(ValueError, match="set `return_mean=True` or leave `threshold` out"):
        trained_model.get_normalized_accessibility(threshold=0.1, n_samples=2, return_mean=False)


def test_return_numpy_gives_the_values_of_the_table(trained_model, expression, accessibility):
    found = trained_model.get_normalized_expression(return_numpy=True)
    np.testing.assert_array_equal(found, expression)
    found = trained_model.get_normalized_accessibility(return_numpy=True)
    np.testing.assert_array_equal(found, accessibility)


def test_answers_are_decoded_in_eval_mode_and_without_a_graph(trained_model, monkeypatch):
    module, seen = trained_model.module, []
    decode = module.generative

    def watched(*args, **kwargs):
        seen.append((torch.is_grad_enabled(), any(m.training for m in module.modules())))
        return decode(*args, **kwargs)

    monkeypatch.setattr(module, "generative", watched)
    trained_model.get_normalized_expression(n_samples=2)
    assert set(seen) == {(False, False)}


# -- one modality from the other ------------------------------------------------------------------


def denoisers(model: SCMVPModel) -> dict[str, Callable[..., pd.DataFrame]]:
    return {
        "rna": model.get_normalized_expression,
        "atac": model.get_normalized_accessibility,
    }


@pytest.fixture(scope="module")
def of_held_out_cells(make_mdata, register, train) -> tuple[SCMVPModel, np.ndarray]:
    """Model of generated cells, and the rows of those it has not seen."""
    mdata = register(make_mdata(n_cells=520, n_peaks=300, atac_depth=300, rna_depth=300))
    model = train(mdata, max_epochs=40, train_size=0.8, validation_size=0.05)
    return model, model.test_indices


def deviations(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of each cell's profile from the planted one, of logarithms."""
    return np.square(np.log(found) - np.log(truth)).mean(1)


@pytest.mark.parametrize(("source", "target"), [("atac", "rna"), ("rna", "atac")])
def test_profiles_predicted_from_the_other_modality_beat_the_mean_of_the_data(
    of_held_out_cells, source, target
):
    model, rows = of_held_out_cells
    mdata = model.adata
    methods = denoisers(model)
    predicted = methods[target](indices=rows, from_modality=source, return_numpy=True)
    types = mdata.obs["cell_type"].cat.codes.to_numpy()[rows]
    truth = mdata[target].varm["type_profile"].T[types]
    counts = mdata[target].X[model.train_indices].sum(0).A1 + 0.5
    mean = np.broadcast_to(counts / counts.sum(), truth.shape)
    predicted = predicted / predicted.sum(1, keepdims=True)
    assert (deviations(predicted, truth) < deviations(mean, truth)).mean() > 0.75


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_expression_of_unseen_cells_is_predicted_better_from_calibrated_channels(
    make_mdata, register, train
):
    # few fragments of many peaks, which a channel without dropout learns by heart
    mdata = register(make_mdata(n_peaks=2000, atac_depth=25, rna_depth=200))
    dropouts = {"dropout_rate": 0.0, "atac_input_dropout": 0.0}
    model = train(
        mdata,
        architecture={**dropouts, "n_hidden_atac": 32},
        max_epochs=60,
        batch_size=32,
        train_size=0.6,
        validation_size=0.1,
    )
    channel = model.module.calibrations["atac"]
    assert channel.slope < 1 < channel.scale

    def log_likelihood(rows: np.ndarray) -> np.ndarray:
        predicted = model.get_normalized_expression(
            indices=rows, from_modality="atac", return_numpy=True
        )
        return mdata["rna"].X[rows].multiply(np.log(predicted)).sum(1).A1

    unseen, learned = model.test_indices, model.train_indices
    calibrated = log_likelihood(unseen), log_likelihood(learned)
    channel.forget()
    gains = calibrated[0] - log_likelihood(unseen)
    assert gains.mean() > 2 * gains.std() / np.sqrt(len(gains))
    # of which it did say what it is trained to say
    assert calibrated[1].mean() < log_likelihood(learned).mean()


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.parametrize(("source", "target"), [("atac", "rna"), ("rna", "atac")])
def test_modality_that_cells_lack_is_predicted_from_the_other(
    trained_model, some_cells, source, target
):
    methods = denoisers(trained_model)
    assert trained_model.module.calibrations[source].slope != 1
    without = some_cells.copy()
    without[target].X = sp.csr_matrix(without[target].shape, dtype="float32")
    expected = methods[target](without, from_modality=source)
    pd.testing.assert_frame_equal(methods[target](without), expected)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.parametrize(("source", "target"), [("atac", "rna"), ("rna", "atac")])
def test_prediction_from_one_modality_never_sees_the_other(
    trained_model, some_cells, source, target
):
    methods = denoisers(trained_model)
    expected = methods[target](some_cells, from_modality=source)
    without = some_cells.copy()
    without[target].X = sp.csr_matrix(without[target].shape, dtype="float32")
    found = methods[target](without, from_modality=source)
    pd.testing.assert_frame_equal(found, expected)
    if target == "rna":
        found, expected = (
            trained_model.get_log_normalized_expression(cells, from_modality=source)
            for cells in (without, some_cells)
        )
        pd.testing.assert_frame_equal(found, expected)


def test_prediction_from_a_modality_without_counts_is_warned_about(with_empty_cells):
    with pytest.warns(UserWarning, match="30 cells have no atac counts"):
        with_empty_cells.get_normalized_expression(from_modality="atac")


def test_unknown_source_of_a_prediction_is_refused(trained_model):
    with pytest.raises(ValueError, match="`from_modality` must be one of 'joint', 'rna', 'atac'"):
        trained_model.get_normalized_expression(from_modality="ATAC")


# -- beside the cell's own counts -----------------------------------------------------------------


@pytest.mark.parametrize("batches", [None, "batch_1", ["batch_0", "batch_1"]])
def test_own_counts_move_shares_by_what_they_say_of_the_rates_in_the_own_batch(
    trained_model, mdata, batches
):
    genes = list(mdata["rna"].var_names[[3, 1]])
    asked = {"gene_list": genes, "n_points": 1, "return_numpy": True}
    theta = trained_model.module.rna_decoder.log_inverse_dispersion.exp().detach().numpy()[0]
    theta = theta[mdata["rna"].var_names.get_indexer(genes)]
    counts = mdata["rna"][:, genes].X.toarray()
    mean = trained_model.get_normalized_expression(library_size="observed", **asked)
    factor = (counts + theta) / (mean + theta)
    there = trained_model.get_normalized_expression(transform_batch=batches, **asked)
    found = trained_model.get_normalized_expression(
        transform_batch=batches, own_counts=True, **asked
    )
    np.testing.assert_allclose(found, there * factor, rtol=1e-4)


def test_own_counts_predict_the_other_half_of_counts_that_vary_within_types(
    make_mdata, register, train, rng
):
    mdata = make_mdata()
    # what a cell has of a gene beside its type: rates that z cannot know gene by gene
    rates = rng.gamma(0.5, 2.0, mdata["rna"].shape) * mdata["rna"].X.toarray().mean(0)
    held_out = rng.poisson(rates)
    mdata["rna"].X = sp.csr_matrix(rng.poisson(rates), dtype="float32")
    register(mdata)
    model = train(mdata)
    errors = []
    for own_counts in (False, True):
        found = model.get_normalized_expression(
            own_counts=own_counts, library_size="observed", return_numpy=True
        )
        errors.append(((found - held_out) ** 2).mean())
    assert errors[1] < 0.9 * errors[0]


def test_log_normalised_expression_beside_own_counts_is_that_of_further_counts(
    trained_model, mdata, rng
):
    theta = trained_model.module.rna_decoder.log_inverse_dispersion.exp().detach().numpy()[0]
    counts = mdata["rna"].X[:3].toarray()
    asked = {"indices": [0, 1, 2], "n_points": 1, "own_counts": True, "return_numpy": True}
    mean = trained_model.get_normalized_expression(library_size=500.0, **asked).astype(float)
    shape = theta + counts
    draws = rng.negative_binomial(shape, shape / (shape + mean), (20_000, *mean.shape))
    logs = np.log1p(1e4 * draws / 500.0)
    found = trained_model.get_log_normalized_expression(library_size=500.0, **asked)
    errors = logs.std(0) / np.sqrt(len(draws))
    assert (np.abs(found - logs.mean(0)) < 5 * errors + 1e-6).all()


def test_own_counts_are_as_deep_as_the_size_factors_say(make_mdata, register, train, rng):
    mdata = make_mdata()
    mdata.obs["size"] = rng.uniform(0.5, 2.0, mdata.n_obs)
    model = train(register(mdata, rna_size_factor_key="size"), max_epochs=2)
    asked = {"n_points": 1, "return_numpy": True}
    theta = model.module.rna_decoder.log_inverse_dispersion.exp().detach().numpy()[0]
    mean = model.get_normalized_expression(library_size="observed", **asked)
    share = model.get_normalized_expression(**asked)
    found = model.get_normalized_expression(own_counts=True, **asked)
    counts = mdata["rna"].X.toarray()
    np.testing.assert_allclose(found, share * (counts + theta) / (mean + theta), rtol=1e-4)


def test_own_counts_of_cells_without_rna_change_nothing(with_empty_cells):
    plain, beside = (
        with_empty_cells.get_normalized_expression(own_counts=own) for own in (False, True)
    )
    empty = with_empty_cells.adata.obs["rna_missing"].to_numpy()
    pd.testing.assert_frame_equal(beside[empty], plain[empty])
    assert not np.allclose(beside[~empty], plain[~empty], rtol=0.1)


def test_own_counts_have_no_part_in_a_prediction_from_accessibility_alone(trained_model):
    with pytest.raises(ValueError, match='`from_modality="atac"` .* and `own_counts=True`'):
        trained_model.get_normalized_expression(from_modality="atac", own_counts=True)


# -- accessibility on disk ------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [None, 0.004])
def test_written_accessibility_is_what_the_model_returns(trained_model, tmp_path, threshold):
    model, rows = trained_model, np.arange(40)[::-1]
    regions = list(model.adata["atac"].var_names[[5, 0, 9]])
    asked = {"indices": rows, "region_list": regions, "batch_size": 16, "threshold": threshold}
    asked |= {"library_size": 3.0, "transform_batch": "batch_1", "from_modality": "rna"}
    model.write_normalized_accessibility(tmp_path / "found.zarr", **asked)
    found, expected = (
        ad.read_zarr(tmp_path / "found.zarr"),
        model.get_normalized_accessibility(**asked),
    )
    np.testing.assert_array_equal(found.to_df().to_numpy(), expected.to_numpy())
    assert list(found.obs_names) == list(expected.index)
    assert list(found.var_names) == regions


def test_a_negative_threshold_is_refused_before_anything_is_written(trained_model, tmp_path):
    with pytest.raises(ValueError, match="`threshold`"):
        trained_model.write_normalized_accessibility(tmp_path / "found.zarr", threshold=-1)
    assert not (tmp_path / "found.zarr").exists()
