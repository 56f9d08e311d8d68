#!/bin/sh
# Makes a Debian package of a program that was built before:
#   packaging/debian/build.sh target/release/leveret OUTPUT_DIRECTORY [ARCHITECTURE]
# It needs dpkg-deb, and dpkg for the architecture if none is given.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=$1
output=$2
architecture=${3:-$(dpkg --print-architecture)}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -n 1)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
install -D -m 755 "$program" "$root/usr/bin/leveret"
install -D -m 644 "$here/../systemd/leveret.service" "$root/lib/systemd/system/leveret.service"
install -D -m 644 "$here/../systemd/leveret-work@.service" "$root/lib/systemd/system/leveret-work@.service"
install -D -m 644 "$here/../leveret.toml" "$root/etc/leveret/leveret.toml"
for document in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs/configuration.md docs/work.md; do
    install -D -m 644 "$here/../../$document" "$root/usr/share/doc/leveret/$(basename "$document")"
done
install -D -m 644 "$here/../grafana/leveret.json" "$root/usr/share/doc/leveret/grafana/leveret.json"

# A program that is linked statically needs no C library.
depends="adduser"
if readelf -d "$program" 2>/dev/null | grep -q NEEDED; then
    depends="$depends, libc6 (>= 2.34), libgcc-s1"
fi
installed=$(du -sk "$root" | cut -f 1)
mkdir -p "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<CONTROL
Package: leveret
Version: $version
Architecture: $architecture
Maintainer: The Leveret developers <leveret@example.org>
Installed-Size: $installed
Depends: $depends
Section: net
Priority: optional
Description: Work-queue server that speaks AMQP 0-9-1
 Leveret takes the place of RabbitMQ for work queues: one program, one data
 directory, messages that survive a crash once they are confirmed.
CONTROL
echo /etc/leveret/leveret.toml > "$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "$here/$script" "$root/DEBIAN/$script"
done
mkdir -p "$output"
dpkg-deb --root-owner-group --build "$root" "$output/leveret_${version}_$architecture.deb"
