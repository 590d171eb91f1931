"""The schema of a params file: `schema` has the whole file and the rules between blocks; `training`, `domains` and
`evaluation` have its blocks; `python -m tinyr1.core.params` writes what is generated from them."""
