"""What TensorRT engines are built for, and with: devices, options, profiles, GPUs."""
