# What happens to consumers in the middle of the topic. Sourced by run.

sql() { psql -XqtA -v ON_ERROR_STOP=1 "$@"; }

# start INSTANCE: a consumer, which is pid[INSTANCE] from then on.
start()
{
	local run=$examples/$language/run log=$work/$db.$1.log
	local jdbc="jdbc:postgresql://127.0.0.1:$port/$db?user=postgres"

	case $language in
		java)
			JDBC=$jdbc "$run" "$1" >>"$log" 2>&1 & ;;
		python)
			if [ -f "$work/bouncer/pid" ]; then
				PGHOST=127.0.0.1 PGPORT=$((port + 1)) PGDATABASE=$db "$run" "$1" >>"$log" 2>&1 &
			else
				PGDATABASE=$db "$run" "$1" >>"$log" 2>&1 &
			fi ;;
		go)
			PGDATABASE=$db "$run" "$1" >>"$log" 2>&1 & ;;
		spark)
			JDBC=$jdbc SPARK_HOME=$work/spark SPARK_LOCAL_DIRS=$work/spark/local MASTER=${master:-local[2]} \
				env -C "$work" "$run" "$work/$db.checkpoint" >>"$log" 2>&1 & ;;
	esac
	pid[$1]=$!
}

# stop NAME SIGNAL
stop()
{
	kill "-$2" "${pid[$1]}"
	wait "${pid[$1]}" 2>/dev/null || true
	unset "pid[$1]"
}

runs() { kill -0 "${pid[$1]}" 2>/dev/null; }

# Wait until a query is true; say so if it isn't in time.
until_true()
{
	local deadline=$((SECONDS + 90)) answer=
	while [ "$SECONDS" -lt "$deadline" ]; do
		answer=$(sql -d "$db" -c "$1" 2>>"$work/$db.wait.log") || answer=
		[ "$answer" != t ] || return 0
		read -rt 0.05 <> <(:) || true
	done
	echo "not in time: $1" >>"$work/$db.log"
	return 1
}

# reach PERCENT of the records, by the offsets in the sink
read_so_far="coalesce((SELECT sum(next_offset) FROM revenue_sink.offsets('orders', 'payments')), 0)"
reach() { until_true "SELECT $read_so_far >= $records * $1 / 100"; }

in_the_middle()
{
	[ "$(sql -d "$db" -c "SELECT $read_so_far < $records")" = t ] ||
		{ echo "the topic was at its end $1" >>"$work/$db.log"; return 1; }
}

# An instance has committed a batch of a partition that it was assigned.
has_committed()
{
	local partition epoch
	until read -r partition epoch < <(sed -nE 's/^partition ([0-9]+) from .*, epoch ([0-9]+)$/\1 \2/p' "$work/$db.$1.log" | tail -1) &&
		[ -n "$epoch" ]
	do
		runs "$1" || { echo "$1 is gone" >>"$work/$db.log"; return 1; }
		read -rt 0.05 <> <(:) || true
	done
	until_true "SELECT EXISTS (SELECT FROM revenue_sink.writer
		WHERE writer = 'payments-$partition' AND epoch = $epoch AND last_number > 0)"
}

# COMMIT waits for a standby that doesn't exist: then it is on disk while its
# client has no answer.
hold_commits()
{
	sql -d "$db" -c "ALTER SYSTEM SET synchronous_standby_names = 'nobody'" -c "SELECT pg_reload_conf()" >/dev/null
}

release_commits()
{
	sql -d "$db" -c "ALTER SYSTEM RESET synchronous_standby_names" -c "SELECT pg_reload_conf()" >/dev/null
}

held="FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'commit' AND wait_event = 'SyncRep'"

# The answer to COMMIT is lost, as the session is ended there. What the client
# sends after that must be answered with 'false', and that answer is lost, too.
lose_answers()
{
	local ended='{}' turn status=0

	hold_commits
	for turn in first second; do
		until_true "SELECT EXISTS (SELECT $held AND pid <> ALL ('$ended'))" || { status=1; break; }
		ended=$(sql -d "$db" -c "SELECT array_agg(pid) FROM (SELECT pid, pg_terminate_backend(pid) $held) t")
	done
	release_commits
	return $status
}

# kill -9 twice, and answers that are lost. Spark's last start has no checkpoint
# directory, and goes on from the offsets in the sink.
killed()
{
	start w1
	reach 15 && stop w1 KILL && in_the_middle "at the first kill" || return
	start w1
	reach 40 && lose_answers && in_the_middle "when answers were lost" || return
	reach 65 && stays w1 "lost answers" || return
	stop w1 KILL
	in_the_middle "at the last kill" || return
	rm -rf "$work/$db.checkpoint"
	start w1
	reach 100 || return
	stop w1 TERM
}

stays() { runs "$1" || { echo "$1 hasn't borne $2" >>"$work/$db.log"; return 1; }; }

# kill -9 of the server, and then of the broker, which the consumer has to bear
servers()
{
	start w1
	reach 20 && cluster_kill "$cluster" && cluster_start "$cluster" && in_the_middle "at the server's kill" || return
	reach 50 && stays w1 "the server's kill" || return
	broker_stop "$broker" KILL >>"$work/$db.log" 2>&1 && in_the_middle "at the broker's kill" || return
	broker_start "$broker" "$build" >>"$work/$db.log" || return
	reach 100 && stays w1 "the broker's kill" || return
	stop w1 TERM
}

# A second instance joins, and is killed after a while. Until then the stream is
# slow: the first one hears of the other with its next heartbeat only.
pair()
{
	tool Topic "$BOOTSTRAP" --quota $((RATE / 8)) 2>>"$work/$db.log" || return
	start w1
	reach 5 || return
	start w2
	has_committed w2 && stop w2 KILL && in_the_middle "when the second instance was killed" || return
	tool Topic "$BOOTSTRAP" --quota "$RATE" 2>>"$work/$db.log" || return
	reach 100 && stays w1 "the other's end" || return
	[ "$(grep -c ^partition "$work/$db.w1.log")" -gt 4 ] ||
		{ echo "the first one got nothing of the other's" >>"$work/$db.log"; return 1; }
	stop w1 TERM
}

# An instance is halted between BEGIN and COMMIT, another one takes over and does
# the rest, and then it goes on. It must be refused, and stop by itself.
zombie()
{
	local halted="SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '$db' AND state = 'idle in transaction')"
	local status=0 before
	before=$(grep -c "has been fenced off" "$cluster/server.log")

	start w1
	reach 10 || return
	until kill -STOP "${pid[w1]}"; [ "$(sql -d "$db" -c "$halted")" = t ]; do
		kill -CONT "${pid[w1]}"
		in_the_middle "before an instance was halted in a batch" || return
		read -rt 0.01 <> <(:) || true
	done
	start w2
	reach 100 || return
	kill -CONT "${pid[w1]}"
	timeout 60 tail --pid="${pid[w1]}" -f /dev/null || { echo "the zombie goes on" >>"$work/$db.log"; return 1; }
	wait "${pid[w1]}" || status=$?
	unset "pid[w1]"
	[ $status != 0 ] && grep -q "has been fenced off" "$work/$db.w1.log" ||
		{ echo "the zombie ended with $status, but not by the fence" >>"$work/$db.log"; return 1; }
	# two, as Spark has two tasks at a time
	[ $(($(grep -c "has been fenced off" "$cluster/server.log") - before)) -le 2 ] ||
		{ echo "the zombie has tried again" >>"$work/$db.log"; return 1; }
	stop w2 TERM
}

# Executors of their own, one of which is killed with -9 while its task's COMMIT has
# no answer yet: the task runs again, in the same epoch, and must find it done.
executor()
{
	local master=local-cluster[2,1,512] victim status=0

	start w1
	reach 20 || return
	hold_commits
	until_true "SELECT EXISTS (SELECT $held)" && in_the_middle "when an executor was killed" || status=1
	victim=$(sql -d "$db" -c "SELECT client_port $held LIMIT 1")
	victim=$(ss -Htnp "sport = :$victim" | grep -o 'pid=[0-9]*' | cut -d= -f2)
	kill -9 "$victim" 2>>"$work/$db.log" || status=1
	release_commits
	[ $status = 0 ] && reach 100 && stays w1 "the end of an executor" || return
	stop w1 KILL
}

# How often events were brought. Each record of the topic once, since its offset
# commits with it; Spark's offsets are its own, so when it starts again, the
# micro-batch that it hadn't noted comes again.
brought()
{
	local again=0 n
	[ "$language" != spark ] || again=$((2000 * ($(cat "$work/$db".w?.log | grep -c ^epoch) - 1)))
	n=$(sql -d "$db" -c "SELECT applied + duplicate + deferred + conflict + late + rejected FROM revenue_sink.stat_sink")
	[ "$n" -ge "$records" ] && [ "$n" -le $((records + again)) ] ||
		{ echo "of $records records $n were brought" >>"$work/$db.log"; return 1; }
}

# The fact view, in the form of ReadApart's file; and what check() says.
compare()
{
	until_true "SELECT revenue_sink.merge('orders') >= 0 AND NOT EXISTS (SELECT FROM revenue_sink.deferred)" || return
	sql -d "$db" -F, -c "SELECT to_char(minute, 'YYYY-MM-DD\"T\"HH24:MI\"Z\"'), revenue, events
		FROM fact_revenue_1m ORDER BY minute" >"$work/$db.facts"
	sql -d "$db" -c "SELECT revenue_sink.check('orders')" >>"$work/$db.facts"
	diff -U 0 "$work/truth" "$work/$db.facts" >>"$work/$db.log"
}

# The one command that brings everything along.
alone()
{
	local log=$work/$language.alone.log status=0

	env -u BOOTSTRAP -u TOPIC -u GROUP EVENTS=3000 EXAMPLE_PORT=$((port + 2)) EXAMPLE_KAFKA_PORT=$((kafka_port + 5)) \
		TMPDIR="$work" KEEP= "$examples/$language/run" >"$log" 2>&1 || status=1
	[[ "$(tail -1 "$log")" == "The fact view equals the topic: "*" 3000 events, each of them counted once." ]] || status=1
	result "$language, alone: clients/examples/$language/run" $status "$log"
}

# The five lines at the head of a page, with this test's addresses and folders in the
# place of the page's. The shell becomes the program, so that it can be killed.
pasted()
{
	local db=${language}_pasted page=kafka program=python3 status=0
	local lines=$work/$language.pasted log=$work/$language.pasted.log

	[ "$language" = python ] || { page=spark; program=spark-submit; }
	block "$root/docs/$page.md" "to paste" | sed "
		s|/tmp/|$work/$db/|g
		s|localhost:9092|$BOOTSTRAP|
		s|localhost:5432/postgres|127.0.0.1:$port/$db|
		s|PGHOST=localhost PGPORT=5432|PGHOST=$cluster PGPORT=$port|
		s/PGDATABASE=postgres/PGDATABASE=$db/
		s/-h localhost -p 5432 -U postgres/-d $db/" >"$lines"
	: >"$work/$db.log"
	sql -d postgres -c "CREATE DATABASE $db"
	mkdir -p "$work/$db" "$work/bin"
	"stand_in_$language" >"$work/bin/$program"
	chmod +x "$work/bin/$program"
	sed -E "s/^$program /exec &/; s/ &$//" "$lines" >"$work/$db/lines"
	(cd "$root" && PATH=$work/bin:$PATH SPARK_HOME=$work/spark_home exec bash -e "$work/$db/lines") \
		>"$log" 2>&1 &
	pid[w1]=$!
	[ "$(wc -l <"$lines")" = 5 ] && reach 100 && compare && stays w1 "the topic's end" || status=1
	stop w1 TERM 2>/dev/null || true
	# the last line of one page shows what came of it
	[ "$language" != python ] ||
		[ "$(bash -e <(sed -n '1p;5p' "$lines") 2>>"$log" | grep -c '^ 2024-03-01 11:2')" = 5 ] || status=1
	result "$language, pasted: the five lines of docs/$page.md" $status "$lines" "$work/$db.log" "$log"
}

# What the lines call by the names python3 and spark-submit
stand_in_python() { printf '#!/bin/sh\nexec "%s" "$@"\n' "$PYTHON"; }

# Spark as one installs it, with none of the jars that its option --packages fetches
stand_in_spark()
{
	local jar
	mkdir -p "$work/spark_home/jars"
	for jar in "$examples"/spark/build/jars/*.jar; do
		[[ ${jar##*/} == *kafka* || ${jar##*/} == postgresql-* ]] || ln -sf "$jar" "$work/spark_home/jars"
	done
	cat <<-PROGRAM
		#!/bin/bash
		. "$examples/spark/java17.sh"
		exec java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \$opens \\
			-Dlog4j2.configurationFile="$examples/spark/log4j2.properties" -Dspark.ui.enabled=false \\
			-Dspark.driver.host=127.0.0.1 -Dspark.local.dir="$work/spark/local" -Dspark.jars.ivy="$work/ivy" \\
			-cp "\$SPARK_HOME/jars/*" org.apache.spark.deploy.SparkSubmit "\$@"
	PROGRAM
}

# play SCENE in a database of its own, by a group of its own
play()
{
	local db=${language}_$1 name status=0

	GROUP=$db
	sql -d postgres -c "CREATE DATABASE $db"
	sql -d "$db" -c "CREATE EXTENSION revenue_sink; SELECT revenue_sink.create_sink('orders')" >/dev/null
	: >"$work/$db.log"
	"$1" || status=1
	result "$language, $1: it goes as it should" $status "$work/$db.log" "$work/$db".w?.log
	for name in "${!pid[@]}"; do
		kill -CONT "${pid[$name]}" 2>/dev/null || true
		stop "$name" KILL 2>/dev/null || true
	done
	[ $status = 0 ] || tool Topic "$BOOTSTRAP" --quota "$RATE" 2>>"$work/$db.log"
	compare && status=0 || status=1
	result "$language, $1: the topic's totals, and check() is empty" $status "$work/$db.log"
	# the sink's counters start anew with the server
	[ "$1" = servers ] && return
	brought && status=0 || status=1
	result "$language, $1: no record brought again that was noted" $status "$work/$db.log"
}
