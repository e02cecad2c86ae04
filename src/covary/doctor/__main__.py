"""python -m covary.doctor: the same as `covary doctor`."""

from covary.doctor.command import main

main()
