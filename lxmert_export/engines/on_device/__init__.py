"""What goes into a bundle to run on a device: nothing there imports anything of ours."""
