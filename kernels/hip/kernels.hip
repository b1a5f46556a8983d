// All kernels as one image: one module to load on each device.
#include "rowwise.hip"
#include "repack.hip"
