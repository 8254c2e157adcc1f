"""Requests by Python's clients. `client.py URL KEY SECRET` prints a line for each: its name, a tab, the status.

The secret is one of Standard Webhooks, for the messages that the reference implementations sign.
"""

import asyncio
import base64
import gzip
import http.client
import sys
import urllib.request
from datetime import datetime, timezone
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
import standardwebhooks.webhooks
import svix.webhooks

base, key, secret = sys.argv[1:]
url = base + "/webhooks/email-marketing/click"
auth = {"Authorization": "Bearer " + key}
json_type = {**auth, "Content-Type": "application/json"}


def click(name):
    noise = ',"noise":"' + "x" * 100_000 + '"' if "large" in name else ""
    return ('{"campid":"%s"%s}' % (name, noise)).encode()


def say(name, status):
    print(f"{name}\t{status}")


def pieces(body):
    yield body[:5]
    yield body[5:]


def by_requests():
    def post(name, target=url, **more):
        say(name, requests.post(target, timeout=60, **{"headers": auth, **more}).status_code)

    def body(name):
        return {"data": click(name)}

    post("requests: data", **body("requests: data"))
    name = "requests: a generator"
    post(name, data=pieces(click(name)))
    name = "requests: gzip"
    post(name, data=gzip.compress(click(name)), headers={**json_type, "Content-Encoding": "gzip"})
    name = "requests: large"
    post(name, **body(name))
    name = "requests: a slash at the end"
    post(name, url + "/", **body(name))
    name = "requests: params"
    post(name, params={"a": "b c"}, **body(name))
    name = "requests: form"
    post(name, base + "/form", data={"campid": name})
    name = "requests: user and password"
    post(name, base + "/basic", headers={}, auth=("user", "a-password-of-the-tests"), **body(name))
    with requests.Session() as session:
        for name in ("requests: first of a session", "requests: second of a session"):
            answer = session.post(url, data=click(name), headers=json_type, timeout=60)
            say(name, answer.status_code)


def by_httpx():
    with httpx.Client(timeout=60, headers=json_type) as client:
        name = "httpx: content"
        say(name, client.post(url, content=click(name)).status_code)
        name = "httpx: a generator"
        say(name, client.post(url, content=pieces(click(name))).status_code)
        name = "httpx: a URL in parts"
        say(name, client.post(url.replace("click", "./click"), content=click(name)).status_code)
    with httpx.Client(timeout=60, headers=json_type, http1=False, http2=True) as client:
        name = "httpx: HTTP/2"
        say(name, client.post(url, content=click(name)).status_code)


async def by_aiohttp():
    async with aiohttp.ClientSession(headers=json_type) as session:

        async def post(name, data, **more):
            async with session.post(url, data=data, **more) as answer:
                say(name, answer.status)

        name = "aiohttp: data"
        await post(name, click(name))
        name = "aiohttp: deflate"
        await post(name, click(name), compress="deflate")
        name = "aiohttp: gzip"
        await post(name, click(name), compress="gzip")
        name = "aiohttp: chunked"
        await post(name, click(name), chunked=True)
        name = "aiohttp: large, expects 100"
        await post(name, click(name), expect100=True)


def by_the_library():
    name = "urllib: a request"
    request = urllib.request.Request(url, data=click(name), headers=auth)
    with urllib.request.urlopen(request, timeout=60) as answer:
        say(name, answer.status)
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    name = "http.client: a file"
    connection.request("POST", urlsplit(url).path, iter([click(name)]), json_type, encode_chunked=True)
    say(name, connection.getresponse().status)


def by_the_references():
    """Messages of Standard Webhooks, signed by those who specified it."""
    now = datetime.now(tz=timezone.utc)

    def post(name, library, prefix):
        body = click(name)
        webhook = library.webhooks.Webhook(secret)
        identity = "msg_" + base64.b32encode(name.encode()).decode().strip("=")
        signature = webhook.sign(identity, now, body.decode())
        headers = {
            prefix + "-id": identity,
            prefix + "-timestamp": str(int(now.timestamp())),
            prefix + "-signature": signature,
        }
        # The reference accepts it, too.
        webhook.verify(body, headers)
        say(name, requests.post(base + "/standard", data=body, headers=headers, timeout=60).status_code)

    post("svix for Python", svix, "svix")
    post("standardwebhooks for Python", standardwebhooks, "webhook")


by_requests()
by_httpx()
asyncio.run(by_aiohttp())
by_the_library()
by_the_references()
