"""Uncertainty by dropout at test time: a sample is the output of one thinned network."""

from .predicting import mc_predict, mc_samples, predict
from .prediction import Prediction
from .sampling import MonteCarlo, mc_dropout

__all__ = ["MonteCarlo", "Prediction", "mc_dropout", "mc_predict", "mc_samples", "predict"]
