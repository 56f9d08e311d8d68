#!/bin/sh
# Makes a Debian package of a program that was built before:
#   packaging/debian/build.sh target/release/leveret OUTPUT_DIRECTORY [ARCHITECTURE]
# It needs dpkg-deb, and dpkg for the architecture if none is given. Manual pages and completions are the program's own: they
# are made by running it, and so are missing from a package for an architecture that this machine cannot run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "$1")
output=$2
architecture=${3:-$(dpkg --print-architecture)}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -n 1)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
install -D -m 755 "$program" "$root/usr/bin/leveret"
install -D -m 644 "$here/../systemd/leveret.service" "$root/usr/lib/systemd/system/leveret.service"
install -D -m 644 "$here/../systemd/leveret-work@.service" "$root/usr/lib/systemd/system/leveret-work@.service"
install -D -m 644 "$here/../leveret.toml" "$root/etc/leveret/leveret.toml"
for document in README.md CHANGELOG.md docs/access.md docs/configuration.md docs/work.md; do
    install -D -m 644 "$here/../../$document" "$root/usr/share/doc/leveret/$(basename "$document")"
done
install -D -m 644 "$here/../grafana/leveret.json" "$root/usr/share/doc/leveret/grafana/leveret.json"
doc=$root/usr/share/doc/leveret
cat > "$doc/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: leveret

Files: *
Copyright: The Leveret developers
License: MIT or Apache-2.0

License: MIT
$(sed 's/^$/./; s/^/ /' "$here/../../LICENSE-MIT")

License: Apache-2.0
 On Debian systems, the full text of the Apache License, version 2.0, is in /usr/share/common-licenses/Apache-2.0.
COPYRIGHT
# Debian's own form; what changed is in CHANGELOG.md beside it.
gzip -9 -n > "$doc/changelog.gz" <<CHANGELOG
leveret ($version) unstable; urgency=medium

  * See CHANGELOG.md.

 -- The Leveret developers <leveret@example.org>  $(date -R -r "$here/../../CHANGELOG.md")
CHANGELOG
chmod 644 "$doc/copyright" "$doc/changelog.gz"
if "$program" --version > /dev/null 2>&1; then
    "$program" man "$root/usr/share/man/man1"
    gzip -9 -n "$root/usr/share/man/man1/"*
    mkdir -p "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
        "$root/usr/share/fish/vendor_completions.d"
    "$program" completions bash > "$root/usr/share/bash-completion/completions/leveret"
    "$program" completions zsh > "$root/usr/share/zsh/vendor-completions/_leveret"
    "$program" completions fish > "$root/usr/share/fish/vendor_completions.d/leveret.fish"
    chmod -R u=rwX,go=rX "$root/usr/share"
else
    echo "packaging/debian/build.sh: $program does not run here: the package has no manual pages and completions" >&2
fi

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
