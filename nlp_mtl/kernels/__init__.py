"""Fused CPU kernels: what stands between the matrix products of a layer, each in one pass over memory."""
