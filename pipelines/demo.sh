#!/usr/bin/env bash
# Embeds the quickstart corpus and searches it in three languages. Run by `make demo` and by a test.
set -euo pipefail
polylance="${POLYLANCE:-polylance}"
here="$(cd "$(dirname "$0")" && pwd)"
table="${DEMO_TABLE:-data/udhr-quickstart.lance}"

show() { printf '\n$ polylance %s\n' "$*"; }

show run pipelines/quickstart.toml
"$polylance" run "$here/quickstart.toml" --set "table.uri=$table"

for query in "the right to marry and found a family" "nadie será sometido a torturas" "教育を受ける権利"; do
    show search --table "$table" "\"$query\"" -k 3
    "$polylance" search --table "$table" "$query" -k 3
done
