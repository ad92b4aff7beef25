"""The card tells what the model knows of itself, and the hub's model is the one that was saved."""

import sys
from importlib.metadata import version

import numpy as np
import pytest
from huggingface_hub import ModelCard
from scvi.hub import HubMetadata, HubModel

from scmvp_scvi import SCMVPModel
from scmvp_scvi.hub import model_card


@pytest.fixture(scope="module")
def card(trained_model) -> ModelCard:
    return model_card(
        trained_model,
        license="cc-by-4.0",
        title="Mouse | cortex",
        description="SNARE-seq of the adult mouse.",
        metrics={"Leiden NMI": 0.75612},
        tissues=["cortex"],
        references=["Chen 2019"],
    )


def rows_of(card: ModelCard) -> dict[str, str]:
    """Every row of two cells in the page."""
    cells = [
        line.strip("| ").split(" | ") for line in card.text.splitlines() if line.startswith("|")
    ]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_header_has_licence_library_and_tags(card):
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "scvi-tools")
    expected = {
        "model_cls_name:SCMVPModel",
        f"scvi_version:{version('scvi-tools')}",
        f"anndata_version:{version('anndata')}",
        "modality:rna",
        "modality:atac",
        "tissue:cortex",
    }
    assert expected <= set(card.data.tags)


def test_page_counts_cells_features_and_batches(card, mdata):
    rows = rows_of(card)
    assert rows["cells"] == "300"
    assert rows["genes"] == f"80 in `rna`, named like `{mdata['rna'].var_names[0]}`"
    assert rows["peaks"] == f"150 in `atac`, named like `{mdata['atac'].var_names[0]}`"
    assert (rows["batches"], rows["labels"], rows["counts"]) == ("2", "none", "as registered")


def test_page_has_all_settings_of_the_model_and_its_data(card, trained_model):
    rows = rows_of(card)
    for name, value in trained_model.init_params_["non_kwargs"].items():
        assert rows[f"`{name}`"] == f"`{value!r}`"
    assert rows["`batch_key`"] == "`'batch'`"
    assert rows["`modalities`"] == "`{'rna_layer': 'rna', 'atac_layer': 'atac'}`"


def test_page_has_the_end_of_the_training_and_the_metrics(card, trained_model):
    rows = rows_of(card)
    assert (rows["epochs"], rows["components in use"]) == ("30", "4")
    last = trained_model.history["elbo_validation"].iloc[-1, 0]
    assert float(rows["`elbo_validation`"]) == pytest.approx(last, rel=1e-3)
    assert rows["Leiden NMI"] == "0.7561"


def test_page_has_description_licence_and_citations(card):
    assert card.text.startswith("\n# Mouse | cortex")
    assert "SNARE-seq of the adult mouse." in card.text
    assert "## Licence\n\n`cc-by-4.0`" in card.text
    assert "doi     = {10.1186/s13059-021-02595-6}" in card.text
    assert "- Chen 2019" in card.text


def test_bar_in_a_value_does_not_end_its_cell(trained_model):
    text = model_card(trained_model, license="mit", metrics={"F1 | joint": 0.5}).text
    assert "| F1 \\| joint | 0.5 |" in text


def test_model_without_log_and_metrics_has_a_card(make_mdata, register, train):
    model = train(register(make_mdata(n_cells=120)), max_epochs=1)
    model.history_ = None
    rows = rows_of(model_card(model, license="mit"))
    assert "epochs" not in rows
    assert rows["components in use"] == "4"


def test_hub_model_answers_as_the_minified_model_that_was_saved(
    make_mdata, register, train, tmp_path
):
    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    model = train(mdata, max_epochs=1)
    latent = model.get_latent_representation()
    model.minify_mudata()
    card = model_card(model, license="mit")
    assert rows_of(card)["counts"] == "replaced by the posterior of each cell (minified)"

    folder = str(tmp_path / "model")
    model.save(folder, save_anndata=True)
    metadata = HubMetadata.from_dir(
        folder, anndata_version=version("anndata"), model_parent_module="scmvp_scvi"
    )
    HubModel(folder, metadata=metadata, model_card=card).save()

    reloaded = HubModel(folder)
    assert isinstance(reloaded.model, SCMVPModel)
    np.testing.assert_array_equal(reloaded.model.get_latent_representation(), latent)
    assert reloaded.model_card.text.strip() == card.text.strip()


def test_model_that_was_not_trained_gets_no_card(mdata, small):
    with pytest.raises(RuntimeError, match="must be trained before it gets a card"):
        model_card(SCMVPModel(mdata, **small), license="mit")


def test_card_without_huggingface_hub_names_the_extra(trained_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[hub\]'"):
        model_card(trained_model, license="mit")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"tissues": "cortex"}, r"`tissues` must be a list, got 'cortex'.*pass \['cortex'\]"),
        ({"references": "Smith 2020"}, "`references` must be a list"),
        ({"license": None}, "`license` must be the identifier of a licence.*got None"),
        ({"metrics": [1]}, "`metrics` must map names to values, got a list"),
    ],
)
def test_arguments_that_would_be_published_in_pieces_are_refused(trained_model, argument, message):
    with pytest.raises(TypeError, match=message):
        model_card(trained_model, **{"license": "cc0-1.0", **argument})
