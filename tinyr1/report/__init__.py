"""Turns the scores and executed notebooks of a run into claims, figures and a report of HTML pages.

Read `claims` first: it decides the paper's claims for this run. `plots` draws the figures, `pages` turns executed
notebooks into HTML, `index` writes the page of the run, and `publish` copies the whole report into `reports/`.
"""
