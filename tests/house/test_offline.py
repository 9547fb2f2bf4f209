"""No test reaches the network: the Hub's clients are told so, and a connection to anywhere else is refused."""

import socket

import pytest


def test_the_hub_is_offline() -> None:
    import datasets.config
    import evaluate.config
    import huggingface_hub.constants

    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE
    assert evaluate.config.HF_EVALUATE_OFFLINE


def test_only_this_machine_can_be_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with pytest.raises((RuntimeError, UserWarning), match="tried to use socket"):  # the guard warns, then raises
        socket.create_connection(("192.0.2.1", 80), timeout=1)  # an address reserved for documentation
