#!/usr/bin/env bash
# push.sh IMAGE REGISTRY: tags the image for the registry (HOST[:PORT][/FOLDER]) and pushes it.
set -euo pipefail
image=$1 registry=${2:-}
docker=${DOCKER:-docker}
[ -n "$registry" ] || { echo "push: say where to: REGISTRY=host:port in .env or on make's command line" >&2; exit 1; }
"$docker" image inspect "$image" >/dev/null 2>&1 || { echo "push: there is no image $image; run: make docker-cpu" >&2; exit 1; }
"$docker" tag "$image" "${registry%/}/$image"
"$docker" push "${registry%/}/$image"
echo "pushed ${registry%/}/$image"
