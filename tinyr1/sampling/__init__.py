"""Prompts -> stored responses: a child process samples with vLLM, or asks a server that speaks OpenAI's API.

The room knows models, jobs and samples, but neither benchmarks nor grades: evaluation and other rooms write its plans.
Read `process` first (the plan, and the process that `child` starts), then `responses` (the store).
"""
