"""What Python and the compiled function agree on: the layout of a position, and of a kernel's table."""

from __future__ import annotations

SHIFT = 8  # bits of a position's counter below those of the call

# What is to be computed: the addresses of the loop and of what draws its tiles; the mask's threshold and start, the
# scale and the floor; the address of what all kernels share; the function `REST` for what is not computed here, called
# with `NUMBER`.
LOOP, TILE, THRESHOLD, START, SCALE, FLOOR, SHARED, REST, NUMBER = range(9)
FUNCTIONS = (  # of TensorFlow's C interface, without their prefix; their addresses follow
    *("NewStatus", "DeleteStatus", "GetCode", "GetInput", "ForwardInputOrAllocateOutput"),
    *("DeleteTensor", "TensorData", "TensorElementCount", "NumDims", "Dim"),
)
FUNCTIONS_AT = NUMBER + 1
NEW_STATUS, DELETE_STATUS, CODE, INPUT, OUTPUT, DELETE_TENSOR, DATA, COUNT, RANK, LENGTH = range(
    FUNCTIONS_AT, FUNCTIONS_AT + len(FUNCTIONS)
)
WORDS = FUNCTIONS_AT + len(FUNCTIONS)

# What kernels share: below how many elements a tensor is computed here, and how many are with `REST` for their size.
LIMIT, AT_REST = range(2)

MAX_RANK = 254  # TensorFlow's own
