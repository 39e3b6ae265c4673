"""HTTP with a timeout for the whole answer; the client itself applies it to each piece that comes."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter


class TimedAdapter(HTTPAdapter):
    """An HTTPAdapter with this timeout, also through a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Until(io.RawIOBase):
    """Reads from a connection until a time on the monotonic clock. Raises TimeoutError after that."""

    def __init__(self, connection: socket.socket, pieces: io.RawIOBase, until_s: float):
        self._connection, self._pieces, self._until_s = connection, pieces, until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)
        read: int | None = self._pieces.readinto(buffer)
        return read

    def close(self) -> None:
        self._pieces.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        timeout_s = sock.gettimeout()
        if timeout_s is not None:
            pieces: io.RawIOBase = self.fp.detach()
            self.fp = io.BufferedReader(_Until(sock, pieces, time.monotonic() + timeout_s))


class _HttpConnection(urllib3.connection.HTTPConnection):
    response_class = _TimedResponse


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    response_class = _TimedResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}
