#!/bin/sh
# What `make demo` runs: the shipped model describes the pictures beside this file, then answers
# the questions in questions.txt (PICTURE|QUESTION). FASTVLM names the command to run.
set -eu
fastvlm=${FASTVLM:-fastvlm}
here=$(dirname "$0")

set --
for picture in "$here"/*.png "$here"/*.jpg; do
  if [ -f "$picture" ]; then set -- "$@" "$picture"; fi
done
printf '$ fastvlm describe %s/*.png %s/*.jpg\n' "$here" "$here"
"$fastvlm" describe "$@"

while IFS='|' read -r picture question; do
  printf '\n$ fastvlm ask %s "%s" --quiet\n' "$here/$picture" "$question"
  "$fastvlm" ask "$here/$picture" "$question" --quiet </dev/null
done <"$here/questions.txt"
