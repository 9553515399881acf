"""A scope on a running network: feed.py what goes in -> probe.py what a body did in each frame
-> screen.py lines of text -> terminal.py a terminal that is drawn over; picture.py the same
recorded.
"""
