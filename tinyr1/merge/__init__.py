"""Stage 03: fine-tuned checkpoints of one architecture become one merged checkpoint.

`fusion` is the page to read first: the mathematics of Arcee Fusion. `method` says how a method sees a tensor as blocks,
`methods` has the other methods, `engine` merges all tensors in one pass, and `python -m tinyr1.merge` is the command.
"""
