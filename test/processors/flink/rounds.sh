# Rounds of faults. Sourced by run, after stage.sh.

FAULTS=(taskmanager jobmanager broker postgres committer)

# plan ROUNDS SEED: of each round a seed of its own, its mode, then what is killed,
# and at what percent of the topic. Each five rounds have each fault first once.
plan()
{
	local round i j deck=() swap modes=(keyed unkeyed) first second
	RANDOM=$2
	for ((round = 1; round <= $1; round++)); do
		if [ ${#deck[@]} = 0 ]; then
			deck=("${FAULTS[@]}")
			for ((i = ${#deck[@]} - 1; i > 0; i--)); do
				j=$((RANDOM % (i + 1))) swap=${deck[i]} deck[i]=${deck[j]} deck[j]=$swap
			done
		fi
		first=$((12 + RANDOM % 40))
		second=" ${FAULTS[RANDOM % ${#FAULTS[@]}]} $((first + 8 + RANDOM % 15))"
		[ $((RANDOM % 3)) = 0 ] || second=
		echo "$RANDOM ${modes[round % 2]} ${deck[-1]} $first$second"
		unset 'deck[-1]'
	done
}

# One that runs the job; which may be just restarting.
job_has_hosts()
{
	mapfile -t hosts < <(job_hosts "$flink" "$job" | grep -x '[0-9]*')
	[ ${#hosts[@]} -gt 0 ]
}
fault_taskmanager()
{
	local hosts victim
	wait_for 30 job_has_hosts >>"$log" && in_the_middle "when a TaskManager was to be killed" || return
	victim=${hosts[RANDOM % ${#hosts[@]}]}
	taskmanager_stop "$flink" "$victim" KILL
	taskmanager_start "$flink" "$build" "$victim"
}

fault_jobmanager()
{
	in_the_middle "when the JobManager was to be killed" || return
	enumerator_restored=no
	jobmanager_stop "$flink" KILL
	jobmanager_start "$flink" "$build"
}

fault_broker()
{
	in_the_middle "when the broker was to be killed" || return
	broker_stop "$broker" KILL
	broker_start "$broker" "$broker_build" >>"$log"
}

fault_postgres()
{
	in_the_middle "when the server was to be killed" || return
	cluster_kill "$cluster"
	cluster_start "$cluster"
}

# The committers' connections: some amid a call, some before it.
fault_committer()
{
	in_the_middle "when the committer was to lose its connection" || return
	sql -v amid=$((RANDOM % 2)) >>"$log" 2>&1 <<-'SQL'
		SELECT set_config('test.amid', :'amid', false);
		DO $$
		DECLARE
			ended int := 0;
			until timestamptz := clock_timestamp() + '4 s';
		BEGIN
			WHILE ended < 3 AND clock_timestamp() < until LOOP
				PERFORM pg_stat_clear_snapshot(), pg_sleep(0.0005);
				ended := ended + (SELECT count(*) FROM pg_stat_activity
					WHERE application_name ~ '^committer' AND pg_terminate_backend(pid)
						AND (state = 'active' OR current_setting('test.amid') = '0'));
			END LOOP;
			IF ended = 0 THEN
				RAISE 'no committer could be cut off';
			END IF;
		END $$;
	SQL
}

# round MODE FAULT PERCENT [FAULT PERCENT]
round()
{
	local keyed=false
	[ "$1" != keyed ] || keyed=true
	shift
	submit 2 "" --sink two_phase --keyed $keyed --rate "$RATE" || return
	while [ $# -gt 0 ]; do
		reach "$2" && "fault_$1" || return
		shift 2
	done
	job_ends && flink_ready "$flink" >>"$log"
}

# rounds N SEED
rounds()
{
	local n=0 seed faults before=$failed

	while read -r seed faults; do
		n=$((n + 1))
		RANDOM=$seed
		piece "round $n, $faults %" round $faults </dev/null
	done < <(plan "$1" "$2")
	[ "$failed" = "$before" ] || echo "the seed was $2: test/processors/flink/faults $1 $2"
}
