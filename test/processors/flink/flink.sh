# A Flink cluster of its own processes, from jars: ZooKeeper, a JobManager, and
# TaskManagers of two slots. Sourced by bash scripts in test/processors, after
# kafka.sh.
#
#	flink_jars VERSION BUILD	fetch the jars of 2 or 1.20 into BUILD/jars, unless they're there
#	sink_jar VERSION			build the sink in clients/java, unless that is done; $SINK_JAR is it
#	flink_new DIR BUILD PORT TASKMANAGERS	start all of it; REST is on PORT, ZooKeeper
#								on PORT + 1
#	flink_stop DIR				all of it
#	jobmanager_start DIR BUILD
#	jobmanager_stop DIR [SIGNAL]
#	taskmanager_start DIR BUILD NUMBER
#	taskmanager_stop DIR NUMBER [SIGNAL]
#	rest DIR PATH [CURL'S ARGUMENTS...]	the answer, or nothing
#	flink_ready DIR				wait until all TaskManagers are registered
#	job_submit DIR PARALLELISM SAVEPOINT ARGUMENT...	prints the job's id
#	job_state DIR JOB
#	job_hosts DIR JOB
#
# CLASSES is a jar of what isn't among the jars, and ENTRY the class of it that is
# submitted. FLINK_JAVA adds to the options of
# JobManager and TaskManagers, FLINK_CONF to their settings, a line each.
# FLINK_HEAP is a TaskManager's heap, FLINK_PATIENCE after what time a process is
# taken for dead.

flink_jars()
{
	jars "flink/pom-$1.xml" "$2/jars"
}

# With what it needs in one jar, as a user would put it into lib/.
sink_jar()
{
	local clients=$PWD/../../clients/java module=flink
	[ "$1" = 2 ] || module=flink-$1
	SINK_JAR=$(echo "$clients/$module"/target/revenue-sink-*-all.jar)
	[ -f "$SINK_JAR" ] && [ -z "$(find "$clients" -newer "$SINK_JAR" ! -path '*/target*' \
		\( -name '*.java' -o -name pom.xml -o -path '*/resources/*' \))" ] && return
	mvn -q -B -Dstyle.color=never -f "$clients/pom.xml" -pl "$module" -am package \
		-DskipTests -Dmaven.javadoc.skip -Dmaven.source.skip </dev/null || return
	SINK_JAR=$(echo "$clients/$module"/target/revenue-sink-*-all.jar)
	touch "$SINK_JAR"
}

# What the distribution's scripts would add; and small.
flink_java()
{
	exec java -XX:+UseSerialGC -XX:-UsePerfData ${FLINK_JAVA--XX:TieredStopAtLevel=1} \
		--add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED \
		--add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
		-Dlog4j.configuration="file:$PWD/flink/log4j.properties" "$@"
}

flink_new()
{
	local dir=$1 build=$2 port=$3 n
	rm -rf "$dir"
	mkdir -p "$dir/conf" "$dir/tmp" "$dir/zookeeper"
	echo "$port" >"$dir/port"
	cat >"$dir/conf/config.yaml" <<-CONF
		classloader.resolve-order: parent-first
		rest.address: 127.0.0.1
		rest.bind-address: 127.0.0.1
		rest.port: $port
		rest.bind-port: "$port"
		jobmanager.rpc.address: 127.0.0.1
		jobmanager.bind-host: 127.0.0.1
		taskmanager.host: 127.0.0.1
		taskmanager.bind-host: 127.0.0.1
		taskmanager.numberOfTaskSlots: 2
		taskmanager.load-balance.mode: SLOTS
		taskmanager.cpu.cores: 1
		taskmanager.memory.task.heap.size: 256m
		taskmanager.memory.task.off-heap.size: 16m
		taskmanager.memory.managed.size: 0
		taskmanager.memory.framework.heap.size: 64m
		taskmanager.memory.framework.off-heap.size: 64m
		taskmanager.memory.jvm-metaspace.size: 128m
		taskmanager.memory.jvm-overhead.min: 64m
		taskmanager.memory.jvm-overhead.max: 64m
		taskmanager.memory.network.min: 32m
		taskmanager.memory.network.max: 32m
		taskmanager.registration.timeout: 1 min
		high-availability.type: zookeeper
		high-availability.zookeeper.quorum: 127.0.0.1:$((port + 1))
		high-availability.zookeeper.client.session-timeout: ${FLINK_PATIENCE:-2 s}
		high-availability.zookeeper.client.connection-timeout: 2 s
		high-availability.zookeeper.client.retry-wait: 200 ms
		high-availability.zookeeper.client.max-retry-attempts: 20
		zookeeper.sasl.disable: true
		high-availability.storageDir: file://$dir/ha
		execution.checkpointing.dir: file://$dir/checkpoints
		execution.checkpointing.savepoint-dir: file://$dir/savepoints
		execution.checkpointing.interval: 1 s
		execution.checkpointing.tolerable-failed-checkpoints: 1000
		execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
		restart-strategy.type: fixed-delay
		restart-strategy.fixed-delay.attempts: 1000
		restart-strategy.fixed-delay.delay: 100 ms
		heartbeat.interval: 500 ms
		heartbeat.timeout: ${FLINK_PATIENCE:-4 s}
		cluster.registration.initial-timeout: 100 ms
		cluster.registration.max-timeout: 1 s
		cluster.registration.refused-registration-delay: 500 ms
		cluster.registration.error-delay: 500 ms
		pekko.retry-gate-closed-for: 50
		metrics.fetcher.update-interval: 100 ms
		web.upload.dir: $dir/upload
		io.tmp.dirs: $dir/tmp
	CONF
	[ -z "${FLINK_CONF:-}" ] || echo "$FLINK_CONF" >>"$dir/conf/config.yaml"
	cat >"$dir/conf/zoo.cfg" <<-CONF
		tickTime=500
		dataDir=$dir/zookeeper
		clientPort=$((port + 1))
		clientPortAddress=127.0.0.1
		admin.enableServer=false
	CONF
	flink_java -Xmx64m -cp "$build/jars/*" org.apache.flink.runtime.zookeeper.FlinkZooKeeperQuorumPeer \
		--zkConfigFile "$dir/conf/zoo.cfg" --peerId 1 >>"$dir/zookeeper.log" 2>&1 &
	echo $! >"$dir/zookeeper.pid"
	jobmanager_start "$dir" "$build"
	for ((n = 1; n <= $4; n++)); do
		taskmanager_start "$dir" "$build" "$n"
	done
	flink_ready "$dir"
}

jobmanager_start()
{
	flink_java -Xmx256m -cp "$CLASSES:$SINK_JAR:$2/jars/*" org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint \
		--configDir "$1/conf" >>"$1/jobmanager.log" 2>&1 &
	echo $! >"$1/jobmanager.pid"
}

taskmanager_start()
{
	local id=$3-$EPOCHREALTIME
	echo "$id" >"$1/taskmanager-$3.id"
	flink_java -Xmx${FLINK_HEAP:-384m} -XX:MaxDirectMemorySize=256m -cp "$CLASSES:$SINK_JAR:$2/jars/*" \
		org.apache.flink.runtime.taskexecutor.TaskManagerRunner \
		--configDir "$1/conf" -D taskmanager.resource-id="$id" >>"$1/taskmanager-$3.log" 2>&1 &
	echo $! >"$1/taskmanager-$3.pid"
}

flink_end()
{
	[ -f "$1.pid" ] || return 0
	kill "-$2" "$(<"$1.pid")" 2>/dev/null || true
	wait "$(<"$1.pid")" 2>/dev/null || true
	rm -f "$1.pid"
}

jobmanager_stop() { flink_end "$1/jobmanager" "${2:-TERM}"; }
taskmanager_stop() { flink_end "$1/taskmanager-$2" "${3:-TERM}"; }

flink_stop()
{
	local pid
	for pid in "$1"/*.pid; do
		flink_end "${pid%.pid}" KILL
	done
}

rest()
{
	local dir=$1 path=$2
	shift 2
	curl -sf -m 20 "$@" "http://127.0.0.1:$(<"$dir/port")$path" || true
}

# wait_for SECONDS COMMAND...: until it succeeds
wait_for()
{
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || { echo "not in time: $*"; return 1; }
		read -rt 0.05 <> <(:) || true
	done
}

# Those that were started last, and no dead ones that weren't missed yet.
has_taskmanagers()
{
	[ "$(rest "$1" /taskmanagers | jq -r '.taskmanagers[].id' | sort)" = "$(sort "$1"/taskmanager-*.id)" ]
}

flink_ready() { wait_for 60 has_taskmanagers "$1"; }

# The jar is uploaded anew each time: which one is there after a JobManager's end
# is nobody's concern then.
job_submit()
{
	local dir=$1 parallelism=$2 savepoint=$3 jar
	shift 3
	jar=$(rest "$dir" /jars/upload -F "jarfile=@$CLASSES" | jq -r '.filename | sub(".*/"; "")')
	[ -n "$jar" ] || { echo "no jar could be uploaded" >&2; return 1; }
	jq -n --arg savepoint "$savepoint" --arg entry "revenuesink.test.${ENTRY:-RevenueJob}" --argjson parallelism "$parallelism" '{entryClass: $entry,
		parallelism: $parallelism, programArgsList: $ARGS.positional}
		+ if $savepoint == "" then {} else {savepointPath: $savepoint} end' --args -- "$@" |
		rest "$dir" "/jars/$jar/run" -H 'Content-Type: application/json' --data-binary @- | jq -r .jobid | grep . # jq may succeed with no answer at all
}

job_state() { rest "$1" "/jobs/$2" | jq -r .state; }

# The numbers of the TaskManagers that run it.
job_hosts()
{
	local vertex
	for vertex in $(rest "$1" "/jobs/$2" | jq -r '.vertices[].id'); do
		rest "$1" "/jobs/$2/vertices/$vertex" | jq -r '.subtasks[]."taskmanager-id" | sub("-.*"; "")'
	done | sort -u
}
