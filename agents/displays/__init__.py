"""Virtual displays: made, kept ready, lent to recordings, and ended with everything that runs on them."""
