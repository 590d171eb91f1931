"""The offline world of the miniature: verifiable tasks with worked solutions."""
