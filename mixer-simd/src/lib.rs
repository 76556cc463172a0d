//! Audio kernels: sum, limit, gain, level and G.711, each with a scalar twin.
