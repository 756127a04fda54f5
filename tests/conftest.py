"""Settings that hold for every test; set before Qt, torch or OpenMP is imported."""

import os

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ.setdefault("OMP_NUM_THREADS", "1")
