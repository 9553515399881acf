"""What GLE is measured against: other gradients and learners on the same networks and data.

All of them work in float64 and serve as yardsticks, none runs on a chip. A method (`method.py`) is
one file:

    gle             the oracle's own directions, local in space and time
    instantaneous   backpropagation through the rates of one step, blind to time
    truncated       backpropagation through time over a window
    rtrl            the exact gradient forward in time, for small networks
    exact           the exact gradient of a whole run by the adjoint
    costate         the adjoint's errors step by step, some steps late

`following` compares two of them while one learns. Directions are of ascent, as in
`hwgle.reference`.
"""
