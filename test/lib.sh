# Throw-away clusters for the demo, the bench and the tests. Sourced by bash
# scripts; everything below runs PostgreSQL as a plain user, because neither
# initdb nor the server accepts root.
#
#	cluster_new DIR PORT [SETTING...]	initdb in DIR, append settings, start
#	cluster_start DIR					start (again), wait until it answers
#	cluster_stop DIR [MODE]				stop: fast (default) or immediate
#	cluster_kill DIR					kill -9 of the whole server
#	as_pg COMMAND...					run as the plain user

PG_CONFIG=${PG_CONFIG:-pg_config}
PGBIN=$($PG_CONFIG --bindir)
export PATH="$PGBIN:$PATH"

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

# The postmaster first, so that nothing is restarted; the rest follows it.
cluster_kill()
{
	local pid child
	pid=$(head -1 "$1/data/postmaster.pid")
	child=$(pgrep -P "$pid" | tr '\n' ' ')
	kill -9 "$pid" $child 2>/dev/null || true
	while pgrep -g "$pid" >/dev/null || kill -0 "$pid" 2>/dev/null; do read -rt 0.05 <> <(:) || true; done
	rm -f "$1/data/postmaster.pid"
}
