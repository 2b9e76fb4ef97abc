"""An exponential that LLVM vectorises; that of the C library is called number by number, ten times as slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from cvretrieval._kernels._jit import njit

#: Below, `exp_nonpositive` returns 0: 64 halvings. Products with what is left never become subnormal, which is slow.
SMALLEST_EXPONENT = np.float32(-64 * 0.6931471805599453)

_LOG2_E = np.float32(1.4426950408889634)
_LN_2 = np.float32(0.6931471805599453)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
# (e^r − 1 − r) / r² interpolated at the five Chebyshev nodes of 1.01 · [−ln 2 / 2, ln 2 / 2]: e^r to 1.1e-8.
_C0 = np.float32(0.5)
_C1 = np.float32(0.166665734)
_C2 = np.float32(0.0416665501)
_C3 = np.float32(0.00836377387)
_C4 = np.float32(0.00139269266)


def _reinterpret(typing_context: Any, bits: Any) -> Any:
    """Reinterpret an int32 as the float32 of the same bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


_float_of_bits: Any = intrinsic(_reinterpret)


@njit(fastmath=True, inline=True)
def exp_nonpositive(x):
    """Return e^x for x ≤ 0, float32: 2^n e^r with n = ⌊x / ln 2 + ½⌋ and a polynomial for e^r; 0 for x < −64 ln 2.

    The relative error is below 2e-7. NaN gives 0.
    """
    inside = x > SMALLEST_EXPONENT
    clipped = x if inside else SMALLEST_EXPONENT
    # Truncation of a negative number: rounds x / ln 2 to the nearest integer.
    n = np.int32(clipped * _LOG2_E - _HALF)
    r = clipped - np.float32(n) * _LN_2
    q = (((_C4 * r + _C3) * r + _C2) * r + _C1) * r + _C0
    power = _float_of_bits((n + np.int32(127)) << np.int32(23))
    value = (q * r * r + r + _ONE) * power
    return value if inside else np.float32(0.0)
