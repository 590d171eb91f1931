"""Small Python problems in LiveCodeBench's form: what is asked, the program that solves it, and its tests.

    code_tables    operations as words, code and trusted functions
    code_problems  from drawn steps to a task
    code_stdin     families whose program reads standard input
    code_methods   families whose program is a method of class Solution
"""

from tinyr1.data.miniature import code_methods, code_stdin
from tinyr1.data.miniature.task import Family

FAMILIES: dict[str, Family] = code_stdin.FAMILIES | code_methods.FAMILIES  # in this order: random draws depend on it
