"""Leaves that join the library to its surroundings; each imports its optional dependency inside itself."""
