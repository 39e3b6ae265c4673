"""Kaggle, through its own client: authentication, and the current address of a data set's archive.

transfer.py then fetches the bytes. The client's `dataset_download_files` (2.2.4) is not used because

- it retries the same signed address and, once that has expired, overwrites the data with the error response;
- if the address is not signed, it repeats a POST without its body;
- it checks only the length;
- `unzip=True` extracts in place without limits and deletes the archive, so that the next run downloads it again.

Importing any part of `kaggle` authenticates at once and prints help to stdout, and its requests have no time limit.
Hence the import is inside a function, with stdout captured, in a thread that is abandoned after a time limit.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from violence_detection.download import transfer
from violence_detection.download.http_facts import (
    content_length,
    lasting_reason,
    network_reason,
    proxy_refusal,
    published_md5,
    request_reason,
    retry_after_s,
)
from violence_detection.errors import DamagedFile, UserError
from violence_detection.system import processes, settings, storage
from violence_detection.system.redaction import redact

if TYPE_CHECKING:
    import requests

_CALL_TIMEOUT_S = 90.0
#: Longest file name, in bytes. The client first asks the system whether the token is the name of a file.
_MAX_NAME_BYTES = 255
HOW_TO_AUTHENTICATE = (
    "Make a token at https://www.kaggle.com/settings/api (a free account is enough), then either "
    "export KAGGLE_API_TOKEN=<token>, or put it into ~/.kaggle/access_token, or run: kaggle auth login. "
    "The older pair works too: ~/.kaggle/kaggle.json, or KAGGLE_USERNAME with KAGGLE_KEY"
)
T = TypeVar("T")


def page(slug: str) -> str:
    """The address of a data set's page, which shows its terms."""
    return f"https://www.kaggle.com/datasets/{slug}"


def credentials_found() -> list[str]:
    """Where credentials are found, in the order in which the client tries them; never their values.

    Does not import the client.
    """
    home = settings.expanded("~/.kaggle")
    places = [
        ("the variable KAGGLE_API_TOKEN", bool(os.environ.get("KAGGLE_API_TOKEN"))),
        (str(home / "access_token"), _has_text(home / "access_token")),
        (str(home / "access_token.txt"), _has_text(home / "access_token.txt")),
        (
            "the variables KAGGLE_USERNAME and KAGGLE_KEY",
            {"KAGGLE_USERNAME", "KAGGLE_KEY"} <= os.environ.keys(),
        ),
        (str(settings.kaggle_json()), _has_text(settings.kaggle_json())),
        (f"{home / 'credentials.json'} (kaggle auth login)", _has_text(home / "credentials.json")),
    ]
    return [name for name, found in places if found]


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_bytes().strip())
    except OSError:
        return False


def _pair_of(path: Path) -> dict[str, str]:
    """The contents of kaggle.json as environment variables, without those that are already set.

    The client silently ignores a kaggle.json that it cannot read. This raises UserError instead, which names the file
    and what is wrong with it.
    """
    again = "Download it again from https://www.kaggle.com/settings/api"
    try:
        values = storage.read_json(path)
    except DamagedFile as e:
        raise UserError(f"{e}. {again}") from e
    lacking = [name for name in ("username", "key") if not (isinstance(values, dict) and values.get(name))]
    if lacking:
        raise UserError(f"{path} has no {' and no '.join(lacking)}. {again}")
    pair = {"KAGGLE_USERNAME": str(values["username"]), "KAGGLE_KEY": str(values["key"])}
    return {name: value for name, value in pair.items() if name not in os.environ}


def _check_token(place: str) -> None:
    """Raise UserError for a token that the client cannot send.

    Some editors put a byte order mark before the text, and some web forms for variables append a line break. `place`:
    one of the places that `credentials_found` returns.
    """
    content = os.environ.get("KAGGLE_API_TOKEN", "").encode(errors="surrogateescape")
    if not place.startswith("the variable"):
        content = Path(place).read_bytes().strip()
    elif os.path.isfile(content):  # noqa: PTH113 - never raises; the client accepts a file name as well
        content = Path(os.fsdecode(content)).read_bytes().strip()
    elif len(content) > _MAX_NAME_BYTES:
        raise UserError(
            f"{place} contains {len(content)} characters, more than the Kaggle client accepts there. Put the token "
            f"into {settings.expanded('~/.kaggle/access_token')} instead"
        )
    if not re.fullmatch(rb"[!-~]+", content):
        raise UserError(
            f"{place} contains more than a token: a byte order mark, spaces, a line break or other characters. Save "
            "only the token, as plain text (ASCII)"
        )


class Kaggle:
    """An authenticated client. `how` says which credentials it uses."""

    def __init__(self, api: Any, how: str):
        self._api = api
        self.how = how

    def remote(self, slug: str) -> transfer.Remote:
        """The archive of the data set `slug` (owner/name), to be fetched."""
        return transfer.Remote(
            identity=f"kaggle:{slug}",
            locate=lambda: self.locate(slug),
            expires=True,
            remedy=f"Open {page(slug)} in a browser while signed in, accept its terms, and run the command again",
        )

    def locate(self, slug: str) -> transfer.Location:
        """Ask Kaggle for the archive's current address.

        Raises FetchError for what a retry cannot fix (such as 401, 403, 404) and TryAgain for the rest.
        """
        import requests

        try:
            response = _within(_CALL_TIMEOUT_S, lambda: self._ask(slug))
        except requests.HTTPError as e:
            if e.response is None:
                raise transfer.TryAgain(redact(str(e))) from e
            raise self._explain(slug, e.response) from e
        except (requests.ConnectionError, requests.Timeout, TimeoutError) as e:
            if lasting := lasting_reason(e):
                raise transfer.FetchError(f"kaggle:{slug}: {lasting}") from e
            raise transfer.TryAgain(f"Kaggle: {network_reason(e)}") from e
        except (requests.RequestException, ValueError) as e:
            raise transfer.FetchError(f"kaggle:{slug}: {request_reason(e)}. See {page(slug)}") from e
        with response:  # only its headers are read; transfer.fetch requests the bytes
            return transfer.Location(
                request=response.request,
                md5=published_md5(response.headers.get("x-goog-hash")),
                size_bytes=content_length(response.headers),
            )

    def _ask(self, slug: str) -> requests.Response:
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = slug.split("/")
        with self._api.build_kaggle_client() as client:
            return client.datasets.dataset_api_client.download_dataset(request)

    def _explain(self, slug: str, response: requests.Response) -> Exception:
        status = response.status_code
        moved = (
            "if there is no such page, the data set has moved: name a catalogue that has its new slug "
            "(--catalogue FILE)"
        )
        if status == 401:
            return transfer.FetchError(
                f"kaggle:{slug}: Kaggle does not accept {self.how} (401). {HOW_TO_AUTHENTICATE}. The "
                f"data set's page is {page(slug)}"
            )
        if status == 403:
            return transfer.FetchError(
                f"kaggle:{slug}: Kaggle refuses the download (403) for {self.how}. Open {page(slug)} signed "
                f"in with that account and accept the data set's terms; if you already have access there, the token "
                f"is too old or lacks permissions: {HOW_TO_AUTHENTICATE}; {moved}"
            )
        if status == 404:
            return transfer.FetchError(
                f"kaggle:{slug}: there is no such data set (404). See {page(slug)}; {moved}"
            )
        if status == 407:
            return transfer.FetchError(f"kaggle:{slug}: {proxy_refusal('407')}")
        wait_s = retry_after_s(response.headers.get("Retry-After"))
        return transfer.TryAgain(f"Kaggle answered {status}", wait_s)


def authenticate() -> Kaggle:
    """Authenticate with the Kaggle client. Raises UserError, which says what was tried and how to get credentials."""
    import requests

    found = credentials_found()
    if not found:
        raise UserError(f"no Kaggle credentials were found in any of the usual places. {HOW_TO_AUTHENTICATE}")
    settings_file = settings.kaggle_json()
    pair = _pair_of(settings_file) if found[0] == str(settings_file) else {}
    # expanded: the client creates this folder, and takes `~` literally
    folder = {"KAGGLE_CONFIG_DIR": str(settings_file.parent)}
    token_first = any(name in found[0] for name in ("access_token", "API_TOKEN"))
    if token_first:
        _check_token(found[0])
    # urllib3 logs whole addresses, signatures included, at DEBUG
    logging.getLogger("urllib3").setLevel(logging.INFO)
    try:
        with processes.environment({**pair, **folder}):
            api, method = _within(_CALL_TIMEOUT_S, _authenticated_api)
    except (requests.ConnectionError, requests.Timeout, TimeoutError) as e:
        if lasting := lasting_reason(e):
            raise UserError(f"Kaggle cannot be reached: {lasting}") from e
        raise UserError(
            f"Kaggle cannot be reached ({network_reason(e)}). Check the network and the proxy, then run this again"
        ) from e
    except ImportError as e:
        raise UserError(f"the Kaggle client is missing ({e}): pip install -r requirements.txt") from e
    except requests.HTTPError as e:
        if e.response is not None and e.response.status_code == 407:
            raise UserError(f"Kaggle cannot be reached: {proxy_refusal('407')}") from e
        if e.response is not None and e.response.status_code not in (400, 401, 403, 404):
            raise UserError(
                f"Kaggle answered {e.response.status_code} to the log-in; wait, then run this again"
            ) from e
        raise UserError(f"Kaggle does not accept {found[0]} ({redact(str(e))}). {HOW_TO_AUTHENTICATE}") from e
    except requests.exceptions.InvalidURL as e:
        raise UserError(f"Kaggle cannot be reached: {request_reason(e)}") from e
    except (requests.RequestException, SystemExit) as e:
        raise UserError(
            f"Kaggle does not accept the credentials of {found[0]} ({redact(str(e))}). {HOW_TO_AUTHENTICATE}"
        ) from e
    except OSError as e:  # importing the client creates its settings folder
        raise UserError(
            f"the Kaggle client cannot create its folder {settings_file.parent} ({e.strerror or e}). Set "
            "KAGGLE_CONFIG_DIR to a writable folder"
        ) from e
    except ValueError as e:  # the client accepts any response with status 200 as one from Kaggle
        raise UserError(
            "Kaggle cannot be reached: the response to the log-in is not from Kaggle, but perhaps from a proxy or a "
            f"network that requires its own log-in ({redact(str(e))}). Check the network and the proxy, then run "
            "this again"
        ) from e
    if token_first and method != "ACCESS_TOKEN":
        # the client would continue with other credentials, yet send this token with every request
        raise UserError(
            f"Kaggle does not accept the token of {found[0]}; remove or replace it. {HOW_TO_AUTHENTICATE}"
        )
    return Kaggle(api, how=found[0] if method != "OAUTH" else found[-1])


def _authenticated_api() -> tuple[Any, str]:
    """The authenticated client and its method: ACCESS_TOKEN, LEGACY_API_KEY or OAUTH."""
    with contextlib.redirect_stdout(io.StringIO()):
        from kaggle.api.kaggle_api_extended import KaggleApi

        # drops the --verbose that the variable VERBOSE adds: it would print the Authorization header of requests
        KaggleApi.args = ["--local"] if os.environ.get("KAGGLE_API_ENVIRONMENT") == "LOCALHOST" else []
        api = KaggleApi()
        api.authenticate()
    return api, str(api.config_values.get(api.CONFIG_NAME_AUTH_METHOD, "")).rpartition(".")[2]


def _within(timeout_s: float, call: Callable[[], T]) -> T:
    """Call in a separate thread and wait up to `timeout_s` seconds for the result.

    Raises TimeoutError, or whatever the call raised. After a time-out the thread is abandoned.
    """
    result: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as e:  # noqa: BLE001 - raised again by the caller; the client even raises SystemExit
            error.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {timeout_s:.0f} s")
    if error:
        raise error[0]
    return result[0]
