# What run, faults and bench have in common: a broker, a server, a Flink cluster,
# and how results are counted. Sourced in test/processors.

. ../lib.sh
. ./kafka.sh
. flink/flink.sh

FLINK_PORT=${FLINK_PORT:-18081}
KAFKA_PORT=${KAFKA_PORT:-19392}
FLINK_PG_PORT=${FLINK_PG_PORT:-5690}
FLINK=${FLINK:-2}
build=$PWD/../build/flink-$FLINK
broker_build=$PWD/../build/processors
TOPIC=payments
PARTITIONS=4
BOOTSTRAP=127.0.0.1:$KAFKA_PORT

work=$(mktemp -d "${TMPDIR:-/tmp}/flink.XXXXXX")
chmod 755 "$work"
cluster=$work/cluster
broker=$work/broker
flink=$work/flink
CLASSES=$work/job.jar
export PGHOST=$cluster PGPORT=$FLINK_PG_PORT PGUSER=postgres PGTZ=UTC PGDATABASE=postgres
unset PGSERVICE PGOPTIONS CLASSPATH
url="jdbc:postgresql://127.0.0.1:$FLINK_PG_PORT/postgres?user=postgres"
passed=0
failed=0
log=$work/log

clean_up()
{
	[ ! -d "$flink" ] || flink_stop "$flink"
	[ ! -f "$broker/pid" ] || broker_stop "$broker" KILL
	[ ! -f "$cluster/data/postmaster.pid" ] || cluster_stop "$cluster" immediate || true
	if [ -n "${KEEP:-}" ]; then
		echo "logs are in $work"
	else
		rm -rf "$work"
	fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# result WHAT STATUS [LOG...]
result()
{
	local what=$1 status=$2 file
	shift 2
	if [ "$status" = 0 ]; then
		passed=$((passed + 1))
		echo "$what ... ok"
	else
		failed=$((failed + 1))
		KEEP=1
		echo "$what ... FAILED"
		for file in "$@"; do
			[ ! -s "$file" ] || { echo "    ${file##*/}:"; tail -15 "$file" | cut -c 1-300 | sed 's/^/    /'; }
		done
	fi
}

not_run()
{
	echo "$1 not run: $2"
	[ -z "${STRICT:-}" ] || result "$1" 1
}

finish()
{
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
	exit
}

sql() { psql -XqtA -v ON_ERROR_STOP=1 "$@"; }
tool() { java_quiet -cp "$work/tools:$broker_build/jars/*" "$@"; }
is_true() { [ "$(sql -c "$1" 2>>"$log")" = t ]; }

# With settings of ours: a broker that was killed is let in again soon.
broker_again()
{
	broker_stop "$broker"
	[ -z "${BROKER_FETCH:-}" ] || sed -i '/fetch.max.bytes/d' "$broker/server.properties"
	printf '%s\n' broker.session.timeout.ms=2000 broker.heartbeat.interval.ms=500 >>"$broker/server.properties"
	broker_start "$broker" "$broker_build" >>"$work/broker.log" 2>&1
}

# Programs, jars, classes, and the processes; ends the script where it can't be.
stage_up()
{
	local program more=()

	for program in java javac jar mvn curl jq; do
		if ! command -v $program >/dev/null; then
			not_run "Flink" "$program is missing (test/processors/setup installs it)"
			finish
		fi
	done
	mkdir -p "$build" "$broker_build" "$work/classes" "$work/tools"
	if ! { kafka_jars "$broker_build" && flink_jars "$FLINK" "$build"; } >"$work/mvn.log" 2>&1; then
		not_run "Flink" "Maven can't get the jars that pom.xml and flink/pom-$FLINK.xml name"
		grep -m 3 ERROR "$work/mvn.log" | cut -c 1-300 | sed 's/^/    /'
		finish
	fi
	sink_jar "$FLINK" >"$work/mvn.log" 2>&1 && status=0 || status=1
	if [ $status = 1 ] && grep -qE 'Could not (resolve|transfer)|could not be resolved|Cannot access' "$work/mvn.log"; then
		not_run "Flink" "Maven can't get what clients/java is built with"
		grep -m 3 ERROR "$work/mvn.log" | cut -c 1-300 | sed 's/^/    /'
		finish
	fi
	result "the sink for Flink $FLINK is built" $status "$work/mvn.log"
	[ $status = 0 ] || finish
	[ "$FLINK" != 2 ] || more=(flink/flink2/*.java)
	javac -Xlint:all,-processing -Werror -cp "$broker_build/jars/*" -d "$work/tools" tools/*.java flink/tools/*.java >"$work/javac.log" 2>&1 &&
		javac -Xlint:all,-processing -Werror -cp "$SINK_JAR:$build/jars/*" -d "$work/classes" flink/job/*.java "${more[@]}" \
			>>"$work/javac.log" 2>&1 && jar cf "$CLASSES" -C "$work/classes" . && status=0 || status=1
	result "javac" $status "$work/javac.log"
	[ $status = 0 ] || finish
	broker_new "$broker" "$broker_build" "$KAFKA_PORT" >"$work/broker.log" 2>&1 && broker_again && status=0 || status=1
	result "a broker" $status "$work/broker.log"
	[ $status = 0 ] || finish
	cluster_new "$cluster" "$FLINK_PG_PORT" "listen_addresses = '127.0.0.1'" "$@"
	sql -c "CREATE EXTENSION revenue_sink"
	flink_new "$flink" "$build" "$FLINK_PORT" 2 >"$work/flink.log" 2>&1 && status=0 || status=1
	result "a JobManager, two TaskManagers, ZooKeeper" $status "$work/flink.log" "$flink"/*.log
	[ $status = 0 ] || finish
}

# The topic: EVENTS by a producer that isn't idempotent and whose answers are lost,
# and once more what is missing of three duplicates in a hundred.
topic_up()
{
	local distinct sent missing

	tool Topic "$BOOTSTRAP" "$TOPIC" "$PARTITIONS" 2>>"$log"
	tool Produce "$KAFKA_PORT" "$TOPIC" plain 0 "$EVENTS" 90 >>"$log" 2>&1
	read -r records distinct sent < <(tool ReadApart "$BOOTSTRAP" "$TOPIC" 0 "$EVENTS" "$work/truth" 2>>"$log")
	missing=$((EVENTS * 3 / 100 - (records - distinct)))
	if [ $missing -gt 0 ]; then
		tool Produce "$KAFKA_PORT" "$TOPIC" idempotent $((EVENTS / 2)) $((EVENTS / 2 + missing)) 1000000 >>"$log" 2>&1
		read -r records distinct sent < <(tool ReadApart "$BOOTSTRAP" "$TOPIC" 0 "$EVENTS" "$work/truth" 2>>"$log")
	fi
	[ "$sent" = "$EVENTS" ] && [ $((records - distinct)) -ge $((EVENTS * 3 / 100)) ] && status=0 || status=1
	result "a topic of $records records, $((records - distinct)) of them duplicates" $status "$log"
	[ $status = 0 ] || finish
}

# A sink of its own for each piece.
sink_new()
{
	sql -c "SELECT revenue_sink.drop_sink(sink) FROM revenue_sink.sink" -c "SELECT revenue_sink.create_sink('orders')" \
		>>"$log" 2>&1
}

# submit PARALLELISM SAVEPOINT ARGUMENT...: the job, which is $job from then on
submit()
{
	local parallelism=$1 savepoint=$2
	shift 2
	rm -f "$work/progress"
	job=$(job_submit "$flink" "$parallelism" "$savepoint" --bootstrap "$BOOTSTRAP" --topic "$TOPIC" --url "$url" \
		--name billing --progress "$work/progress" "$@" 2>>"$log") || { echo "the job can't be submitted" >>"$log"; return 1; }
	enumerator_restored=${savepoint:+no}
}

is_over() { [[ $(job_state "$flink" "$job") =~ ^(FINISHED|FAILED|CANCELED)$ ]]; }

# stop_with_savepoint DRAIN: its path is $savepoint from then on. To drain is to
# act as if the input had ended.
savepoint_is_done() { [ "$(rest "$flink" "/jobs/$job/savepoints/$1" | jq -r .status.id)" = COMPLETED ] || is_over; }
stop_with_savepoint()
{
	local request
	request=$(rest "$flink" "/jobs/$job/stop" -H 'Content-Type: application/json' \
		--data "{\"drain\": $1}" | jq -r '."request-id"')
	wait_for 30 savepoint_is_done "$request" >>"$log" || return
	savepoint=$(rest "$flink" "/jobs/$job/savepoints/$request" | jq -r '.operation.location // empty')
	[ -n "$savepoint" ] && wait_for 30 is_over >>"$log"
}

# Ended by itself; or at the topic's end for so long that it won't.
has_ended_or_read_all() { is_over || has_read "$records"; }

# The job ends, and well. By itself, unless its source's enumerator was restored
# from a checkpoint: of such a one the Kafka connector of that version never tells
# the readers that nothing more comes (FLINK-31006). Then it's drained.
job_ends()
{
	local state savepoint tries
	wait_for 90 has_ended_or_read_all >>"$log"
	[ -n "$enumerator_restored" ] || wait_for 15 is_over >/dev/null
	for ((tries = 0; tries < 5; tries++)); do
		is_over || stop_with_savepoint true || continue
		break
	done
	state=$(job_state "$flink" "$job")
	[ "$state" = FINISHED ] || {
		echo "the job is $state, at record $(position) of $records" >>"$log"
		rest "$flink" "/jobs/$job/exceptions" | jq -r '."exceptionHistory".entries[:2][].stacktrace' 2>/dev/null |
			grep -v '^[[:space:]]*at ' >>"$log"
		return 1
	}
}

# how many records the job has read, in all partitions
position() { od -An -v -w8 -t d8 --endian=big "$work/progress" 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'; }

# reach PERCENT of the records
has_read() { [ "$(position)" -ge "$1" ]; }
runs_at() { has_read "$1" && [ "$(job_state "$flink" "$job")" = RUNNING ]; }
reach() { wait_for 60 runs_at $((records * $1 / 100)) >>"$log"; }

# Far from its end: what is left takes it longer than what is done next.
in_the_middle()
{
	local at
	at=$(position)
	[ "$at" -lt $((records * 85 / 100)) ] || { echo "at record $at of $records already $1" >>"$log"; return 1; }
}

# The fact view, in the form of ReadApart's file; what check() says; and what is
# left prepared.
compare()
{
	wait_for 60 is_true "SELECT revenue_sink.merge('orders') >= 0 AND NOT EXISTS (SELECT FROM revenue_sink.deferred)" \
		>>"$log" || return
	sql -c "SELECT to_char(minute, 'YYYY-MM-DD\"T\"HH24:MI\"Z\"') || ',' || revenue || ',' || events
			FROM fact_revenue_1m ORDER BY minute" -c "SELECT revenue_sink.check('orders')" \
		-c "SELECT 'prepared: ' || gid FROM pg_prepared_xacts" >"$work/facts"
	diff -U 0 "$work/truth" "$work/facts" >>"$log"
}

# After what has failed: nothing of it must meet the next piece.
put_away()
{
	local gid
	[ -z "${job:-}" ] || rest "$flink" "/jobs/$job" -X PATCH >>"$log"
	[ -z "${job:-}" ] || wait_for 30 is_over >>"$log" || true
	for gid in $(sql -c "SELECT gid FROM pg_prepared_xacts"); do
		sql -c "ROLLBACK PREPARED '$gid'" 2>>"$log" || true
	done
	flink_ready "$flink" >>"$log" || true
}

# piece NAME COMMAND...: two results, that it goes as it should, and its totals
piece()
{
	local what=$1 status=0 since=$SECONDS restored
	shift
	: >"$log"
	job=
	sink_new && "$@" || status=1
	restored=$(rest "$flink" "/jobs/$job/checkpoints" | jq .counts.restored)
	result "$what: it goes as it should (restored ${restored:-?} times, $((SECONDS - since)) s)" $status "$log"
	[ $status = 0 ] || put_away
	compare && status=0 || status=1
	result "$what: the topic's totals, check() is empty, nothing is prepared" $status "$log"
	[ $status = 0 ] || put_away
}
