"""Results to a real MQTT broker, Debian's mosquitto: what arrives, what waits while it is away."""

import getpass
import json
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.serving import wait_for
from paho.mqtt import client

from projects.line.runtime import Inspector
from projects.line.runtime.broker import Broker
from projects.line.runtime.watch import Watch

MOSQUITTO = shutil.which('mosquitto') or shutil.which('mosquitto', path='/usr/sbin')


@contextmanager
def broker(tmp_path, port):
    """Run mosquitto on the loopback interface while the block runs; gives what a subscriber gets."""
    result = tmp_path / 'mosquitto.conf'
    # Who has subscribed once gets what comes while it is away; root would become another user.
    result.write_text(
        f'listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n'
        f'persistence_location {tmp_path}/\nuser {getpass.getuser()}\n'
    )
    with subprocess.Popen([MOSQUITTO, '-c', result], stderr=subprocess.DEVNULL) as process:
        got, subscribed = [], threading.Event()
        subscriber = client.Client(client.CallbackAPIVersion.VERSION2, 'plant', clean_session=False)
        subscriber.on_connect = lambda c, *_: c.subscribe('line7/xray', qos=1)
        subscriber.on_subscribe = lambda *_: subscribed.set()
        subscriber.on_message = lambda c, data, message: got.append(json.loads(message.payload))
        subscriber.connect_async('127.0.0.1', port)
        subscriber.loop_start()
        try:
            assert subscribed.wait(60)
            yield got
        finally:
            subscriber.disconnect()
            subscriber.loop_stop()
            process.terminate()
            process.wait(60)


@pytest.fixture
def port():
    with socket.create_server(('127.0.0.1', 0)) as free:
        return free.getsockname()[1]


def test_each_result_arrives_also_after_the_broker_was_away(tmp_path, port):
    root = tmp_path / 'arriving'
    root.mkdir()
    with broker(tmp_path, port):
        pass  # the plant's system subscribes
    cv2.imwrite(str(root / 'a.png'), spot(20, 30))
    sender = Broker(f'mqtt://127.0.0.1:{port}/line7/xray')
    watch = Watch(Inspector(export_to(tmp_path / 'exported')), root, tmp_path / 'out', 0.1, sender)
    stop, results = threading.Event(), []
    thread = threading.Thread(target=watch.run, args=(stop, 0.05, results.append))
    thread.start()
    try:
        wait_for(lambda: results)  # without a broker, it waits on the disk
        assert len(list((tmp_path / 'out' / 'outbox').iterdir())) == 1
        with broker(tmp_path, port) as got:
            wait_for(lambda: got)
            cv2.imwrite(str(root / 'b.png'), spot(20, 30, 110))
            wait_for(lambda: len(got) == 2)
            wait_for(lambda: not list((tmp_path / 'out' / 'outbox').iterdir()))
        assert [(result['name'], result['verdict']) for result in got] == [
            ('a.png', 'reject'),
            ('b.png', 'accept'),
        ]
        assert got == results
    finally:
        stop.set()
        thread.join(60)
        sender.close()
