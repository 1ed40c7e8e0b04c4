"""The gateway: an application's tasks, jobs and queues over HTTP.

    asgi = gateway(app, tokens="tokens.toml")

It is one plain ASGI application: `backlane serve` runs it, and any ASGI framework can
mount it under any prefix.
"""

from backlane.gateway.application import Gateway, gateway

__all__ = ["Gateway", "gateway"]
