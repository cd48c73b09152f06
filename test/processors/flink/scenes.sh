# Scenes besides the rounds of faults. Sourced by run, after stage.sh and rounds.sh.

plain() { submit 2 "" --sink two_phase --keyed "$1" && job_ends; }

# Cancelled in the middle, and submitted again, as a new job from the last
# checkpoint on disk.
resubmitted()
{
	submit 2 "" --sink two_phase --rate "$RATE" && reach 40 && in_the_middle "when it was to be cancelled" || return
	rest "$flink" "/jobs/$job" -X PATCH >>"$log"
	wait_for 30 is_over >>"$log" || return
	last=$(ls -d "$flink/checkpoints/$job"/chk-*/ | sort -V | tail -1)
	submit 2 "file://$last" --sink two_phase --rate "$RATE" && job_ends
}

# The JobManager is halted, again and again, until all subtasks have prepared and it
# hasn't told them that the checkpoint is complete. Then all processes are killed, and
# the job is submitted as a new one, from the last checkpoint on disk.
prepared() { sql -c "SELECT count(*) FROM pg_prepared_xacts"; }
halted_amid_checkpoint()
{
	local pid
	pid=$(<"$flink/jobmanager.pid")
	kill -STOP "$pid"
	read -rt 0.05 <> <(:) || true
	[ "$(prepared)" = 2 ] && { read -rt 0.1 <> <(:) || true; [ "$(prepared)" = 2 ]; } && return
	kill -CONT "$pid"
	return 1
}
knows_job() { [ -n "$(job_state "$flink" "$job")" ]; }
orphaned()
{
	local n
	submit 2 "" --sink "$1" --rate $((RATE / 3)) --url "$2" && reach 10 && wait_for 60 halted_amid_checkpoint >>"$log" &&
		in_the_middle "when all of Flink was to be killed" || return
	for n in 1 2; do taskmanager_stop "$flink" $n KILL; done
	jobmanager_stop "$flink" KILL
	jobmanager_start "$flink" "$build"
	wait_for 60 knows_job >>"$log" && rest "$flink" "/jobs/$job" -X PATCH >>"$log" && wait_for 30 is_over >>"$log" || return
	for n in 1 2; do taskmanager_start "$flink" "$build" $n; done
	last=$(ls -d "$flink/checkpoints/$job"/chk-*/ | sort -V | tail -1)
	flink_ready "$flink" >>"$log" && submit 2 "file://$last" --sink "$1" --rate "$RATE" --url "$2" && job_ends
}

scene_two_phase()
{
	java_quiet -cp "$CLASSES:$build/jars/*" revenuesink.EventBufferCheck "$url" "${SEED:-1}" 3000 >"$log" 2>&1 &&
		status=0 || status=1
	result "events in binary arrays come back as they were" $status "$log"
	piece "two-phase, unkeyed" plain false
	piece "two-phase, keyed" plain true
	piece "two-phase, cancelled and resubmitted" resubmitted
	piece "two-phase, all of Flink killed between the phases, resubmitted" orphaned two_phase "$url"
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

# Of a new job the connector doesn't know that the old one's are its own. Until
# somebody rolls them back, the new job's copies of their events are deferred.
orphaned_xa()
{
	local deferred
	orphaned stock_xa "$url&reWriteBatchedInserts=true" || return
	deferred=$(sql -c "SELECT count(*) FROM revenue_sink.deferred")
	echo "    left prepared: $(prepared), events deferred behind them: $deferred"
	[ "$(prepared)" = 2 ] && [ "$deferred" -gt 0 ] || { echo "nothing was left" >>"$log"; return 1; }
	roll_back "SELECT gid FROM pg_prepared_xacts"
}

# What the bench goes round: one row a minute, by hand, and XA. A subtask waits for a
# prepared transaction, of its own or the other's, and it would take the barrier
# that it can't come to for that one to commit.
completed() { rest "$flink" "/jobs/$job/checkpoints" | jq .counts.completed; }
waits_for_prepared() { is_true "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE 0 = ANY (pg_blocking_pids(pid)))"; }
is_stuck()
{
	local turn before
	before=$(completed)
	for ((turn = 0; turn < 60; turn++)); do
		waits_for_prepared && [ "$(completed)" = "$before" ] || return
		read -rt 0.05 <> <(:) || true
	done
}
by_hand_waits()
{
	: >"$log"
	sql -v part=none -f flink/byhand.sql >>"$log" 2>&1
	submit 2 "" --sink hand_xa --rate "$RATE" --url "$url&reWriteBatchedInserts=true" --batch 1000 &&
		wait_for 60 is_stuck >>"$log"
}

scene_stock()
{
	by_hand_waits && status=0 || status=1
	result "stock JDBC, XA, upserts by hand: it waits for itself" $status "$log"
	put_away
	piece "stock JDBC, at least once, unkeyed, a TaskManager killed" replayed false
	piece "stock JDBC, at least once, keyed, a TaskManager killed" replayed true
	piece "stock JDBC, XA, unkeyed, a TaskManager killed" stock stock_xa false
	piece "stock JDBC, XA, keyed, a TaskManager killed" stock stock_xa true
	piece "stock JDBC, XA, all of Flink killed between the phases, resubmitted" orphaned_xa
}
