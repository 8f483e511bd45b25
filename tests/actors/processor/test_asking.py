"""What is missing is asked for in a window, ever more seldom, and given up when it is hopeless."""

from actors.processor.asking import GIVE_UP_AFTER, MESSAGE, WINDOW, Asker
from protocol.clock import Moment
from protocol.messages import DescribeInstances, Message, StoredInstance


class Extractors:
    """They take what is asked while they are there."""

    def __init__(self) -> None:
        self.there = True
        self.asked: list[tuple[str, ...]] = []
        self.clock = 1000.0

    def send(self, message: Message) -> bool:
        assert isinstance(message, DescribeInstances)
        if self.there:
            self.asked.append(tuple(each.identifier for each in message.instances))
        return self.there

    def heard(self) -> list[str]:
        found = [identifier for message in self.asked for identifier in message]
        self.asked.clear()
        return found


def stored(*identifiers: str) -> list[StoredInstance]:
    return [StoredInstance(identifier, Moment(0)) for identifier in identifiers]


def test_each_is_asked_for_ever_more_seldom() -> None:
    extractors = Extractors()
    asker = Asker(extractors.send, lambda: extractors.clock)
    asker.want(stored("s/a"))
    times = []
    while len(times) < 3:
        asker.ask()
        if extractors.heard():
            times.append(extractors.clock)
            asker.answered(["s/other"])
        asker.want(stored("s/a"))
        extractors.clock += 1
    assert times == [1000, 1005, 1015]
    asker.answered(["s/a"])
    extractors.clock += 1000
    asker.ask()
    assert extractors.heard() == []


def test_no_more_than_a_window_is_open() -> None:
    extractors = Extractors()
    asker = Asker(extractors.send, lambda: extractors.clock)
    names = [f"s/{number:05d}" for number in range(3 * WINDOW)]
    asker.want(stored(*names))
    asker.ask()
    asker.refill()
    assert max(map(len, extractors.asked)) == MESSAGE
    assert extractors.heard() == names[:WINDOW]
    asker.answered(names[:WINDOW])
    asker.refill()
    assert extractors.heard() == names[WINDOW : 2 * WINDOW]


def test_nothing_counts_as_asked_when_nobody_took_it() -> None:
    extractors = Extractors()
    extractors.there = False
    asker = Asker(extractors.send, lambda: extractors.clock)
    asker.want(stored("s/a"))
    asker.release(["s/q"])
    extractors.there = True
    asker.ask()
    assert extractors.heard() == ["s/a", "s/q"]


def test_released_ones_are_asked_for_until_they_are_described() -> None:
    extractors = Extractors()
    asker = Asker(extractors.send, lambda: extractors.clock)
    asker.release(["s/q"])
    extractors.clock += 6
    asker.ask()
    assert extractors.heard() == ["s/q", "s/q"]
    asker.answered(["s/q"])
    extractors.clock += 6
    asker.ask()
    assert extractors.heard() == []


def test_one_that_is_never_answered_while_others_are_is_hopeless() -> None:
    extractors = Extractors()
    asker = Asker(extractors.send, lambda: extractors.clock)
    asker.want(stored("s/poison", "s/innocent"))
    for turn in range(GIVE_UP_AFTER):
        assert asker.hopeless() == []
        asker.ask()
        if turn == 3:
            assert ("s/poison",) in extractors.asked, "asked for alone"
            asker.answered(["s/innocent"])
        asker.answered([f"s/{turn}"])
        extractors.clock += 61
    assert [each.identifier for each in asker.hopeless()] == ["s/poison"]


def test_nothing_is_hopeless_while_the_extractors_stand_still() -> None:
    extractors = Extractors()
    asker = Asker(extractors.send, lambda: extractors.clock)
    asker.want(stored("s/a"))
    for _ in range(100):
        asker.ask()
        extractors.clock += 61
    assert asker.hopeless() == []
    asker.retain(frozenset())
    assert not asker.knows("s/a")
