"""What went wrong with a call: its kind, which says what to do, and words for people.

botocore raises one class for whatever SQS declines, and many for what the network does.
Here they become one, once.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from backlane.engine.transports.sqs.address import Address
from backlane.errors import EngineUnavailable


class Kind(Enum):
    """What a failed call means to who made it."""

    THROTTLED = auto()  # not done: too many calls for now
    GONE = auto()  # not done: there is no such queue
    AWAY = auto()  # not done: the endpoint was not reached
    DENIED = auto()  # not done: no credentials, wrong ones, or a right is missing
    REFUSED = auto()  # not done: the request is at fault, and will be so again
    DOUBT = auto()  # perhaps done: the answer is missing


class Trouble(Exception):
    """A call that failed."""

    def __init__(self, kind: Kind, text: str, code: str = "") -> None:
        self.kind, self.text, self.code = kind, text, code
        super().__init__(text)

    def unavailable(self) -> EngineUnavailable:
        return EngineUnavailable(self.text)


THROTTLED = {
    *("RequestThrottled", "Throttling", "ThrottlingException", "ThrottledException"),
    *("RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded"),
    *("OverLimit", "SlowDown", "BandwidthLimitExceeded", "KmsThrottled", "ServiceUnavailable"),
}
GONE = {"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"}
BAD_KEYS = {
    *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
    *("MissingAuthenticationToken", "MissingAuthenticationTokenException", "InvalidSecurity"),
    *("ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "AuthFailure"),
}
BAD_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "InvalidSignatureException"}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"}


def trouble_of(error: Exception, action: str, queue: str | None, address: Address) -> Trouble:
    """Return what an exception of botocore means."""
    from botocore import exceptions as raised

    what = f"{action} of queue {queue!r}" if queue else action
    if isinstance(error, raised.ClientError):
        return _declined(error, action, what, address)
    nobody = (
        raised.NoCredentialsError,
        raised.PartialCredentialsError,
        raised.CredentialRetrievalError,
        raised.ProfileNotFound,
        raised.TokenRetrievalError,
        raised.SSOError,
    )
    if isinstance(error, nobody):
        return Trouble(
            Kind.DENIED,
            f"{address.place}: there are no credentials ({error}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where there is a role",
        )
    if isinstance(error, raised.SSLError):
        return Trouble(
            Kind.AWAY,
            f"{address.place}: no secure connection ({_brief(error)}); use sqs+http:// if it "
            "speaks no TLS, or set AWS_CA_BUNDLE to the certificate that signed its own",
        )
    unmet = (raised.EndpointConnectionError, raised.ConnectTimeoutError)
    if isinstance(error, (*unmet, raised.ProxyConnectionError)):
        return Trouble(
            Kind.AWAY,
            f"{address.place} is not reached ({_brief(error)}); correct the region, or host and "
            "port of the URL, or look after the network",
        )
    if isinstance(error, (raised.ParamValidationError, raised.InvalidRegionError)):
        return Trouble(Kind.REFUSED, f"{address.place}: {what}: {error}")
    return Trouble(
        Kind.DOUBT, f"{address.place}: no answer to {what} ({type(error).__name__}: {error})"
    )


def _declined(error: Any, action: str, what: str, address: Address) -> Trouble:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    codes = {code, str(said.get("QueryErrorCode", ""))}
    text = f"{address.place}: {what}: {said.get('Message') or 'no reason given'} ({code})"
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if codes & THROTTLED or "Throttl" in code or status in (429, 503):
        return Trouble(Kind.THROTTLED, text, code)
    if codes & GONE:
        return Trouble(Kind.GONE, text, code)
    if codes & BAD_CLOCK or (code == "SignatureDoesNotMatch" and "expired" in text):
        return Trouble(
            Kind.DENIED, f"{text}; the clock of this machine is wrong: let NTP set it", code
        )
    if codes & BAD_KEYS or code == "SignatureDoesNotMatch" or status == 401:
        return Trouble(
            Kind.DENIED,
            f"{text}; the credentials are wrong or have expired: look at AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile",
            code,
        )
    if codes & DENIED:
        return Trouble(
            Kind.DENIED, f"{text}; allow sqs:{action} on this queue to these credentials", code
        )
    if status >= 500:
        return Trouble(Kind.DOUBT, text, code)
    return Trouble(Kind.REFUSED, text, code)


def _brief(error: Exception) -> str:
    return str(error).removeprefix("Could not connect to the endpoint URL: ").strip()
