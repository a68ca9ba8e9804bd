"""Train on a device, real or simulated, through one interface."""
