"""One module for each contestant: how it serves, and how it is called. Each runs in processes of its own: side.py."""
