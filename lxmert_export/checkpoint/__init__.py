"""Checkpoint files of every dialect, read strictly and written bit for bit.

files.py      which file, which format, every check that comes before a tensor is believed
h5.py         Keras' HDF5 layout (imports h5py)
dialects.py   other people's names → ours, and the config where none is written down
read.py       a name or path → a checked Checkpoint
write.py      our tensors → a directory in one of the dialects
"""
