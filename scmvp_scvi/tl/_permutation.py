"""Links that are left when each cell's accessibility is another cell's of its type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from mudata import MuData

from scmvp_scvi._mudata import mudata_of
from scmvp_scvi._validate import (
    check_has_columns,
    check_in,
    check_integer_at_least,
    find_grouping,
    seen_cells_and_features,
    shown,
    warn_user,
)
from scmvp_scvi.tl._peak_gene_links import peak_gene_links
from scmvp_scvi.tl._values import check_pair, find_values

if TYPE_CHECKING:
    from collections.abc import Sequence


FindLinks = Callable[[MuData], pd.DataFrame]

_PAIR = ["gene", "peak"]


@dataclass(frozen=True)
class PermutedExcess:
    """Links of the data beside those of permuted data.

    Parameters
    ----------
    links
        The links of the data, with ``permuted_score``, the mean score of the pair in permuted
        data, and ``excess``, its score above that.
    n_links
        Pairs of the data with a q-value of at most the limit.
    n_permuted
        The same in each permutation.
    """

    links: pd.DataFrame
    n_links: int
    n_permuted: tuple[int, ...]

    @property
    def n_excess(self) -> float:
        """Links of the data above the mean number in permuted data."""
        return self.n_links - float(np.mean(self.n_permuted))

    @property
    def share(self) -> float:
        """The excess as a share of the links of the data; NaN without links."""
        return self.n_excess / self.n_links if self.n_links > 0 else float("nan")


def permute_pairing(
    mdata: MuData,
    within: str | Sequence[str],
    *,
    seed: int = 0,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> MuData:
    """Give each cell the accessibility of another cell of its group.

    Cells without counts in a modality are a group of their own, so that as many cells as before
    have both. A cell that is alone in its group keeps its own, with a warning if it has any.

    Parameters
    ----------
    mdata
        Paired cells in one order.
    within
        Column of ``mdata.obs`` or of the ``.obs`` of a modality, or several, whose groups are
        kept: a cell type, and a batch.
    seed
        Of the permutation.
    rna_layer, atac_layer
        Layers with the counts; None for ``.X``. All layers are permuted.
    rna_key, atac_key
        The two modalities. Others are left out.

    Returns
    -------
    A new MuData. Matrices, layers, ``.obsm`` and ``.obs`` of the ATAC modality are those of the
    other cell; cell names, RNA and ``mdata.obs`` stay. What else `mdata` holds of both modalities,
    such as joint embeddings, is left out: it is of the true pairing. A column of ``mdata.obs``
    that describes the accessibility of a cell, such as its size factor or a covariate, stays too,
    and is then that of a cell with other accessibility: it belongs in the ``.obs`` of the ATAC
    modality, which is permuted.

    Raises
    ------
    TypeError, KeyError, ValueError
        If these are not paired data, or there are no such groups.
    """
    check_integer_at_least(seed, 0, name="seed")
    check_pair(mdata, rna_key, atac_key)
    keys = [within] if isinstance(within, str) else list([] if within is None else within)
    if not keys:
        raise ValueError(
            "`within` must name one column or more, got none. Name the one of the cell types."
        )
    groups = pd.DataFrame(
        {
            key: find_grouping(mdata, key, argument="within", modality_keys=(rna_key, atac_key))
            for key in keys
        }
    )
    sides = (("rna_layer", rna_key, rna_layer), ("atac_layer", atac_key, atac_layer))
    measured = [
        seen_cells_and_features(find_values(mdata, key, layer, argument=name))[0]
        for name, key, layer in sides
    ]
    columns = [*(groups[key] for key in keys), *measured]
    rng = np.random.default_rng(seed)
    source = np.arange(mdata.n_obs)
    for cells in groups.groupby(columns, observed=True).indices.values():
        order = rng.permutation(cells)
        source[order] = np.roll(order, 1)  # one cycle, in which no cell stays
    n_alone = int(((source == np.arange(mdata.n_obs)) & np.all(measured, axis=0)).sum())
    if n_alone > 0:
        warn_user(
            f"{n_alone} of {mdata.n_obs} cells are the only ones of their group in `within` with "
            "counts in both modalities, and keep their own accessibility, so that permuted data "
            "hold true pairs. Name coarser groups to have all cells permuted.",
        )
    atac = mdata[atac_key][source].copy()
    atac.obs_names = mdata.obs_names
    return mudata_of({rna_key: mdata[rna_key].copy(), atac_key: atac}, mdata.obs)


def permuted_excess(
    mdata: MuData,
    within: str | Sequence[str],
    *,
    find_links: FindLinks | None = None,
    n_permutations: int = 3,
    max_q_value: float = 0.05,
    seed: int = 0,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> PermutedExcess:
    """Count the links that need the pairing of the cells, and not only their types.

    Permuting the pairing within types keeps every difference between types, and removes what the
    cells of one type have in common beyond it. Links that stay are those of types; where denoised
    values have them and counts do not, the model has put them there.

    Parameters
    ----------
    mdata
        Paired cells in one order.
    within
        Column, or several, within whose groups cells are permuted, as in `permute_pairing`.
    find_links
        Takes a MuData and returns links with q-values, each pair once, by default
        `peak_gene_links` of raw counts. For a model, it should train anew on the data it is given:
        a model that has seen the true pairing remembers it.
    n_permutations
        Number of permutations.
    max_q_value
        Largest q-value of a link, up to 1.
    seed
        Of the permutations.
    rna_layer, atac_layer
        Layers with the counts; None for ``.X``.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    The numbers of links, and both scores of each pair.

    Raises
    ------
    TypeError, KeyError, ValueError
        If these are not paired data, there are no such groups, or `find_links` returns no links
        that can be counted.

    Examples
    --------
    >>> from scmvp_scvi import datasets, tl
    >>> mdata = datasets.synthetic(n_cells=300)
    >>> found = tl.permuted_excess(
    ...     mdata,
    ...     ["cell_type", "batch"],
    ...     find_links=lambda data: tl.peak_gene_links(data, window=100_000),
    ...     n_permutations=1,
    ... )
    """
    check_integer_at_least(n_permutations, 1, name="n_permutations")
    check_integer_at_least(seed, 0, name="seed")
    check_in(max_q_value, "(0, 1]", name="max_q_value")
    find_links = find_links or partial(
        peak_gene_links,
        rna_layer=rna_layer,
        atac_layer=atac_layer,
        rna_key=rna_key,
        atac_key=atac_key,
    )
    links = _checked(find_links(mdata))
    if links["q_value"].isna().all():
        raise ValueError(
            "`find_links` must return links with q-values, by which they are counted, but all are "
            "NaN: let it compare scores with a null, such as by `n_matched=100`."
        )
    scores, n_permuted = [], []
    for child in np.random.SeedSequence(seed).generate_state(n_permutations):
        data = permute_pairing(
            mdata,
            within,
            seed=int(child),
            rna_layer=rna_layer,
            atac_layer=atac_layer,
            rna_key=rna_key,
            atac_key=atac_key,
        )
        permuted = _checked(find_links(data))
        n_permuted.append(int((permuted["q_value"] <= max_q_value).sum()))
        scores.append(links[_PAIR].merge(permuted[[*_PAIR, "score"]], how="left")["score"])
    permuted_score = pd.concat(scores, axis=1).mean(axis=1).to_numpy()
    links = links.assign(
        permuted_score=permuted_score, excess=links["score"].to_numpy() - permuted_score
    )
    n_links = int((links["q_value"] <= max_q_value).sum())
    return PermutedExcess(links, n_links, tuple(n_permuted))


def _checked(links: pd.DataFrame) -> pd.DataFrame:
    """Links of which each pair is there once."""
    columns = (*_PAIR, "score", "q_value")
    check_has_columns(links, columns, argument="find_links(mdata)", made_by="tl.peak_gene_links")
    is_again = links.duplicated(_PAIR)
    if is_again.any():
        raise ValueError(
            f"`find_links` must return each pair once, but {is_again.sum()} of {len(links)} are "
            f"there again, such as of {shown(links.loc[is_again, 'gene'].unique())}. Keep one of "
            f"each: `links.drop_duplicates({_PAIR})`."
        )
    return links
