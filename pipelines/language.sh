#!/usr/bin/env bash
# Trains a language classifier on the odd articles and measures its accuracy on the even ones.
set -euo pipefail
polylance="${POLYLANCE:-polylance}"
here="$(cd "$(dirname "$0")" && pwd)"
models="${MODELS:-models}" data="${DATA:-data}"
source="$(sed -n 's/^uri = "\(builtin:.*\)"$/\1/p' "$here/language.toml")"
mkdir -p "$models" "$data"

"$polylance" fit --source "$source" --label code --out "$models/language" \
    --where 'article % 2 = 1' --test 'article % 2 = 0'

table="$data/language.lance"
pipeline="$data/language.toml"
sed "s#models/language#$models/language#" "$here/language.toml" > "$pipeline"
"$polylance" run "$pipeline" --set "table.uri=$table"

printf '\naccuracy on the even articles, computed from the table:\n'
"$polylance" sql --table "t=$table" \
    "SELECT round(avg(CASE WHEN found.label = code THEN 1.0 ELSE 0.0 END), 3) AS accuracy, count(*) AS rows FROM t WHERE article % 2 = 0"
