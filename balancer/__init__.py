"""The control daemon `gpu-balancerd`: it knows every device and session and decides what runs where."""
