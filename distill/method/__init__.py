"""Losses and guidance of DP-DMD and of the methods it is compared with."""
