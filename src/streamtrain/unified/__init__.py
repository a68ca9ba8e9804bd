"""The unified-kernel core: one array of multiply-accumulators for every layer and phase, and DRAM."""
