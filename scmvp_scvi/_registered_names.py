"""`RegisteredNamesMixin`: names that a model was set up with, and their codes and positions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from scvi.model.base import BaseMinifiedModeModelClass

from scmvp_scvi._data import registered_features, registered_modalities
from scmvp_scvi._keys import MODALITIES, REGISTRY, Kind
from scmvp_scvi._validate import check_names, check_one_of, find_grouping, shown

Batch = str | int | float


class RegisteredNamesMixin(BaseMinifiedModeModelClass):
    """Labels, batches and features of `SCMVPModel`, as its registry has them."""

    def _categories(self, key: str) -> list[Any]:
        """Names of the categories of a registered key, in the order of their codes."""
        names = self.registry["field_registries"][key]["state_registry"]["categorical_mapping"]
        return pd.Index(names).tolist()  # NumPy would make a number of a date

    @property
    def _has_labels(self) -> bool:
        """Whether the cells have labels, which seed the components."""
        return self.registry["setup_args"]["labels_key"] is not None

    def _seeding_labels(self, unlabeled_category: str) -> list[Any]:
        """Labels that seed a component, in the order of the components."""
        return [name for name in self._categories(REGISTRY.LABELS) if name != unlabeled_category]

    @property
    def _unlabeled_category(self) -> Any:
        """What cells without a label are called."""
        return self.init_params_["non_kwargs"]["unlabeled_category"]

    def _seeding_codes(self) -> list[int] | None:
        """Codes of `_seeding_labels`, in the same order; None if there are no labels."""
        if not self._has_labels:
            return None
        known = self._categories(REGISTRY.LABELS)
        return [known.index(name) for name in self._seeding_labels(self._unlabeled_category)]

    def _batch_codes(
        self, batches: Batch | Sequence[Batch] | None, argument: str = "transform_batch"
    ) -> list[int | None]:
        """Codes of the batches asked for; ``[None]`` keeps each cell's own."""
        if batches is None:
            return [None]
        asked: list[Any] = list(np.atleast_1d(np.asarray(batches, dtype=object)))
        if not asked:
            raise ValueError(f"`{argument}` must name at least one batch, got none.")
        known = self._categories(REGISTRY.BATCH)
        for batch in asked:
            if isinstance(batch, (bool, np.bool_)) and not isinstance(known[0], bool):
                raise TypeError(
                    f"`{argument}` must name batches, got {batch}, as in a mask: pass the names "
                    f"of those that are meant, of {shown(known)}."
                )
            check_one_of(batch, known, name=argument)
        return [known.index(batch) for batch in asked]

    def _one_batch_code(self, transform_batch: Batch | None) -> int | None:
        """Code of the batch asked for, where draws are of one; None keeps each cell's own."""
        codes = self._batch_codes(transform_batch)
        if len(codes) > 1:
            raise ValueError(
                f"`transform_batch` must be one batch, got {len(codes)}: draws are of one. Call "
                "the method once for each."
            )
        return codes[0]

    def _grouping(self, adata: MuData, key: Any, argument: str) -> pd.Series:
        """``(cells,)``, the column that groups them: of ``.obs``, or of that of a modality."""
        modality_keys = registered_modalities(self.registry)
        return find_grouping(adata, key, argument=argument, modality_keys=modality_keys)

    def _feature_names(self, kind: Kind) -> pd.Index:
        return pd.Index(registered_features(self.registry)[MODALITIES[kind].counts])

    def _feature_positions(self, kind: Kind, names: Sequence[str] | None) -> np.ndarray:
        """Positions of the features asked for, those of all where none are."""
        known = self._feature_names(kind)
        if names is None:
            return np.arange(len(known))
        return check_names(names, known, argument=MODALITIES[kind].features)
