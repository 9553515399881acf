"""The accuracy report: what fixed point, converters, mismatch and noise of a chip cost a
network, in numbers (`report.json`) and on a page (`report.html`).

stages.py takes a chip apart, budget.py measures the parts; formats.py and widths.py say what
other formats would gain or save, learning.py judges updates, classes.py the task, bodies.py
other bodies of the same chip. report.py puts all of it together, faults.py and limits.py say
what is wrong with it, page.py and compare.py show it.
"""
