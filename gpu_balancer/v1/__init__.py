"""Code generated from proto/gpu_balancer/v1 by `make proto`. Never edited by hand."""
