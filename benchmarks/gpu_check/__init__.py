"""`make gpu-check`: everything that a GPU machine can prove about this project, checked, measured and written down.

Each stage is a process of its own, `python -m gpu_check.stages.NAME`, with a time limit; `catalogue.py` lists them.
Without a GPU the same stages run on the CPU or on the recording stand-in, at small sizes, and prove only themselves.
"""
