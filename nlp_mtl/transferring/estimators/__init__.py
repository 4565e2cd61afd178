"""Estimators of transferability: how well an encoder's fixed features fit a task, or one task's labels another's."""

from nlp_mtl.transferring.estimators.base import Estimator, PairEstimator
from nlp_mtl.transferring.estimators.h_score import HScore
from nlp_mtl.transferring.estimators.knn import KNN
from nlp_mtl.transferring.estimators.leep import LEEP
from nlp_mtl.transferring.estimators.linear_probe import LinearProbe
from nlp_mtl.transferring.estimators.logme import LogME
from nlp_mtl.transferring.estimators.nce import NCE

__all__ = ["KNN", "LEEP", "NCE", "Estimator", "HScore", "LinearProbe", "LogME", "PairEstimator"]
