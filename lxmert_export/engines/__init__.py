"""TensorRT engines: the devices that they are for, build options, profiles, GPUs, and TensorRT's libraries."""
