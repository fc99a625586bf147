"""The end of a topic is asked for once by all who wait for it."""

import threading

import pytest

from k2.errors import Unavailable
from k2.tape.topic_reader import TopicEnd
from tests.support.queue_lock import ask_together
from tests.unit.tape.test_compacted_topic import Topic


def test_an_end_is_asked_for_again_by_each_call_and_an_absent_broker_is_said():
    topic = Topic({}, end=3)
    end = TopicEnd("127.0.0.1:1", "t")
    end._consumer = topic
    assert end.ask() == 3
    topic.end = 4
    assert end.ask() == 4
    topic.away = True
    with pytest.raises(Unavailable):
        end.ask()
    topic.away = False
    assert end.ask() == 4
    end.close()
    with pytest.raises(Unavailable):
        end.ask()


def test_questions_that_waited_share_one_answer_though_it_is_a_failure():
    class Held(Topic):
        may, asked = threading.Event(), 0

        def get_watermark_offsets(self, partition, timeout):
            assert self.may.wait(10)
            self.asked += 1
            self.away = self.asked > 1
            return super().get_watermark_offsets(partition, timeout)

    topic = Held({}, end=3)
    end = TopicEnd("127.0.0.1:1", "t")
    end._consumer = topic

    def ask():
        try:
            return end.ask()
        except Unavailable:
            return "away"

    found = ask_together(end._answer, ask, topic.may.set)
    assert found == [3, "away", "away", "away"]
    assert topic.asked == 2
