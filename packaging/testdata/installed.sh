# installed.sh ROOT DEB DIR TEST: installs DEB into a copy of ROOT in DIR, and looks at
# it from the inside, with this test's own binary for the part with a desktop. Runs in
# a mount namespace of its own.
set -euo pipefail
root=$1 deb=$2 dir=$3 test=$4
mount -t tmpfs vix-copy "$dir"
mkdir "$dir"/{up,work,copy}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/up,workdir=$dir/work" "$dir/copy"
cp "$deb" "$dir/copy/vix.deb"

pkg() { PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C chroot "$dir/copy" dpkg "$@"; }
files() { (cd "$dir/copy" && find usr etc -not -path '*cache*' | sort); }
before=$(files)
# The root itself goes without documentation.
pkg --path-include='/usr/share/*' -i /vix.deb
[ -z "$(pkg --audit)" ]
[ -z "$(pkg --verify vix)" ]
[ "$(pkg -s vix | sed -n 's/^Status: //p')" = "install ok installed" ] && echo installed

in_root=$PWD/scripts/in-root
inside() { VIX_SYSROOT=$dir/copy "$in_root" "$@"; }
inside vix --version
# It fails where there is no compositor, but must know every part.
inside vix doctor >"$dir/doctor" 2>&1 || :
cat "$dir/doctor"
! grep -E '^fail +(QEMU|virtiofsd|kernel|Vix) ' "$dir/doctor"
echo "doctor: done"
inside sh -c 'MANPATH=/usr/share/man man vix && man 7 vix && man vix-config.toml' | grep -q 'virtual machine'
echo "man: done"
(cd packaging && VIX_INSTALLED=1 inside "$test" -test.run '^TestInside$' -test.v -test.timeout 5m)

pkg --purge vix
left=$(diff <(echo "$before") <(files) || :)
[ -z "$left" ] && echo "left: nothing" || echo "left: $left"
