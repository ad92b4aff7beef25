"""What every function of `pp` refuses, tried through the public ones."""

import re

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from mudata import MuData

from scmvp_scvi import pp, tl
from scmvp_scvi._mudata import without_pulling


@pytest.fixture
def pair(make_pair, rng) -> MuData:
    return make_pair(rng.poisson(1.0, (8, 5)), rng.poisson(1.0, (8, 6)))


@pytest.fixture(
    params=[
        pp.qc,
        pp.tfidf,
        pp.intersect_cells,
        pp.union_cells,
        pp.reads_to_fragments,
        lambda mdata, **keys: pp.select_features(mdata, n_peaks=2, **keys),
        lambda mdata, **keys: pp.filter_cells_and_features(mdata, min_genes=1, **keys),
        lambda mdata, **keys: pp.mask_regions(mdata, "regions.bed", **keys),
    ],
    ids=["qc", "tfidf", "intersect", "union", "fragments", "select", "filter", "mask"],
)
def function(request, tmp_path, monkeypatch):
    (tmp_path / "regions.bed").write_text("chr1\t120\t130\n")
    monkeypatch.chdir(tmp_path)
    return request.param


def tables(result) -> list[pd.DataFrame]:
    """All that a function of `pp` returned."""
    if isinstance(result, MuData):
        layers = [a.to_df(layer) for a in result.mod.values() for layer in (None, *a.layers)]
        return [result.obs, result.var, *(a.var for a in result.mod.values()), *layers]
    if isinstance(result, pp.QualityReport):
        return [result.summary, result.cells]
    return [pd.DataFrame(result.toarray())]


def test_views_are_read_as_their_copies_are(pair, function):
    view = pair[1:7]
    found, expected = tables(function(view)), tables(function(view.copy()))
    for table, expected_table in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(table, expected_table)
    assert view.is_view


def test_dense_counts_in_half_precision_are_read_as_others_are(pair, function):
    half, single = pair.copy(), pair.copy()
    for key in pair.mod:
        half[key].X = pair[key].X.toarray().astype(np.float16)
        single[key].X = pair[key].X.toarray().astype(np.float32)
    for table, expected in zip(tables(function(half)), tables(function(single)), strict=True):
        pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_unknown_modality_is_refused_with_those_there_are(pair, function):
    with pytest.raises(KeyError, match='`atac_key="atak"` is not .* Did you mean `atac`'):
        function(pair, atac_key="atak")


def test_anndata_is_refused(pair, function):
    with pytest.raises(TypeError, match="`mdata` must be a MuData .* got an AnnData"):
        function(pair["atac"])


def test_duplicate_peaks_are_refused(pair, function):
    pair["atac"].var_names = ["chr1:0-50", *pair["atac"].var_names[:-1]]
    with pytest.raises(ValueError, match="Feature names must be unique, but 1 are .*`chr1:0-50`"):
        function(pair)


def test_duplicate_cells_are_refused(pair, function):
    pair["atac"].obs_names = ["cell1", *pair["atac"].obs_names[1:]]
    with pytest.raises(ValueError, match="Cell names must be unique, but 1 are .*`cell1`"):
        function(pair)


def test_changed_modalities_are_refused_until_mdata_is_updated(pair, function):
    pair["atac"]._inplace_subset_var(np.arange(4))
    with pytest.raises(ValueError, match=r"after `mdata` was built. Run `mdata.update\(\)"):
        function(pair)


def test_renamed_features_are_read_once_mdata_is_updated(pair, function):
    with without_pulling():  # then they stand behind those that kept their names
        pair["rna"].var_names = ["gene5", *pair["rna"].var_names[1:]]
        pair.update()
    assert pair.var_names[-1] == "gene5"
    anew = MuData({key: adata.copy() for key, adata in pair.mod.items()})
    found, expected = tables(function(pair)), tables(function(anew))
    for table, expected_table in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(table, expected_table)


@pytest.mark.parametrize("name", ["tfidf", "reads_to_fragments", "filter", "select", "mask"])
def test_cells_that_no_modality_holds_any_more_are_refused_until_mdata_is_updated(
    pair, name, tmp_path
):
    (tmp_path / "regions.bed").write_text("chr1\t120\t130\n")
    function = {
        "tfidf": pp.tfidf,
        "reads_to_fragments": pp.reads_to_fragments,
        "filter": lambda mdata: pp.filter_cells_and_features(mdata, min_genes=1),
        "select": lambda mdata: pp.select_features(mdata, n_peaks=2),
        "mask": lambda mdata: pp.mask_regions(mdata, tmp_path / "regions.bed"),
    }[name]
    for adata in pair.mod.values():
        adata._inplace_subset_obs(np.arange(5))
    with pytest.raises(ValueError, match=r"after `mdata` was built. Run `mdata.update\(\)"):
        function(pair)
    pair.update()
    assert len(tables(function(pair))[0]) == 5


def test_cells_that_no_modality_holds_any_more_are_counted_where_cells_are(pair):
    for adata in pair.mod.values():
        adata._inplace_subset_obs(np.arange(5))
    assert pp.qc(pair).value("both", "cells without any count") >= 3
    for pair_cells in (pp.intersect_cells, pp.union_cells):
        paired = pair_cells(pair)
        assert list(paired.obs_names) == list(pair["rna"].obs_names)
        assert paired.uns["scmvp_removed"]["removed"].sum() == 3


@pytest.mark.parametrize(
    "name", ["qc", "intersect_cells", "union_cells", "filter_cells_and_features"]
)
def test_swapped_modalities_are_refused_and_the_way_out_swaps_them(pair, name):
    rules = {"min_genes": 1} if name.startswith("filter") else {}
    swapped = MuData({"rna": pair["atac"], "atac": pair["rna"]})
    with pytest.raises(ValueError, match="are named like peaks: `chr1:0-50`") as error:
        getattr(pp, name)(swapped, **rules)
    assert '`rna_key="atac", atac_key="rna"`' in str(error.value)
    getattr(pp, name)(swapped, rna_key="atac", atac_key="rna", **rules)


def test_peaks_in_both_modalities_are_refused(pair):
    peaks = pair["atac"].copy()
    peaks.var_names = [f"chr2-{i}-{i + 1}" for i in range(6)]
    with pytest.raises(ValueError, match="like peaks: .* Build the MuData with genes in one"):
        pp.qc(MuData({"rna": peaks, "atac": pair["atac"]}))


def test_one_modality_for_both_is_refused(pair):
    with pytest.raises(ValueError, match='must be different modalities, got "rna" for both'):
        pp.qc(pair, atac_key="rna")


def test_data_on_disk_are_refused_with_the_command_that_reads_them(pair, tmp_path):
    pair.write(tmp_path / "pair.h5mu")
    on_disk = mudata.read_h5mu(tmp_path / "pair.h5mu", backed="r")
    with pytest.raises(ValueError, match=r"must be in memory.*read_h5mu\(\".*pair.h5mu\"\)"):
        pp.qc(on_disk)


@pytest.mark.parametrize("function", [pp.qc, lambda mdata: tl.permute_pairing(mdata, "group")])
def test_modalities_on_disk_in_files_of_their_own_are_read_by_the_way_out(
    make_pair, rng, tmp_path, function
):
    pair = make_pair(rng.poisson(1.0, (8, 5)), rng.poisson(1.0, (8, 6)))
    modalities = {}
    for key, adata in pair.mod.items():
        adata.obs["group"] = "one"
        adata.write_h5ad(tmp_path / f"{key}.h5ad")
        modalities[key] = anndata.read_h5ad(tmp_path / f"{key}.h5ad", backed="r")
    on_disk = MuData(modalities)
    with pytest.raises(ValueError, match="`rna` must be in memory, but its matrix") as error:
        function(on_disk)
    (line,) = re.findall("Read it: `([^`]*)`", str(error.value))
    exec(line, {"mdata": on_disk})
    function(on_disk)
