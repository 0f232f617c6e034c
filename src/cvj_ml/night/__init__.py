"""A published night: written beside under a lock, checked, renamed, made current in one step, verified afterwards."""
