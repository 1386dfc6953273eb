"""examples/blocking, as its docstring says."""

from __future__ import annotations

EXPECTED = """wrong: a price for tea; the other client waited
right: a price for tea; the other client did not wait
"""


def test_the_blocking_handler_is_named_and_the_mended_one_keeps_nobody_waiting(example):
    serve, client = example.commands
    server = example.serve(serve)
    assert example.run(client) == EXPECTED
    code, err = example.stop(server)
    assert code == 0
    assert err.startswith("WARNING Shop.handle_call has blocked the hub for 0.")
    assert "time.sleep(0.5)" in err
    assert err.count("WARNING") == 1
