"""Benchmarks as their owners score them: GLUE, SuperGLUE and MMLU, and the files that their servers take."""
