#!/usr/bin/env bash
# build.sh cpu|gpu IMAGE: builds the image of Rust workers out of this machine's own files.
#
# It holds the boot program, the worker pool (for containers that stay, such as one beside a Flink TaskManager), libtorch, and the
# system libraries that these and the launched program load: the program itself is staged by each job, and was linked against
# the very same libraries. Nothing is pulled; docker or podman must be there. DOCKER names another client; LIBTORCH another libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=$1 image=$2
docker=${DOCKER:-docker}
libtorch=$(cd "${LIBTORCH:-third_party/libtorch/torch}" && pwd)
boot=target/release/purlin-boot pool=target/release/purlin-worker-pool
for program in $boot $pool; do
    [ -x $program ] || { echo "docker: $program is missing; run: make services" >&2; exit 1; }
done
command -v "$docker" >/dev/null || { echo "docker: no $docker here. Run: sudo apt-get install -y docker.io" >&2; exit 1; }
if [ "$variant" = gpu ] && [ ! -e "$libtorch/lib/libtorch_cuda.so" ]; then
    echo "docker: $libtorch has no CUDA. Run: setup/libtorch.sh --cuda" >&2
    exit 1
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/rootfs
mkdir -p "$root"/{opt/purlin,opt/libtorch/torch,etc/ssl/certs,tmp,usr/bin,lib64}
chmod 1777 "$root/tmp"
cp --reflink=auto $boot "$root/opt/purlin/boot"
cp --reflink=auto $pool "$root/opt/purlin/worker-pool"
strip "$root/opt/purlin/boot" "$root/opt/purlin/worker-pool" 2>/dev/null || true
# Hard links where the file system allows: libtorch is half a gigabyte.
lay() { cp -al "$1" "$2" 2>/dev/null || { rm -rf "$2" && cp -a "$1" "$2"; }; }
lay "$libtorch/lib" "$root/opt/libtorch/torch/lib"
if [ -d "$libtorch/../nvidia" ]; then
    lay "$libtorch/../nvidia" "$root/opt/libtorch/nvidia"
    find "$root/opt/libtorch/nvidia" -name include -prune -exec rm -rf {} +
fi
# What they load from the system, by the names that they load it by, and what glibc loads by itself.
{
    find "$libtorch/lib" -maxdepth 1 -name '*.so*' -print0 | LD_LIBRARY_PATH="$libtorch/lib" xargs -0 ldd 2>/dev/null
    ldd $boot $pool
    for lib in libstdc++.so.6 libgcc_s.so.1 libm.so.6 librt.so.1 libdl.so.2 libpthread.so.0 libutil.so.1 libnss_files.so.2 \
        libnss_dns.so.2 libresolv.so.2; do
        ldconfig -p | awk -v lib=$lib '$1 == lib && !found++ {print "x => " $NF}'
    done
} | awk '/=> \// {print $3} /^\t\/.*ld-linux/ {print $1}' | { grep -v "^$libtorch\|third_party" || true; } | sort -u |
while read -r file; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
done
# For what needs the user's name, host names and TLS.
cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/:/sbin/nologin
worker:x:65532:65532:worker:/tmp:/sbin/nologin
PASSWD
printf 'root:x:0:\nworker:x:65532:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
[ -e /etc/ssl/certs/ca-certificates.crt ] && cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ -d /usr/share/zoneinfo ] && [ -e /usr/share/zoneinfo/UTC ] && mkdir -p "$root/usr/share/zoneinfo" && cp -L /usr/share/zoneinfo/UTC "$root/usr/share/zoneinfo/"
cp docker/Dockerfile "$context/Dockerfile"
"$docker" build -q --build-arg "VARIANT=$variant" -t "$image" "$context" >/dev/null
bytes=$("$docker" image inspect --format '{{.Size}}' "$image")
echo "$image: $((bytes / 1000000)) MB"
