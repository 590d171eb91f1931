"""Turns a generated program and its input into what it printed or returned, without letting it do any harm.

Read `confine` first: it draws the three parties and what each may do. `runner` is the interface for callers.
"""
