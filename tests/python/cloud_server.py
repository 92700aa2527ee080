"""A server that imitates reading from Google's store (XML API) or Azure's: listings, heads and objects.

Arguments are `google` or `azure` and the keys; each object is a line of JSON with its key. Prints the endpoint and ends
with its standard input.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

kind, *keys = sys.argv[1:]
MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"


def content(key):
    return (json.dumps({"id": key, "text": "cat"}) + "\n").encode()


def google(found):
    entries = (
        f"<Contents><Key>{escape(key)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"1"</ETag><Size>{len(content(key))}</Size></Contents>'
        for key in found
    )
    return f"<ListBucketResult>{''.join(entries)}</ListBucketResult>"


def azure(found):
    entries = (
        f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified>"
        f"<Content-Length>{len(content(key))}</Content-Length><Content-Type>text/plain</Content-Type>"
        "<Etag>1</Etag></Properties></Blob>"
        for key in found
    )
    return f"<EnumerationResults><Blobs>{''.join(entries)}</Blobs><NextMarker/></EnumerationResults>"


class Store(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        key = unquote(address.path).split("/corpus", 1)[1].removeprefix("/")
        if query.get("list-type") or query.get("comp") == ["list"]:
            prefix = query.get("prefix", [""])[0]
            page = {"google": google, "azure": azure}[kind]
            self.respond(200, page(key for key in keys if key.startswith(prefix)).encode())
        elif key in keys:
            self.respond(200, content(key))
        else:
            self.respond(404, b"")

    def respond(self, status, body):
        first, last = 0, len(body) - 1
        if status == 200 and (range_ := self.headers.get("Range")):
            start, end = range_.removeprefix("bytes=").split("-")
            first, last, status = int(start), min(int(end or last), last), 206
        self.send_response(status)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.send_header("Last-Modified", MODIFIED)
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[first : last + 1])

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"http://127.0.0.1:{server.server_port}", flush=True)
sys.stdin.read()
