"""Sessions with a board, recorded byte by byte, and played again without the board.

file.py      the file and its format
recorder.py  what writes it while ports are open
frames.py    bytes to frames, by the link's own decoder
sessions.py  frames to messages, each exactly once, as both ends took them
replay.py    the host's messages into csrc/device, its answers against the board's
words.py     a message in words
"""
