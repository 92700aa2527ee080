"""Request embeddings from a polylance server with OpenAI's own client.

    python tests/python/openai_client.py URL MODEL [--token TOKEN] [--ca FILE] TEXT…

Prints one JSON object: `{"float", "base64", "default"}` with a list of vectors each, `"ids"` the vectors of the token
lists [0, 41, 2] and [0, 42, 43, 2], `"short"` those of 8 dimensions, `"passage"` those of passages, `"nulls"` those of a
request whose other fields are null, `"models"` the ids of the models, `"model"` the id of the requested one,
`"usage"`, and `"errors"`: the errors of requests that must be refused, as `[class, status, code, param]`.
"""

import argparse
import base64
import json
import ssl
import struct

import openai


def vectors(answer) -> list:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [numbers(item.embedding) for item in answer.data]


def numbers(embedding: list | str) -> list:
    """The client decodes base64 only if it chose the format itself."""
    if isinstance(embedding, str):
        bytes_ = base64.b64decode(embedding)
        return list(struct.unpack(f"<{len(bytes_) // 4}f", bytes_))
    return list(embedding)


def refused(call) -> list:
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code, error.param]
    return ["nothing", 200, None, None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--token", default="none")
    parser.add_argument("--ca")
    options = parser.parse_args()
    verify = ssl.create_default_context(cafile=options.ca) if options.ca else True
    http = openai.DefaultHttpxClient(verify=verify, trust_env=False)
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key=options.token, http_client=http, max_retries=0)

    def embed(texts, **more):
        return client.embeddings.create(input=texts, model=options.model, **more)

    default = embed(options.texts)
    stranger = client.with_options(api_key="not-the-token-of-this")
    print(json.dumps({
        "float": vectors(embed(options.texts, encoding_format="float")),
        "base64": vectors(embed(options.texts, encoding_format="base64", extra_body={"input_type": "query"})),
        "default": vectors(default),
        "ids": vectors(embed([[0, 41, 2], [0, 42, 43, 2]])),
        "short": vectors(embed(options.texts, dimensions=8)),
        "passage": vectors(embed(options.texts, extra_body={"input_type": "passage"})),
        "nulls": vectors(embed(options.texts, extra_body={"dimensions": None, "user": None, "input_type": None})),
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(options.model).id,
        "usage": default.usage.model_dump(include={"prompt_tokens", "total_tokens"}),
        "errors": {
            "model": refused(lambda: client.embeddings.create(input="a", model="text-embedding-3-small")),
            "long": refused(lambda: embed("word " * 2000)),
            "foreign": refused(lambda: embed([[15339, 1917]])),
            "none": refused(lambda: client.models.retrieve("gpt-4")),
            "dimensions": refused(lambda: embed("a", dimensions=100_000)),
            "stranger": refused(lambda: stranger.embeddings.create(input="a", model=options.model)),
        },
    }))


if __name__ == "__main__":
    main()
