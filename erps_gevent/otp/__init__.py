"""Processes, links, monitors and gen_servers on gevent. Knows no sockets."""
