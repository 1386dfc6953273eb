"""The protocol without I/O: the frame, the values in it, and one end of one dialogue.

Pure: nothing below this package imports gevent, a socket, a clock or logging. Bytes come in as arguments and go out
as results, and every fault of the peer is a `ProtocolError`.
"""
