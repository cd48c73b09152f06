# What the run scripts of the examples share. Sourced by a bash script in a folder
# beside this file, which sets and defines these and ends with "example "$@"":
#
#	first			what the program's argument is where nobody gave one
#	environment		the variables without which the program doesn't work
#	build			a function: makes in the folder build/ what is missing there or is older
#					than its source
#	become ARG		a function: turns into the program (exec)
#
# Such a script is called in three ways:
#
#	run				everything is brought along: a broker, a server, a sink and a topic that has
#					duplicates. The program reads the topic to its end, and the fact view is
#					compared with the topic. The exit status is 0 if they are equal
#	run ARG			the program alone. What it reads and writes is in the environment, see the
#					program's head
#	run --build		no more than build. The status is 2 where a program, a package or the network
#					is missing, and 1 where the source doesn't compile
#
# Settings of "run" alone:
#
#	EVENTS=20000				in the topic, without duplicates
#	EXAMPLE_PORT=5790			PostgreSQL's
#	EXAMPLE_KAFKA_PORT=19492	and the three after it
#	KEEP=1						leave the logs, and say where they are

folder=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
build=$folder/build
processors=$(cd "$folder/../../../test/processors" && pwd)
to_install="as root on Debian, test/processors/setup installs it"

say() { echo "$*"; }

lack()
{
	echo "${folder##*/}/run: $*" >&2
	exit 2
}

need()
{
	local name
	for name in "$@"; do
		command -v "$name" >/dev/null || lack "$name is missing; $to_install"
	done
}

# What the pom.xml of the example names, in build/jars
get_jars()
{
	need java javac mvn
	mkdir -p "$build"
	(. "$processors/kafka.sh" && jars "$folder/pom.xml" "$build/jars") >"$build/mvn.log" 2>&1 || {
		grep -m 3 ERROR "$build/mvn.log" | cut -c 1-300 >&2
		lack "Maven can't get the jars that $folder/pom.xml names"
	}
}

# compile CLASS, with these jars
compile()
{
	[ "$build/classes/$1.class" -nt "$folder/$1.java" ] ||
		javac -Xlint:all,-processing -Werror -cp "$build/jars/*" -d "$build/classes" "$folder/$1.java"
}

sql() { psql -XqtA -v ON_ERROR_STOP=1 "$@"; }

clean_up()
{
	[ -z "${program:-}" ] || kill -9 "$program" 2>/dev/null || true
	[ ! -f "$work/broker/pid" ] || broker_stop "$work/broker" KILL 2>/dev/null || true
	[ ! -f "$work/cluster/data/postmaster.pid" ] || cluster_stop "$work/cluster" immediate || true
	if [ -n "${KEEP:-}" ]; then
		say "logs are in $work"
	else
		rm -rf "$work"
	fi
}

fail()
{
	echo "${folder##*/}/run: $*" >&2
	tail -15 "$work/log" | cut -c 1-300 >&2
	exit 1
}

tool() { java_quiet -cp "$work/tools:$kafka/jars/*" "$@" 2>>"$work/log"; }

# A broker, a server with a sink, and a topic whose producer has sent some events twice
bring_along()
{
	local port=${EXAMPLE_PORT:-5790} kafka_port=${EXAMPLE_KAFKA_PORT:-19492}

	export PGHOST=$work/cluster PGPORT=$port PGUSER=postgres PGDATABASE=postgres PGTZ=UTC
	export JDBC="jdbc:postgresql://127.0.0.1:$port/postgres?user=postgres"
	export BOOTSTRAP=127.0.0.1:$kafka_port TOPIC=payments GROUP=billing
	unset PGSERVICE PGOPTIONS CLASSPATH
	kafka_jars "$kafka" >>"$work/log" 2>&1 || lack "Maven can't get the jars of a broker"
	javac -cp "$kafka/jars/*" -d "$work/tools" tools/*.java >>"$work/log" 2>&1 || fail "the tools don't compile"
	broker_new "$work/broker" "$kafka" "$kafka_port" >>"$work/log" 2>&1 || fail "the broker doesn't start"
	tool Topic "$BOOTSTRAP" "$TOPIC" 4 || fail "the broker makes no topic"
	tool Produce "$kafka_port" "$TOPIC" plain 0 "$EVENTS" 12 >/dev/null || fail "the producer has failed"
	read -r records distinct _ < <(tool ReadApart "$BOOTSTRAP" "$TOPIC" 0 "$EVENTS" "$work/truth") ||
		fail "the topic can't be read"
	say "A broker at $BOOTSTRAP, whose topic $TOPIC has $records records of $distinct events."
	cluster_new "$work/cluster" "$port" "listen_addresses = '127.0.0.1'" 2>>"$work/log" || fail "the server doesn't start"
	sql -c "CREATE EXTENSION revenue_sink" -c "SELECT revenue_sink.create_sink('orders')" >/dev/null
	say "A server at 127.0.0.1:$port, with a sink:"
	say "     CREATE EXTENSION revenue_sink; SELECT revenue_sink.create_sink('orders');"
}

answered="SELECT applied + duplicate + deferred + conflict + late + rejected
	- (SELECT count(*) FROM revenue_sink.deferred) FROM revenue_sink.stat_sink"

# Until the sink has answered for each record of the topic and settled what it has
# deferred, or the program stands still
reads_the_topic()
{
	local at=0 before=0 deadline=$((SECONDS + 90))
	until [ "$at" = "$records" ]; do
		kill -0 "$program" 2>/dev/null || fail "the program has ended at record $at of $records"
		[ "$at" = "$before" ] || deadline=$((SECONDS + 90))
		[ "$SECONDS" -lt "$deadline" ] || fail "the program has stood at record $at of $records for 90 s"
		before=$at
		read -rt 0.1 <> <(:) || true
		at=$(sql -c "$answered")
	done
}

show()
{
	EVENTS=${EVENTS:-20000}
	need "${PG_CONFIG:-pg_config}" java javac mvn
	cd "$processors"
	. ../lib.sh
	. ./kafka.sh
	[ -e "$PGSHARE/extension/revenue_sink.control" ] || lack "the extension isn't installed; make && make install does that"
	kafka=$processors/../build/processors
	work=$(mktemp -d "${TMPDIR:-/tmp}/revenue_sink-example.XXXXXX")
	chmod 755 "$work"
	mkdir -p "$kafka"
	trap clean_up EXIT
	trap 'exit 130' INT TERM
	bring_along
	say "The program, until it has read the topic to its end:"
	(cd "$work" && become "$first") 2>>"$work/log" > >(sed -u 's/^/     /') &
	program=$!
	reads_the_topic
	kill "$program"
	wait "$program" 2>/dev/null || true
	program=
	say "What came of it, the latest three minutes:"
	psql -X -c "SELECT * FROM fact_revenue_1m ORDER BY minute DESC LIMIT 3" \
		-c "SELECT applied, duplicate FROM revenue_sink.stat_sink"
	sql -F, -c "SELECT to_char(minute, 'YYYY-MM-DD\"T\"HH24:MI\"Z\"'), revenue, events
			FROM fact_revenue_1m ORDER BY minute" -c "SELECT revenue_sink.check('orders')" >"$work/facts"
	diff "$work/truth" "$work/facts" || fail "the fact view differs from the topic"
	say "The fact view equals the topic: $(wc -l <"$work/facts") minutes, $distinct events, each of them counted once."
}

example()
{
	local name
	build || exit
	case ${1:-} in
		--build) ;;
		"") show ;;
		-*) lack "there is no option $1" ;;
		*)
			for name in $environment; do
				[ -n "${!name:-}" ] || lack "$name isn't set; without an argument, a broker and a server are brought along"
			done
			become "$1" ;;
	esac
}
