"""Trained models on the model hub: what :mod:`scvi.hub` cannot know of this model."""

from scmvp_scvi.hub._model_card import model_card

__all__ = ["model_card"]
