"""gpu-balancer for its clients: the typed clients and the generated contract (`gpu_balancer.v1`)."""

__version__ = "0.1.0"
