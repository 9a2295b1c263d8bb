"""Takes steps of gradient descent with JAX, compiled for the GPU, and prints a checksum."""
import os

# It would else take most of the GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp

inputs = jnp.linspace(-1.0, 1.0, 4096).reshape(64, 64)
targets = jnp.tanh(3.0 * inputs)


@jax.jit
def step(weights):
    def loss(weights):
        return jnp.mean((jnp.tanh(inputs @ weights) - targets) ** 2)

    value, slope = jax.value_and_grad(loss)(weights)
    return weights - 0.1 * slope, value


weights = jnp.eye(64)
value = jnp.zeros(())
for _ in range(20):
    weights, value = step(weights)
print(f"{jax.devices()[0].platform}: checksum {float(value):.6f} {float(jnp.abs(weights).sum()):.4f}")
