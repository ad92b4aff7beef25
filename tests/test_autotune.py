"""Tuning with scvi-tools: its workers set up the MuData, train the model, report a metric."""

import numpy as np
import pytest

from scmvp_scvi import SCMVPModel

METRICS = ("elbo_validation", "reconstruction_loss_validation", "validation_loss")


@pytest.mark.parametrize("metric", METRICS)
def test_metric_to_tune_by_is_logged_once_an_epoch(trained_model, metric):
    values = trained_model.history[metric].to_numpy(dtype=float)
    assert values.shape == (30, 1)
    assert np.isfinite(values).all()


@pytest.mark.slow
# scib-metrics brings JAX, which warns of every process that Ray starts
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
def test_tuning_reports_the_metric_of_each_sample(make_mdata, register, small, tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra `autotune`")
    pytest.importorskip("hyperopt", reason="needs the extra `autotune`")
    pytest.importorskip("scib_metrics", reason="needs the extra `autotune`")
    from ray import tune
    from scvi.autotune import run_autotune

    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    learning_rate = tune.loguniform(1e-4, 1e-2)
    try:
        experiment = run_autotune(
            SCMVPModel,
            mdata,
            metrics=["elbo_validation"],
            mode="min",
            search_space={
                "model_params": {**small, "n_clusters": 3, "n_latent": tune.choice([4, 6])},
                "train_params": {
                    "max_epochs": 1,
                    "accelerator": "cpu",
                    "devices": 1,
                    "plan_kwargs": {"lr": learning_rate},
                },
            },
            num_samples=2,
            seed=0,
            resources={"cpu": 1},
            logging_dir=str(tmp_path),
        )
    finally:
        ray.shutdown()
    grid = experiment.result_grid
    assert grid.errors == []
    reported = [result.metrics["elbo_validation"] for result in grid]
    assert len(set(reported)) == 2
    assert np.isfinite(reported).all()
    rates = [result.config["train_params"]["plan_kwargs"]["lr"] for result in grid]
    assert len(set(rates)) == 2
    best = grid.get_best_result("elbo_validation", "min")
    assert best.metrics["elbo_validation"] == min(reported)
