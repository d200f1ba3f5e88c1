#!/usr/bin/env bash
# Builds Debian 12's apiextensions-apiserver: Kubernetes' own code for custom resources (list, watch, bookmarks, expiry,
# validation), without the rest of the API server, from Debian's source with Debian's Go. Everything is kept in one
# folder, nothing is installed. Prints the path of the binary. Some CPU minutes and 1.4 GB at the first run.
set -euo pipefail

folder=$(realpath -m "${1:?usage: build.sh FOLDER}")
binary=$folder/apiextensions-apiserver
say() { printf '== %s\n' "$*" >&2; }

[ -x "$binary" ] && { printf '%s\n' "$binary"; exit 0; }

# An apt of its own: the sources are those of Debian 12, whatever the host is.
mkdir -p "$folder"/apt/{lists,cache/archives}/partial "$folder/root"
cd "$folder"
touch apt/status
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for kind in deb deb-src; do
	printf '%s [signed-by=%s] http://deb.debian.org/debian bookworm main\n' $kind $keyring
done >apt/sources.list
apt=(apt-get --quiet=2 -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=-
	-o "Dir::State::lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status" -o "Dir::Cache=$folder/apt/cache"
	-o APT::Sandbox::User=root)
say "downloading Debian's source of Kubernetes, and Go"
"${apt[@]}" update >&2
"${apt[@]}" download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev >&2
for package in *.deb; do dpkg-deb -x "$package" root; done
tree=gopath/src/k8s.io/kubernetes
if ! [ -d "$tree" ]; then
	"${apt[@]}" source --download-only kubernetes >&2
	mkdir -p "$(dirname "$tree")"
	dpkg-source --no-check -x kubernetes_*.dsc unpacked >&2 # apt has checked it
	mv unpacked "$tree"
fi

# The vendored reflect2 1.0.1 crashes with Go 1.18 or newer on the first object that has a map.
reflect2=$tree/vendor/github.com/modern-go/reflect2
rm -rf "$reflect2"
cp -r root/usr/share/gocode/src/github.com/modern-go/reflect2 "$reflect2"

say "compiling, which takes minutes"
export GOROOT=$folder/root/usr/lib/go-1.19 GOPATH=$folder/gopath GOCACHE=$folder/cache
export GO111MODULE=off GOFLAGS='' CGO_ENABLED=0
(cd "$tree" && nice "$GOROOT/bin/go" build -o "$binary.new" ./vendor/k8s.io/apiextensions-apiserver) >&2
mv "$binary.new" "$binary"
printf '%s\n' "$binary"
