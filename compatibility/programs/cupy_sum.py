"""Sums on the GPU with CuPy, by a kernel of its own and by one that is compiled when it runs."""
import cupy

numbers = cupy.arange(1 << 20, dtype=cupy.int64)
square = cupy.ElementwiseKernel("int64 number", "int64 squared", "squared = number * number", "square")
print(f"sums {int(numbers.sum())} {int(square(numbers).sum())}")
