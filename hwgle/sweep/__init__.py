"""Sweeps: one experiment over many chips, settings of training and seeds.

file.py what a user writes -> study.py the objects it means, and its points -> plan.py which
points come next -> driver.py on an executor (executors.py), each finished one into journal.py
at once -> table.py one table, the same bytes however it was run -> plots.py.
"""
