"""Figures without a screen, and the tables that are drawn."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def links() -> pd.DataFrame:
    """Three peaks around one gene, two of them linked, and one of another gene."""
    return pd.DataFrame(
        {
            "gene": ["A", "A", "A", "B"],
            "peak": ["chr1:500-700", "chr1:1400-1600", "chr1:2900-3100", "chr2:100-300"],
            "chrom": ["chr1", "chr1", "chr1", "chr2"],
            "start": [500, 1_400, 2_900, 100],
            "end": [700, 1_600, 3_100, 300],
            "tss": [2_000, 2_000, 2_000, 900],
            "strand": ["-", "-", "-", "+"],
            "distance": [1_400, 500, -1_000, -700],
            "score": [0.2, 0.8, -0.4, 0.6],
            "q_value": [0.5, 0.01, 0.02, 0.03],
        }
    )


@pytest.fixture
def expression() -> pd.DataFrame:
    return pd.DataFrame({"A": [0.0, 2.0, 1.0], "B": [3.0, 1.0, 1.0]}, index=["x", "y", "z"])


@pytest.fixture
def accessibility(links, rng) -> pd.DataFrame:
    return pd.DataFrame(rng.random((3, 4)), index=["x", "y", "z"], columns=links["peak"])


@pytest.fixture
def probs() -> pd.DataFrame:
    """A certain cell, one torn between two clusters, and one that could be in any."""
    values = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]]
    return pd.DataFrame(values, columns=["0", "1", "2", "3"])


@pytest.fixture
def history() -> dict[str, pd.DataFrame]:
    """What scvi-tools keeps: tables of objects, one column each."""
    curves = {
        "elbo_train": [3.0, 2.0],
        "elbo_validation": [4.0, np.nan],
        "kl_mixture_train": [1.0, 1.5],
        "alignment_rna_train": [0.0, 0.0],
        "kl_weight": [1.0, 1.0],
    }
    return {name: pd.DataFrame({name: values}, dtype=object) for name, values in curves.items()}
