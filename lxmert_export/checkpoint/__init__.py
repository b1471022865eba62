"""Checkpoint files of every dialect, read strictly and written bit for bit.

files.py           finds the weight file, and checks its tensors before they are used
formats.py         decides what a weight file is, by its signature
archives.py        checks the members of PyTorch's archives
h5.py              reads and writes Keras' HDF5 layout (imports h5py)
mapped_memory.py   gives memory-mapped pages back to the operating system
dialects.py        maps the names of each dialect to ours, and infers a config if the checkpoint has none
read.py            reads a name or path as a checked Checkpoint
write.py           writes our tensors to a directory in one of the dialects
"""
