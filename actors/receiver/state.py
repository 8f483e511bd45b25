"""The states of a connection and its association."""

import enum


class State(enum.Enum):
    """PS3.8 §9.2.1, as far as an acceptor without delays of its own needs them."""

    AWAITING_REQUEST = "Sta2"
    AWAITING_ADMISSION = "Sta3"
    ESTABLISHED = "Sta6"
    RELEASING = "Sta8"  # the peer wants to go; answers are still to be sent
    AWAITING_CLOSE = "Sta13"
    CLOSED = "Sta1"
