# Scenes besides the rounds of faults. Sourced by run, after stage.sh and rounds.sh.

plain() { submit 2 "" --sink two_phase --keyed "$1" && job_ends; }

# The job's last complete checkpoint on disk.
last_checkpoint() { ls "$flink/checkpoints/$job"/chk-*/_metadata 2>/dev/null | sort -V | tail -1; }

# What the sink measures, as Flink shows it.
shows_metrics()
{
	local vertex name
	for vertex in $(rest "$flink" "/jobs/$job" | jq -r '.vertices[].id'); do
		rest "$flink" "/jobs/$job/vertices/$vertex/metrics" | jq -r '.[].id'
	done >"$work/metrics"
	for name in applied duplicate deferred conflict late rejected applyMillis_p99 preCommitMillis_p99 commitMillis_p99; do
		grep -q "\.$name\$" "$work/metrics" || return
	done
}

# Cancelled in the middle, and submitted again, as a new job from the last
# checkpoint on disk.
resubmitted()
{
	submit 2 "" --sink two_phase --rate "$RATE" && reach 15 && wait_for 10 shows_metrics >>"$log" && reach 40 &&
		in_the_middle "when it was to be cancelled" || return
	rest "$flink" "/jobs/$job" -X PATCH >>"$log"
	wait_for 30 is_over >>"$log" || return
	submit 2 "file://$(last_checkpoint)" --sink two_phase --rate "$RATE" && job_ends
}

# The JobManager is halted, again and again, until all subtasks have prepared and it
# hasn't told them that the checkpoint is complete. Then all processes are killed, and
# the job is submitted as a new one, from the last checkpoint on disk.
prepared() { sql -c "SELECT count(*) FROM pg_prepared_xacts"; }
halted_amid_checkpoint()
{
	local pid turn held=0
	[ -n "$(last_checkpoint)" ] || return
	pid=$(<"$flink/jobmanager.pid")
	kill -STOP "$pid"
	for ((turn = 0; turn < 20 && held < 5; turn++)); do
		[ "$(prepared)" = 2 ] && held=$((held + 1)) || held=0
		read -rt 0.02 <> <(:) || true
	done
	[ $held = 5 ] || { kill -CONT "$pid"; return 1; }
}
knows_job() { [ -n "$(job_state "$flink" "$job")" ]; }
orphaned()
{
	local n
	submit 2 "" --sink two_phase --rate $((RATE / 3)) && reach 10 && wait_for 60 halted_amid_checkpoint >>"$log" &&
		in_the_middle "when all of Flink was to be killed" || return
	for n in 1 2; do taskmanager_stop "$flink" $n KILL; done
	jobmanager_stop "$flink" KILL
	jobmanager_start "$flink" "$build"
	wait_for 60 knows_job >>"$log" && rest "$flink" "/jobs/$job" -X PATCH >>"$log" && wait_for 30 is_over >>"$log" || return
	for n in 1 2; do taskmanager_start "$flink" "$build" $n; done
	flink_ready "$flink" >>"$log" && submit 2 "file://$(last_checkpoint)" --sink two_phase --rate "$RATE" && job_ends
}

scene_two_phase()
{
	piece "two-phase, unkeyed" plain false
	piece "two-phase, keyed" plain true
	piece "two-phase, cancelled and resubmitted" resubmitted
	piece "two-phase, all of Flink killed between the phases, resubmitted" orphaned
}

# One-phase: what a restored job sends again are duplicates; a server that is killed
# costs no restart, since the batch is sent again.
one_phase_restored()
{
	submit 2 "" --sink one_phase --keyed "$1" --batch 1000 --rate "$RATE" && reach 30 && fault_taskmanager && job_ends &&
		flink_ready "$flink" >>"$log" || return
	is_true "SELECT duplicate > $records - $EVENTS FROM revenue_sink.stat_sink" || { echo "nothing came again" >>"$log"; return 1; }
}
one_phase_server()
{
	submit 2 "" --sink one_phase --batch 1000 --rate "$RATE" && reach 30 && fault_postgres && job_ends &&
		[ "$(rest "$flink" "/jobs/$job/checkpoints" | jq .counts.restored)" = 0 ]
}

scene_one_phase()
{
	piece "one-phase, keyed, a TaskManager killed" one_phase_restored true
	piece "one-phase, the server killed, no restart" one_phase_server
}

# submit_sql FILE: with what it says of addresses replaced
submit_sql()
{
	sed "s|jdbc:postgresql://localhost:5440/postgres|$url|; s|@URL@|$url|; s|@TOPIC@|$TOPIC|; s|@BOOTSTRAP@|$BOOTSTRAP|
		s|@DELIVERY@|${2:-}|" "$1" >"$work/statements.sql"
	job=$(ENTRY=SqlJob job_submit "$flink" 2 "" "$work/statements.sql" 2>>"$log") ||
		{ echo "the statements can't be submitted" >>"$log"; return 1; }
}

# The example of the README, twice: the second time all events are duplicates.
tour()
{
	local turn
	for turn in 1 2; do
		submit_sql ../../clients/java/flink/tour.sql && wait_for 60 is_over >>"$log" &&
			[ "$(job_state "$flink" "$job")" = FINISHED ] || return
	done
	sql -c "SELECT to_char(minute AT TIME ZONE 'UTC', 'HH24:MI'), revenue, events FROM fact_revenue_1m ORDER BY 1" \
		-c "SELECT applied, duplicate FROM revenue_sink.stat_sink" -c "SELECT revenue_sink.check('orders')" \
		-c "SELECT gid FROM pg_prepared_xacts" >"$work/tour" && printf '%s\n' '10:01|65.00|2' '10:02|12.50|1' '3|5' |
		diff - "$work/tour" >>"$log"
}

# What is refused is named.
refused()
{
	sed "s/'sink-name'/'sink.delivery' = 'twice', &/" ../../clients/java/flink/tour.sql >"$work/refused.sql"
	! submit_sql "$work/refused.sql" &&
		wait_for 10 grep -q "Option 'sink.delivery' must be 'two-phase' or 'one-phase', and is 'twice'" "$flink/jobmanager.log" >>"$log"
}

counted() { is_true "SELECT coalesce(sum(events), 0) >= $1 FROM fact_revenue_1m"; }
topic_by_sql()
{
	submit_sql flink/topic.sql "$1" && wait_for 60 counted 1 >>"$log" && wait_for 30 job_has_hosts >>"$log" || return
	taskmanager_stop "$flink" "${hosts[0]}" KILL
	taskmanager_start "$flink" "$build" "${hosts[0]}"
	wait_for 90 counted "$EVENTS" >>"$log" && flink_ready "$flink" >>"$log" || return
	rest "$flink" "/jobs/$job" -X PATCH >>"$log"
	wait_for 30 is_over >>"$log"
}

scene_tour()
{
	: >"$log"
	job=
	sink_new && tour && status=0 || status=1
	result "SQL: the README's example, twice" $status "$log"
	refused && status=0 || status=1
	result "SQL: a bad option is named" $status "$log"
}

scene_sql()
{
	piece "SQL: the topic, two-phase, a TaskManager killed" topic_by_sql two-phase
	piece "SQL: the topic, one-phase, a TaskManager killed" topic_by_sql one-phase
}

# A zombie that is too late: the first attempt of subtask 0 is halted, with its
# TaskManager, before the sink's first line. It goes on when its successor has
# prepared and the JobManager hasn't told it yet that the checkpoint is complete.
late_one_waits() { [ -f "$work/late.at" ]; }
late_one_has_ended() { [ -f "$work/late.result" ]; }
halt_late_one()
{
	rm -f "$work"/late*
	submit 2 "" --sink late --late "$work/late" --rate $((RATE / 3)) && wait_for 30 late_one_waits >>"$log" &&
		kill -STOP "$(<"$work/late.at")"
}
zombie_is_refused()
{
	local status=0
	touch "$work/late"
	kill -CONT "$(<"$work/late.at")"
	wait_for 30 late_one_has_ended >>"$log" || status=1
	cat "$work/late.result" >>"$log"
	grep -q "$1" "$work/late.result" || status=1
	return $status
}
zombie()
{
	local status
	halt_late_one && reach 10 && wait_for 60 halted_amid_checkpoint >>"$log" || return
	zombie_is_refused "FencedException"
	status=$?
	kill -CONT "$(<"$flink/jobmanager.pid")"
	[ $status = 0 ] && job_ends && [ "$(rest "$flink" "/jobs/$job/checkpoints" | jq .counts.restored)" -le 1 ] &&
		flink_ready "$flink" >>"$log"
}

# The JobManager is replaced meanwhile, and no checkpoint was complete before: nothing
# that Flink gives tells which attempt is the later one. The zombie waits, and is ended.
zombie_of_another_jobmanager()
{
	halt_late_one || return
	jobmanager_stop "$flink" KILL
	jobmanager_start "$flink" "$build"
	reach 10 &&
		zombie_is_refused "InterruptedException" && job_ends && flink_ready "$flink" >>"$log"
}

scene_zombie()
{
	piece "a zombie that is too late, amid a checkpoint" zombie
	piece "a zombie that is too late, of another JobManager" zombie_of_another_jobmanager
}

rescaled()
{
	local percent savepoint= parallelism
	for parallelism in 2 4 1; do
		submit $parallelism "$savepoint" --sink two_phase --keyed "$1" --rate $((2 * RATE / parallelism)) || return
		case $parallelism in
			2) percent=25 ;;
			4) percent=60 ;;
			1) break ;;
		esac
		reach $percent && in_the_middle "at the savepoint" && stop_with_savepoint false || return
	done
	job_ends
}

scene_rescale()
{
	piece "rescaled 2 -> 4 -> 1, unkeyed" rescaled false
	piece "rescaled 2 -> 4 -> 1, keyed" rescaled true
}

# The stock JDBC connector. What it sends again after a TaskManager's end are
# duplicates to the sink, more than the topic has.
stock()
{
	submit 2 "" --sink "$1" --keyed "$2" --rate "$RATE" --batch 1000 --url "$url&reWriteBatchedInserts=true" &&
		reach 30 && fault_taskmanager && ends_by_hand && flink_ready "$flink" >>"$log"
}

# Of XA transactions that were prepared when the TaskManager was killed the
# connector rolls back none: it doesn't take what pgjdbc lists for its own. If there
# is one, its gid comes again in the next attempt, which fails, and so does each
# one after it. They're rolled back by hand here.
old="SELECT gid FROM pg_prepared_xacts WHERE clock_timestamp() - prepared > '10 s'"
left_or_over() { is_over || has_read "$records" || is_true "SELECT EXISTS ($old)"; }
roll_back()
{
	local gid
	for gid in $(sql -c "$1"); do
		sql -c "ROLLBACK PREPARED '$gid'" 2>>"$log" || return
		echo "    rolled back by hand: $gid"
	done
}
ends_by_hand()
{
	until is_over || has_read "$records"; do
		wait_for 90 left_or_over >>"$log" && roll_back "$old" || return
	done
	job_ends
}

replayed()
{
	stock stock "$1" || return
	is_true "SELECT duplicate > $records - $EVENTS FROM revenue_sink.stat_sink" || { echo "nothing came again" >>"$log"; return 1; }
}

scene_stock()
{
	piece "stock JDBC, at least once, unkeyed, a TaskManager killed" replayed false
	piece "stock JDBC, at least once, keyed, a TaskManager killed" replayed true
	piece "stock JDBC, XA, unkeyed, a TaskManager killed" stock stock_xa false
	piece "stock JDBC, XA, keyed, a TaskManager killed" stock stock_xa true
}
