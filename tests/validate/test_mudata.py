"""Only a MuData of paired cells passes; the way out of the others works."""

import anndata
import mudata
import numpy as np
import pytest

from scmvp_scvi._validate import (
    check_is_mudata,
    check_modalities,
    check_paired,
    check_unique_features,
    find_counts,
)

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")

LAYERS = {"rna_layer": None, "atac_layer": None}
MODALITIES = {"rna_layer": "rna", "atac_layer": "atac"}


def is_paired(mdata):
    rna, atac = (mdata[key].X.toarray()[:, 0] for key in ("rna", "atac"))
    names = [f"cell{int(value) // 10}" for value in rna]
    return np.array_equal(rna, atac) and names == list(mdata.obs_names) == list(mdata.obs["name"])


def test_mudata_of_two_modalities_passes_every_check_of_its_shape(make_mdata):
    mdata = make_mdata()
    check_is_mudata(mdata)
    check_modalities(mdata, MODALITIES, LAYERS)
    check_paired(mdata, "rna", "atac")
    check_unique_features(mdata["rna"], "rna")


@pytest.mark.parametrize(("make", "found"), [(anndata.AnnData, "an AnnData"), (dict, "a dict")])
def test_other_objects_than_mudata_are_told_how_to_build_one(make, found):
    with pytest.raises(TypeError, match=rf"got {found}\. .*mudata\.MuData\(\{{\"rna\": rna"):
        check_is_mudata(make())


def test_mudata_of_shared_features_is_refused(make_modality, cells):
    modalities = {"rna": make_modality(cells[:3], "g"), "atac": make_modality(cells[3:], "g")}
    mdata = mudata.MuData(modalities, axis=1)
    with pytest.raises(ValueError, match="must share its cells between modalities .* axis=1"):
        check_is_mudata(mdata)


def test_view_of_mudata_is_refused_and_its_copy_passes(make_mdata, run_way_out):
    view = make_mdata()[:3]
    with pytest.raises(ValueError, match="view in `mdata` itself") as error:
        check_is_mudata(view)
    check_is_mudata(run_way_out(error, view, "mdata = mdata.copy"))


def test_views_pass_where_they_are_allowed_and_other_objects_do_not(make_mdata):
    check_is_mudata(make_mdata()[:3], allow_view=True)
    with pytest.raises(TypeError, match="got an AnnData"):
        check_is_mudata(make_mdata()[:3]["rna"], allow_view=True)


def test_view_in_one_modality_is_refused_and_its_copy_passes(make_modality, run_way_out, cells):
    atac = make_modality([*cells, "cell6"], "peak")[:6]
    mdata = mudata.MuData({"rna": make_modality(cells, "gene"), "atac": atac})
    with pytest.raises(ValueError, match=r'view in `mdata\["atac"\]`\.') as error:
        check_is_mudata(mdata)
    check_is_mudata(run_way_out(error, mdata, "mdata = mdata.copy"))


def test_unknown_modality_is_reported_with_what_is_there_and_near_matches(make_mdata):
    modalities = {"rna_layer": "RNA", "atac_layer": "atac"}
    match = "maps `rna_layer` to `RNA`, .* it has `rna`, `atac`. Did you mean `rna`?"
    with pytest.raises(KeyError, match=match):
        check_modalities(make_mdata(), modalities, LAYERS)


def test_modality_of_an_obs_column_must_exist_too_but_may_be_none(make_mdata):
    check_modalities(make_mdata(), {**MODALITIES, "batch_key": None}, LAYERS)
    with pytest.raises(KeyError, match="maps `batch_key` to `prot`"):
        check_modalities(make_mdata(), {**MODALITIES, "batch_key": "prot"}, LAYERS)


def test_count_matrix_without_a_modality_is_refused(make_mdata):
    with pytest.raises(ValueError, match="must name the modality of `atac_layer`"):
        check_modalities(make_mdata(), {"rna_layer": "rna"}, LAYERS)


def test_one_modality_for_both_assays_is_refused(make_mdata):
    with pytest.raises(ValueError, match="different modalities, got `rna` for both"):
        check_modalities(make_mdata(), {"rna_layer": "rna", "atac_layer": "rna"}, LAYERS)


def test_unknown_layer_is_reported_with_near_matches(make_mdata):
    mdata = make_mdata()
    mdata["atac"].layers["counts"] = mdata["atac"].X
    match = r"`atac_layer=\"count\"` is not a layer .* which has `counts`.*mean `counts`\?"
    with pytest.raises(KeyError, match=match):
        check_modalities(mdata, MODALITIES, {"rna_layer": None, "atac_layer": "count"})


def test_empty_x_is_reported_with_the_layers_there_are(make_mdata):
    mdata = make_mdata()
    mdata["rna"].layers["counts"] = mdata["rna"].X
    mdata["rna"].X = None
    with pytest.raises(ValueError, match=r"\.X` is empty.*`rna_layer`: there are `counts`"):
        check_modalities(mdata, MODALITIES, LAYERS)


def test_find_counts_returns_the_layer_or_x(make_modality, cells):
    adata = make_modality(cells, "gene")
    adata.layers["doubled"] = adata.X * 2
    x = find_counts(adata, None, argument="rna_layer", modality="rna")
    layer = find_counts(adata, "doubled", argument="rna_layer", modality="rna")
    np.testing.assert_array_equal(layer.toarray(), 2 * x.toarray())


def test_same_cells_in_another_order_are_refused_and_the_way_out_pairs_them(
    make_mdata, run_way_out, cells
):
    mdata = make_mdata(atac_cells=cells[::-1])
    with pytest.raises(ValueError, match="hold the same 6 cells in different orders") as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "mdata = scmvp_scvi.pp.inter")
    check_paired(fixed, "rna", "atac")
    assert fixed.n_obs == 6
    assert is_paired(fixed)


def test_modality_replaced_in_another_order_without_update_is_paired_by_the_way_out(
    make_mdata, run_way_out
):
    mdata = make_mdata()
    mdata.mod["atac"] = mdata["atac"][::-1].copy()
    with pytest.raises(ValueError, match="different orders") as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "mdata = scmvp_scvi.pp.inter")
    check_paired(fixed, "rna", "atac")
    assert is_paired(fixed)


def test_modalities_in_another_order_than_mdata_obs_are_refused_and_the_way_out_pairs_them(
    make_mdata, run_way_out
):
    mdata = make_mdata()
    for key in ("rna", "atac"):
        mdata.mod[key] = mdata[key][::-1].copy()
    with pytest.raises(ValueError, match="different orders") as error:
        check_paired(mdata, "rna", "atac")
    assert is_paired(run_way_out(error, mdata, "mdata = scmvp_scvi.pp.inter"))


def test_unpaired_cells_are_counted_and_the_way_out_keeps_the_shared_ones(make_mdata, run_way_out):
    mdata = make_mdata(atac_cells=["cell7", "cell4", "cell1", "cell3"])
    match = "7 cells in `mdata.obs`, 1 are missing in `rna` and 3 in `atac`. Keep the 3 shared"
    with pytest.raises(ValueError, match=match) as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "mdata = scmvp_scvi.pp.inter")
    check_paired(fixed, "rna", "atac")
    assert set(fixed.obs_names) == {"cell1", "cell3", "cell4"}
    assert is_paired(fixed)


def test_unpaired_cells_can_all_be_kept_by_the_second_way_out(make_mdata, run_way_out):
    mdata = make_mdata(atac_cells=["cell7", "cell4", "cell1", "cell3"])
    with pytest.raises(ValueError, match="or keep all, with zeros in the modality") as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "mdata = scmvp_scvi.pp.union")
    check_paired(fixed, "rna", "atac")
    assert list(fixed.obs_names) == list(mdata.obs_names)


def test_modalities_without_a_shared_cell_name_show_one_name_of_each(make_mdata, cells):
    mdata = make_mdata(atac_cells=[f"{cell}-atac" for cell in cells])
    with pytest.raises(ValueError, match="no cell name is in both: `cell0` .* `cell0-atac` one"):
        check_paired(mdata, "rna", "atac")


def test_cells_renamed_after_mdata_was_built_ask_for_an_update(make_mdata, cells):
    mdata = make_mdata()
    for key in ("rna", "atac"):
        mdata[key].obs_names = [f"{cell}-1" for cell in cells]
    with pytest.raises(ValueError, match=r"Run `mdata\.update\(\)` first"):
        check_paired(mdata, "rna", "atac")


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
@pytest.mark.filterwarnings("ignore:obs_names are not unique:UserWarning")
def test_duplicated_cell_names_are_listed(make_modality, make_mdata):
    adata = make_modality(["cell0", "cell0", "cell1"], "gene")
    mdata = make_mdata()
    mdata.mod["atac"] = adata
    with pytest.raises(ValueError, match="1 are duplicated in `atac`: `cell0`"):
        check_paired(mdata, "rna", "atac")
