"""HTTP on loopback: what sessions leave, metrics, and whether the daemon works. Reading only."""
