# Scenes besides the rounds of faults. Sourced by run, after stage.sh and rounds.sh.

plain() { submit 2 "" --sink two_phase --keyed "$1" && job_ends; }

# The job's last complete checkpoint on disk.
last_checkpoint() { ls "$flink/checkpoints/$job"/chk-*/_metadata 2>/dev/null | sort -V | tail -1; }

# Cancelled in the middle, and submitted again, as a new job from the last
# checkpoint on disk.
resubmitted()
{
	submit 2 "" --sink two_phase --rate "$RATE" && reach 40 && in_the_middle "when it was to be cancelled" || return
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
	java_quiet -cp "$CLASSES:$build/jars/*" revenuesink.EventBufferCheck "$url" "${SEED:-1}" 3000 >"$log" 2>&1 &&
		status=0 || status=1
	result "events in binary arrays come back as they were" $status "$log"
	piece "two-phase, unkeyed" plain false
	piece "two-phase, keyed" plain true
	piece "two-phase, cancelled and resubmitted" resubmitted
	piece "two-phase, all of Flink killed between the phases, resubmitted" orphaned
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
