# Folders with another Debian, or one with hardly anything in it, made by
# debootstrap as root. Sourced by bash scripts that have to run something there.
#
#	make_root SUITE ROOT		makes a folder with make in it, if it isn't there
#	make_bare_root SUITE ROOT	likewise, with nothing but what Debian calls minimal
#	in_root ROOT COMMAND...		runs a command in the folder
#
# MIRROR is that of Debian for debootstrap, and SUITE[version] the release that
# has a version of PostgreSQL.

declare -A SUITE=([15]=bookworm [17]=trixie [18]=forky)

# With the kernel's file systems that a server needs; they go with the command.
in_root()
{
	local root=$1
	shift
	unshare --mount --propagation private bash -c '
		root=$1; shift
		mount -t proc proc "$root/proc" && mkdir -p "$root/dev/shm" &&
			mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm" && exec chroot "$root" "$@"' - "$root" "$@"
}

# bootstrap SUITE ROOT OPTION...
bootstrap()
{
	local suite=$1 root=$2
	shift 2
	[ ! -x "$root/usr/bin/apt-get" ] || return 0
	command -v debootstrap >/dev/null || apt-get install -y -q debootstrap || return
	# a release that is newer than this debootstrap is made as unstable is
	[ -e "/usr/share/debootstrap/scripts/$suite" ] || ln -s sid "/usr/share/debootstrap/scripts/$suite"
	mkdir -p "$root" && debootstrap --variant=minbase "$@" "$suite" "$root" ${MIRROR:-} || return
	# lists of a release in the making may be older than they say they should be
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99revenue_sink"
	# with the release's security fixes, which this machine has, too, where the mirror has them
	local fixes=$root/etc/apt/sources.list.d/security.list
	sed -nE 's|^deb (.*)/debian/? ([a-z]+) main$|deb \1/debian-security \2-security main|p' "$root/etc/apt/sources.list" >"$fixes"
	in_root "$root" apt-get -q update -o APT::Update::Error-Mode=any || rm "$fixes"
}

make_root() { bootstrap "$1" "$2" --include=make,ca-certificates; }

make_bare_root() { bootstrap "$1" "$2"; }
