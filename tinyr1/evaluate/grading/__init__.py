"""Turns a stored response into one of six outcomes: correct, wrong, truncated, no_answer, timeout, grader_error.

Read `grade` first; it uses `extract` (answers in texts), `fences` and `programs` (code and its tests), `released_math`
(the authors' rule) and `symbolic` (Math-Verify). `selftest` proves the graders before anything is scored.
"""
