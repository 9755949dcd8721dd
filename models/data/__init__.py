"""Readers of the data sets and splits without shared people.

`datasets` reads faces, `speech` voices, `eye_sets` eyes and mouths, `pictures` the report's picture sets.
`splits` keeps people apart; `courses`, `sequences`, `eye_courses`, `talking` and `pairs` compose examples
that no set has. Imports `edge` only.
"""
