#!/bin/sh
# Takes secrets from files: NAME_FILE=/run/secrets/name stands for NAME. Then becomes the command it was given.
set -eu
for name in RL_API_SECRET_KEY RLPLATFORM_DATABASE_URL PGPASSWORD; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    export "$name=$value"
  fi
done
exec "$@"
