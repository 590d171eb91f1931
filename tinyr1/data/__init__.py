"""Stage 01: datasets -> curated training rows as text and token ids; files of benchmarks -> questions of one shape.

sources and readers turn raw rows into candidates, curate keeps or drops them, tokens stores them; benchmarks reads the
questions that the rows must not repeat. Read curate first, then tokens.
"""
