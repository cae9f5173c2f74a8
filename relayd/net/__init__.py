"""Sockets and pipes as the kernel has them: listening, dialling, the edge-triggered selector, splice. Standard
library only.
"""
