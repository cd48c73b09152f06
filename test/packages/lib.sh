# What check_deb and check_dist share: folders in which packages are tried, and
# counting. Sourced by them, in the root of the repository.
#
# ROOTS, KEEP and MIRROR are settings of theirs. $work is removed at the end, $bare
# is the folder in which "inside" runs commands.

. test/roots.sh
. test/snippets/shown.sh

ROOTS=${ROOTS:-/var/tmp/revenue_sink-roots}
work=$(mktemp -d "${TMPDIR:-/tmp}/revenue_sink-packages.XXXXXX")
bare=
passed=0
failed=0

clean_up()
{
	# of a test that has stopped halfway
	if [ -n "$bare" ] && compgen -G "$bare/var/lib/postgresql/*/tour" >/dev/null; then
		inside sh -c 'pg_dropcluster "$(ls /var/lib/postgresql)" tour --stop'
	fi
	[ -z "${KEEP:-}" ] || { echo "kept: $work"; return; }
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT

# try WHAT COMMAND...: counts; what the command printed is shown if it fails.
try()
{
	local what=$1
	shift
	if "$@" >"$work/log" 2>&1; then
		passed=$((passed + 1))
		echo "$what ... ok"
	else
		failed=$((failed + 1))
		echo "$what ... FAILED"
		tail -30 "$work/log" | sed 's/^/    /'
		return 1
	fi
}

finish()
{
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}

# copy_bare_root SUITE FOLDER: a fresh folder, which starts no server by itself.
copy_bare_root()
{
	bare=$2
	make_bare_root "$1" "$ROOTS/bare-$1" && cp -a "$ROOTS/bare-$1" "$bare" || return
	printf '#!/bin/sh\nexit 101\n' >"$bare/usr/sbin/policy-rc.d"
	chmod +x "$bare/usr/sbin/policy-rc.d"
	mkdir -p "$bare/etc/postgresql-common" "$bare/packages"
	echo "create_main_cluster = false" >"$bare/etc/postgresql-common/createcluster.conf"
	inside apt-get -q update
}

# inside COMMAND...: in that folder
inside()
{
	in_root "$bare" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PGTZ=UTC \
		DEBIAN_FRONTEND=noninteractive http_proxy="${http_proxy:-}" "$@"
}

# start VERSION: a cluster with the library
start()
{
	inside pg_createcluster "$1" tour --port 5440 -o shared_preload_libraries=revenue_sink \
		-o max_prepared_transactions=5 --start
}

restart() { inside pg_ctlcluster "$1" tour restart; }

# sql OPTION...: psql as the user postgres
sql() { inside setpriv --reuid=postgres --regid=postgres --init-groups psql -X -p 5440 -v ON_ERROR_STOP=1 "$@"; }

# Does the tour print what the README shows?
tour()
{
	diff -u <(block README.md test/snippets/tour.sql) - <<<"$(sql -v ON_ERROR_STOP=0 -a -f /packages/tour.sql 2>&1 | as_shown)"
}

