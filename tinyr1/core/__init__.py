"""A params file -> one frozen object, and what every room needs: artifacts, records, processes, prompts, progress.

Nothing in here knows a training method, a merge method or a grader, and nothing imports another room.
Read `params` first (what a run is), then `artifact` (how results become complete or absent).
"""
