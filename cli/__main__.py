"""`python -m cli` is `dicom-adapter`."""

from cli import main

main()
