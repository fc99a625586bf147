"""How the broker is configured; the real one is in tests/integration."""

import socket
import threading

import pytest

from k2.errors import Internal, Invalid, Reason
from servers.local.broker import BrokerPorts, answers, bootstrap, prepare

PORTS = BrokerPorts(29092, 29093)


def prepared(tmp_path):
    (tmp_path / "kafka" / "data").mkdir(parents=True, exist_ok=True)
    jar = tmp_path / "kafka.jar"
    jar.write_text("")
    return prepare(tmp_path / "kafka", PORTS, [jar], "5" * 32)


def test_it_listens_on_loopback_only(tmp_path):
    prepared(tmp_path)
    text = (tmp_path / "kafka" / "server.properties").read_text()
    assert "listeners=PLAINTEXT://127.0.0.1:29092,CONTROLLER://127.0.0.1:29093" in text
    assert "0.0.0.0" not in text
    assert bootstrap(PORTS) == "127.0.0.1:29092"


def test_the_name_of_its_folder_is_in_nothing_that_java_takes_apart(tmp_path):
    folder = tmp_path / "Größe \\ 🙂, a#b?c%20d;${HOME}"
    command = prepared(folder)
    text = (folder / "kafka" / "server.properties").read_bytes()
    assert b"log.dirs=data\n" in text
    assert text.isascii()
    assert "-Dlog4j2.configurationFile=log4j2.properties" in command.argv
    assert command.argv[-1] == "server.properties"
    assert command.cwd == folder / "kafka"


def test_files_that_a_class_path_cannot_name_are_refused(tmp_path):
    with pytest.raises(Invalid, match="cache_dir") as caught:
        prepared(tmp_path / "a:b")
    assert caught.value.reason is Reason.BAD_SETTING


def test_it_is_small_and_takes_of_our_environment_only_what_is_meant_for_java(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("K2_DATA_DIR", "elsewhere")
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Xlog:gc")
    command = prepared(tmp_path)
    assert "-Xmx320m" in command.argv
    assert command.argv[-2] == "kafka.Kafka"
    assert command.env == {"LANG": "C.UTF-8", "JDK_JAVA_OPTIONS": "-Xlog:gc"}
    monkeypatch.delenv("JDK_JAVA_OPTIONS")
    assert set(prepared(tmp_path).env) == {"LANG"}


def test_storage_that_is_there_is_not_formatted_again(tmp_path):
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    (tmp_path / "kafka" / "data" / "kept").write_text("tape")
    jar = tmp_path / "kafka.jar"
    jar.write_text("")
    prepare(tmp_path / "kafka", PORTS, [jar], "5" * 32)
    assert (tmp_path / "kafka" / "data" / "kept").read_text() == "tape"


def test_missing_files_are_named(tmp_path):
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    with pytest.raises(Internal, match=r"nothing\.jar"):
        prepare(tmp_path / "kafka", PORTS, [tmp_path / "nothing.jar"], "5" * 32)


def test_only_what_answers_like_kafka_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = BrokerPorts(server.getsockname()[1], 0)

        def once(reply):
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(reply)

        for reply, expected in ((b"\0\0\0\x10rest", True), (b"", False)):
            thread = threading.Thread(target=once, args=(reply,))
            thread.start()
            assert answers(ports) is expected
            thread.join()
    assert not answers(ports)
