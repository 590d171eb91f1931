"""Made-up tasks that can be checked, in place of the real datasets and benchmarks: random draws -> rows and questions.

The families of each domain draw a question, its worked solution and what grades an answer; `raw` puts them into the
columns of the real datasets. Read task first, then one family in math_tasks, then raw.
"""
