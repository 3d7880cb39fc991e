"""A line from a driver to one of its environment workers: a TCP connection that carries calls and answers.

Ray places the worker, starts it and notices its death; the steps themselves go over this line, because a call through
Ray costs the driver some 0.7 ms for each worker and step, and one over a line a tenth of that.
"""

from __future__ import annotations

import pickle
import socket
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NamedTuple, cast

from ray import cloudpickle

from rlplatform.errors import EnvError

Address = tuple[str, int]


class Answer(NamedTuple):
    """What came back of a call."""

    value: Any
    error: Exception | None


class Line:
    """The driver's end. One call is under way at a time: `send`, then `receive`."""

    def __init__(self, address: Address, key: bytes) -> None:
        """Connect.

        Args:
            address: Host and port on which the worker listens.
            key: What the worker was given too; either end refuses a partner without it.
        """
        self._connection = Client(address, authkey=key)
        _send_at_once(self._connection)

    def send(self, method: str, *args: Any) -> None:
        """Ask for a method of the worker; functions and classes may be among the arguments."""
        self._connection.send_bytes(cloudpickle.dumps((method, args)))

    def receive(self) -> Answer:
        """Wait for the answer to what was sent.

        Raises:
            EOFError, OSError: The worker is gone.
        """
        return Answer(*pickle.loads(self._connection.recv_bytes()))

    def close(self) -> None:
        """Hang up, which ends the worker's `serve`."""
        self._connection.close()


def listen(host: str, key: bytes) -> tuple[Listener, Address]:
    """Open a port for one driver.

    Args:
        host: Address of this node that the driver can reach.
        key: What the driver knows too.
    """
    listener = Listener((host, 0), authkey=key)
    return listener, cast(Address, listener.address)


def serve(listener: Listener, worker: object) -> None:
    """Answer one driver's calls of a worker's methods until it hangs up or is gone."""
    with listener.accept() as connection:
        listener.close()
        _send_at_once(connection)
        while True:
            try:
                method, args = pickle.loads(connection.recv_bytes())
            except (EOFError, OSError):
                return
            try:
                answer = Answer(getattr(worker, method)(*args), None)
            except Exception as error:  # whatever an environment raises belongs to the driver
                answer = Answer(None, error)
            try:
                connection.send_bytes(_packed(answer))
            except OSError:
                return


def _packed(answer: Answer) -> bytes:
    try:
        return pickle.dumps(tuple(answer), pickle.HIGHEST_PROTOCOL)
    except Exception:  # pickling runs any class's code: a lambda in an info, an exception that holds a socket
        if answer.error is not None:
            told = EnvError(f"An environment raised {type(answer.error).__name__}: {answer.error}. Mend it.")
            return pickle.dumps((None, told))
        return cast(bytes, cloudpickle.dumps(tuple(answer)))


def _send_at_once(connection: Connection[Any, Any]) -> None:
    """Switch off Nagle's algorithm, which holds back the second half of a message; notice a partner that vanished."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as end:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):  # macOS lacks some
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
