"""What an artifact's file would do if a runtime opened it: the operators that it holds, before any runtime reads it.

A hash only says that a file is the one that the manifest's author had. A SavedModel can read and write files, a Keras
file can name any class, an ONNX file can name other files; so each is held to the operators that this tool exports.

onnx.py          domains of operators, and the files that hold weights
saved_model.py   operators of functions, of the main graph, and kinds of objects
keras.py         classes
tensorflow.py    one of these two
tflite.py        builtin operators
reading.py       opens a file for its check
"""
