"""Debian's descriptions of packages as a corpus in many languages: each has a line that names the package's purpose and
some paragraphs that describe it.

The translations are those of the Debian Description Translation Project. `apt-get update` writes them as
`*_i18n_Translation-LANGUAGE` into its lists; with the languages below in `Acquire::Languages` it fetches all of them:

    echo 'Acquire::Languages {"en";"cs";"da";"de";"es";"fr";"it";"ja";"ko";"pl";"pt_BR";"ru";"uk";};' > languages.conf
    APT_CONFIG=languages.conf apt-get update
"""

import hashlib
import json
from pathlib import Path

LISTS = Path("/var/lib/apt/lists")
LANGUAGES = ("cs", "da", "de", "es", "fr", "it", "ja", "ko", "pl", "pt_BR", "ru", "uk")
# Packages with descriptions in at least TRANSLATIONS of the languages, and other packages in English only, among which
# searches have to find them.
PACKAGES = 120
TRANSLATIONS = 6
OTHERS = 1000


def descriptions(lists: Path, language: str) -> dict:
    """The first line and the paragraphs of each package's description."""
    name = language.replace("_", "%5f")
    files = [path for path in lists.glob("*_i18n_Translation-*") if path.name.endswith(f"Translation-{name}")]
    if not files:
        raise SystemExit(f"error: {lists} has no descriptions in {language}: see package_descriptions.py")
    described = {}
    for stanza in files[0].read_text(encoding="utf-8").split("\n\n"):
        lines = stanza.split("\n")
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(" ") and ": " in line)
        first = next((value for key, value in fields.items() if key.startswith("Description-") and key != "Description-md5"), "")
        paragraphs = " ".join("\n\n" if line.strip() == "." else line.strip() for line in lines if line.startswith(" "))
        if len(first) >= 12 and len(paragraphs) >= 120 and "<trans>" not in stanza:
            described[fields["Package"]] = (first, " ".join(paragraphs.split(" ")))
    return described


def corpus(lists: Path) -> list:
    """Rows `id`, `package`, `language`, `title` and `text`: always the same for the same lists."""
    english = descriptions(lists, "en")
    # Packages of one source often have one text: the first of them stays.
    seen, packages = set(), []
    for package in sorted(english, key=lambda name: hashlib.sha256(name.encode()).digest()):
        title, text = english[package]
        if text[:120] not in seen and title not in seen:
            seen.update((text[:120], title))
            packages.append(package)
    translated = {language: descriptions(lists, language) for language in LANGUAGES}

    def differs(package: str, language: str) -> bool:
        there = translated[language].get(package)
        return there is not None and there[0] != english[package][0] and there[1] != english[package][1]

    rows, chosen = [], []
    for package in packages:
        languages = [language for language in LANGUAGES if differs(package, language)]
        if len(chosen) < PACKAGES and len(languages) >= TRANSLATIONS:
            chosen.append(package)
            rows += [(package, language, *translated[language][package]) for language in languages]
    others = [package for package in packages if package not in chosen][:OTHERS]
    rows += [(package, "en", *english[package]) for package in [*chosen, *others]]
    keys = ("package", "language", "title", "text")
    return [{"id": f"{row[1]}/{row[0]}", **dict(zip(keys, row))} for row in rows]


def write(lists: Path, path: Path) -> list:
    """Writes the corpus as JSON lines."""
    rows = corpus(lists)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows
