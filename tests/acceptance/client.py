"""Calls of the management API and the gateway. Every answer is held against the contract."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from .contract import Contract

Json = Any

TIMEOUT_SECONDS = 30.0


class Client:
    """One caller of one service. Safe to share between threads."""

    def __init__(self, base_url: str, contract: Contract, token: str | None = None) -> None:
        self._contract = contract
        self._http = httpx.Client(
            base_url=base_url,
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            timeout=TIMEOUT_SECONDS,
            # Nothing of the machine's environment decides where requests go.
            trust_env=False,
            follow_redirects=False,
        )
        self.base_url = base_url

    def as_caller(self, token: str | None) -> "Client":
        """The same service, called by somebody else."""
        return Client(self.base_url, self._contract, token)

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Any answer that the contract allows. `request` is httpx's: `json`, `content`, `headers`, `params`."""
        response = self._http.request(method, path, **request)
        self._contract.check(response)
        return response

    def expect(self, status: int, method: str, path: str, **request: Any) -> httpx.Response:
        response = self.call(method, path, **request)
        assert response.status_code == status, (
            f"{method} {path} was answered {response.status_code}, not {status}: {response.text}"
        )
        return response

    def get(self, path: str, **params: str | int) -> Json:
        return self.expect(200, "GET", path, params=params).json()

    def create(self, path: str, body: Json, headers: Mapping[str, str] | None = None) -> Json:
        return self.expect(201, "POST", path, json=body, headers=headers).json()

    def change(self, path: str, body: Json) -> Json:
        return self.expect(200, "PATCH", path, json=body).json()

    def order(self, path: str) -> Json:
        """A POST that sets something going."""
        return self.expect(202, "POST", path, json={}).json()

    def delete(self, path: str) -> None:
        self.expect(204, "DELETE", path)

    def refused(self, status: int, problem: str, method: str, path: str, **request: Any) -> Json:
        """The problem of the kind `problem` that a request is refused with."""
        body = self.expect(status, method, path, **request).json()
        assert body["type"] == f"/problems/{problem}", body
        return body

    def every(self, path: str, **params: str | int) -> Iterator[Json]:
        """A list's items over all its pages."""
        page = self.get(path, **params)
        while True:
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            page = self.get(path, **params, cursor=page["next_cursor"])
