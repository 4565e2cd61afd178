"""Estimators of transferability: how well an encoder's fixed features fit a task, or one task's labels another's."""

from nlp_mtl.transferability.estimators.base import Estimator, PairEstimator
from nlp_mtl.transferability.estimators.h_score import HScore
from nlp_mtl.transferability.estimators.knn import KNN
from nlp_mtl.transferability.estimators.leep import LEEP
from nlp_mtl.transferability.estimators.linear_probe import LinearProbe
from nlp_mtl.transferability.estimators.logme import LogME
from nlp_mtl.transferability.estimators.nce import NCE

__all__ = ["KNN", "LEEP", "NCE", "Estimator", "HScore", "LinearProbe", "LogME", "PairEstimator"]
