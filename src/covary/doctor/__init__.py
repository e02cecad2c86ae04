"""The doctor: says, to the line, why a network does not learn.

    covary doctor train.py            runs a script and names the line
    covary.doctor.watch(actor=…)      the same around some code
    covary.doctor.assert_learns(…)    the same in a test suite

It knows torch, numpy and rich, and nothing else of Covary.
"""

from __future__ import annotations

from covary.doctor.checkup import Checkup, assert_learns, watch
from covary.doctor.findings import Finding

__all__ = ["Checkup", "Finding", "assert_learns", "watch"]
