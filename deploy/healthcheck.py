"""Ends with 0 if the service on this machine answers that it is healthy. The image has no curl; this needs only Python.

It reads the variables that the service reads: RL_API_PORT, RL_API_TRUSTED_HOSTS, RL_API_SSL_CERTFILE.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request


def main() -> str | None:
    """Ask /health; return what is wrong, or None."""
    tls = bool(os.environ.get("RL_API_SSL_CERTFILE"))
    url = f"{'https' if tls else 'http'}://127.0.0.1:{os.environ.get('RL_API_PORT') or 8000}/health"
    request = urllib.request.Request(url)
    trusted = os.environ.get("RL_API_TRUSTED_HOSTS", "").strip()
    if trusted and trusted != "*":
        first = json.loads(trusted)[0] if trusted.startswith("[") else trusted.split(",")[0].strip()
        request.add_header("Host", first)
    # The certificate is for the service's public name, and this never leaves the machine.
    context = ssl._create_unverified_context() if tls else None
    try:
        with urllib.request.urlopen(request, timeout=4, context=context) as answer:
            status = json.load(answer).get("status")
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return None if status == "healthy" else f"{url}: {status}"


sys.exit(main())
