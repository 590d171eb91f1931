"""Small Python problems in LiveCodeBench's form: a question, the program that solves it, and its tests.

    code_tables    operations as words, code and trusted functions
    code_problems  from drawn steps to a task
    code_stdin     families whose program reads standard input
    code_methods   families whose program is a method of class Solution
"""

from tinyr1.data.miniature.code_methods import METHOD_FAMILIES
from tinyr1.data.miniature.code_stdin import STDIN_FAMILIES
from tinyr1.data.miniature.task import Family

CODE_FAMILIES: dict[str, Family] = STDIN_FAMILIES | METHOD_FAMILIES  # in this order: random draws depend on it
