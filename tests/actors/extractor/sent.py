"""What an extractor has sent."""

from protocol.messages import (
    InstancesDescribed,
)


class Sent:
    """Takes the place of the sender to the processor."""

    def __init__(self) -> None:
        self.messages: list[InstancesDescribed] = []

    def send(self, message: InstancesDescribed) -> bool:
        self.messages.append(message)
        return True
