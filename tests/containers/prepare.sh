#!/bin/sh
# Install buildah, podman and runc, and make a base image named as the one in DockerfileServer, from Debian alone.
#
# No image registry is asked: the stand-in for python:3.13-slim is the Debian release that the real one is made of.
# Root on Debian. The one argument is the directory of the image store; a second run finds everything there.
set -eu
store=$1
suite=trixie
image=docker.io/library/python:3.13-slim

say() {
  echo "prepare: $*" >&2
}

in_store() {
  subcommand=$1
  shift
  buildah --root "$store/images" --runroot "$store/run" --storage-driver overlay "$subcommand" "$@"
}

debian_mirror() { # The one that this machine's own apt uses.
  # shellcheck disable=SC2016 # apt-get fills it in.
  apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | head -n 1
}

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  say "expected root on Debian, got user $(id -un): run it as root, or leave the container tests out"
  exit 2
fi

for tool in buildah podman runc debootstrap; do
  if ! command -v "$tool" >/dev/null; then
    say "installing buildah, podman, runc and debootstrap"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      buildah podman runc debootstrap >/dev/null
    break
  fi
done

mkdir -p "$store"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$store/policy.json"
if in_store inspect --type image "$image" >/dev/null 2>&1; then
  say "$image is there already"
  exit 0
fi

say "making $image from Debian $suite: a minute or two"
[ -n "$(debian_mirror)" ] || apt-get update -qq
root=$(mktemp -d "$store/debian.XXXXXX")
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3-venv "$suite" "$root" "$(debian_mirror)" \
  >"$store/debootstrap.log" 2>&1 || {
  tail -n 20 "$store/debootstrap.log" >&2
  exit 1
}
ln -s ../../bin/python3 "$root/usr/local/bin/python"

say "fetching docker-compose, which reads docker-compose.yml without an engine"
release_apt() { # apt-get as the release's own, with its sources and keys.
  apt-get -qq -o Dir="$root" -o Dir::State::status="$root/var/lib/dpkg/status" -o APT::Sandbox::User=root "$@"
}
release_apt update
(cd "$root/tmp" && release_apt download docker-compose && dpkg -x docker-compose_*.deb "$store/docker-compose")
rm -rf "$root"/tmp/*.deb "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

container=$(in_store from --signature-policy "$store/policy.json" scratch)
in_store add -q "$container" "$root" / >/dev/null
in_store config --cmd python --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
in_store commit -q --rm --signature-policy "$store/policy.json" "$container" "$image" >/dev/null
