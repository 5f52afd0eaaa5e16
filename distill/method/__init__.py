"""DP-DMD and the methods it is compared with: losses, guidance, and a registry."""
