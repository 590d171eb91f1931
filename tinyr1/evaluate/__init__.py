"""Benchmark questions and checkpoints -> sampled responses -> one outcome for each response -> scores with intervals.

It evaluates the models of a run (`stage`, which notebook 04 calls) or one model alone (`python -m tinyr1.evaluate`).
Read `protocol` first (how a benchmark is asked and graded), then `stage`, then `scores` and `stats`.
"""
