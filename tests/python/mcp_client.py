"""Call the tools of a polylance server with the Python SDK of the Model Context Protocol.

    python tests/python/mcp_client.py URL [--token TOKEN]

Prints one JSON object with an object per way to connect, `"handshake"` and `"auto"` (which first tries a revision without
a handshake): `{"version", "server", "instructions", "tools", "read_only", "tables", "search", "document", "sql"}`, and
`"errors"` with the texts of calls that must fail and the code of a call of an unknown tool. `"stranger"` is the error of a
client with another token.
"""

import argparse
import asyncio
import json

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


def content(result) -> dict:
    [text] = result.content
    return {"error": result.is_error, "text": text.text, "structured": result.structured_content}


async def calls(client: Client) -> dict:
    async def call(tool: str, **arguments) -> dict:
        return content(await client.call_tool(tool, arguments))

    try:
        await client.call_tool("drop", {})
        unknown = None
    except MCPError as error:
        unknown = error.error.code
    tools = (await client.list_tools()).tools
    found = await call("search", query="everyone has the right to rest", k=3, where="lang = 'en'")
    doc_id = found["structured"]["hits"][0]["row"]["doc_id"]
    return {
        "version": client.protocol_version,
        "server": client.server_info.name,
        "instructions": client.instructions,
        "tools": [tool.name for tool in tools],
        "read_only": [tool.annotations.read_only_hint for tool in tools],
        "tables": await call("tables"),
        "search": found,
        "document": await call("document", doc_id=doc_id),
        "sql": await call("sql", sql="SELECT lang, count(*) AS n FROM udhr GROUP BY lang ORDER BY lang"),
        "errors": {
            "condition": await call("search", query="rest", where="nothing = 1"),
            "delete": await call("sql", sql="DELETE FROM udhr"),
            "argument": await call("search", question="rest"),
            "unknown": unknown,
        },
    }


async def connected(url: str, token: str, mode: str) -> dict:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        async with Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client:
            return await calls(client)


async def stranger(url: str) -> str:
    try:
        await connected(url, "not-the-token-of-this", "legacy")
    except Exception as error:
        # The client's tasks end with groups of exceptions.
        while hasattr(error, "exceptions"):
            [error] = error.exceptions
        return str(error)
    return "nothing"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--token", default="none")
    options = parser.parse_args()
    print(json.dumps({
        "handshake": await connected(options.url, options.token, "legacy"),
        "auto": await connected(options.url, options.token, "auto"),
        "stranger": await stranger(options.url),
    }))


if __name__ == "__main__":
    asyncio.run(main())
