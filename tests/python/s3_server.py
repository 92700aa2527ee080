"""Starts moto's S3 server on a free port with one bucket, prints the endpoint, ends with its standard input."""

import sys
import threading

import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

# S3 checks a key and writes it atomically (If-None-Match), which commits rely on. moto checks, then writes, in one thread
# per request, so two commits of one version could both succeed.
put_lock = threading.RLock()
put = S3Response._key_response_put


def put_locked(self, *args, **kwargs):
    with put_lock:
        return put(self, *args, **kwargs)


S3Response._key_response_put = put_locked

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
keys = {"aws_access_key_id": "polylance", "aws_secret_access_key": "any", "region_name": "us-east-1"}
boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket=sys.argv[1])
print(endpoint, flush=True)
sys.stdin.read()
server.stop()
