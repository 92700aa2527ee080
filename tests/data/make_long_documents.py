"""Make long-documents.jsonl: documents longer than any model's limit, in scripts that are hard to split.

    python tests/data/make_long_documents.py     # needs pyarrow

Whole articles of the built-in corpus, joined by blank lines; Korean and Vietnamese in decomposed letters too; emoji
joined by U+200D, with skin tones, flags and stacked combining marks; one endless word. Every run writes
the same file.
"""

import json
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parents[1] / "crates" / "builtin" / "assets" / "udhr.parquet"
LANGUAGES = ["eng", "cmn_hans", "jpn", "tha", "hin", "arb", "heb", "sin", "rus", "vie"]
ARTICLES = 16
EMOJI = "The family 👨‍👩‍👧‍👦 waved 👋🏽 at the flag 🏴‍☠️ and the 🇫🇷 one. Z͑ͫa̴l̷g̶o̵ sat by the café. 1️⃣ ends it!\r\n\t"


def joined(code: str) -> str:
    rows = pq.read_table(CORPUS, filters=[("code", "=", code), ("article", "<=", ARTICLES)]).to_pylist()
    return "\n\n".join(row["text"] for row in rows)


def main() -> None:
    documents = {code: joined(code) for code in LANGUAGES}
    for code in ("kor", "vie"):
        documents[f"{code}-decomposed"] = unicodedata.normalize("NFD", joined(code))
    documents["emoji"] = EMOJI * 16
    documents["one-word"] = "अ" * 1500
    lines = (json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n" for name, text in documents.items())
    (HERE / "long-documents.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
