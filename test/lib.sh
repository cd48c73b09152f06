# Throw-away clusters for the demo, the bench and the tests. Sourced by bash
# scripts; everything below runs PostgreSQL as a plain user, because neither
# initdb nor the server accepts root.
#
#	cluster_new DIR PORT [SETTING...]	initdb in DIR, append settings, start
#	cluster_start DIR					start (again), wait until it answers
#	cluster_stop DIR [MODE]				stop: fast (default) or immediate
#	cluster_kill DIR					kill -9 of the whole server
#	as_pg COMMAND...					run as the plain user
#
# A build that must not reach the installed extension, which others may be using:
# PostgreSQL finds its files relative to its programs, so it gets a copy of the
# programs, with links to everything else, in a place of its own.
#
#	private_programs ROOT				the programs, below ROOT
#	private_install BUILD ROOT			install what was built in a folder there

PG_CONFIG=${PG_CONFIG:-pg_config}
PGBIN=$($PG_CONFIG --bindir)
PGLIBRARIES=$($PG_CONFIG --pkglibdir)
PGSHARE=$($PG_CONFIG --sharedir)
export PATH="$PGBIN:$PATH"
# Servers that a test program makes by itself take encoding and language from
# these (pg_regress drops LC_ALL).
export LC_ALL=C.UTF-8 LANG=C.UTF-8

as_pg()
{
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid=postgres --regid=postgres --init-groups \
			env HOME=/tmp PATH="$PATH" "$@"
	else
		"$@"
	fi
}

cluster_new()
{
	local dir=$1 port=$2 line
	shift 2
	rm -rf "$dir"
	mkdir -p "$dir"
	[ "$(id -u)" != 0 ] || chown postgres: "$dir"
	as_pg initdb -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log"
	{
		echo "port = $port"
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$dir'"
		echo "shared_preload_libraries = 'revenue_sink'"
		echo "max_prepared_transactions = 200"
		for line in "$@"; do echo "$line"; done
	} >>"$dir/data/postgresql.conf"
	cluster_start "$dir"
}

cluster_start()
{
	as_pg pg_ctl -D "$1/data" -l "$1/server.log" -w -t 300 start >/dev/null
}

cluster_stop()
{
	as_pg pg_ctl -D "$1/data" -m "${2:-fast}" -w stop >/dev/null
}

# Is the process in one of these states, or gone?
process_is()
{
	local state
	state=$(ps -o state= -p "$1") || return 0
	[[ $state == [$2] ]]
}

# The postmaster is halted first, and this waits until it is: then it starts no
# process while its children are counted. Its lock files are removed, too: its pid
# may still be in use, by the ended process that nobody has waited for.
cluster_kill()
{
	local postmaster pid pids
	postmaster=$(head -1 "$1/data/postmaster.pid")
	kill -STOP "$postmaster"
	until process_is "$postmaster" TtZ; do read -rt 0.05 <> <(:) || true; done
	pids="$postmaster $(pgrep -P "$postmaster" | tr '\n' ' ')"
	kill -9 $pids 2>/dev/null || true
	for pid in $pids; do
		until process_is "$pid" Z; do read -rt 0.05 <> <(:) || true; done
	done
	rm -f "$1/data/postmaster.pid" "$1"/.s.PGSQL.*
}

# mirror DIR ROOT: under ROOT, what DIR has, as links to it.
mirror()
{
	[ ! -e "$2$1" ] || return 0
	mkdir -p "$2$1"
	cp -rsT "$1" "$2$1"
}

private_programs()
{
	local root=$1 dir

	mkdir -p "$root$PGBIN"
	cp "$PGBIN"/* "$root$PGBIN"
	mirror "$PGLIBRARIES" "$root"
	mirror "$PGSHARE" "$root"
	rm -f "$root$PGLIBRARIES"/revenue_sink.so "$root$PGSHARE"/extension/revenue_sink*
	# what the test programs in C are built with
	for dir in "$($PG_CONFIG --includedir)" "$($PG_CONFIG --libdir)"; do
		dir=${dir%/}
		mkdir -p "$root${dir%/*}"
		[ -e "$root$dir" ] || ln -s "$dir" "$root$dir"
	done
}

private_install()
{
	install -m 755 "$1/revenue_sink.so" "$2$PGLIBRARIES/" &&
		install -m 644 "$1/revenue_sink.control" "$1"/sql/revenue_sink--*.sql "$2$PGSHARE/extension/"
}
