# A Kafka broker of one node (KRaft), from jars. Sourced by bash scripts, after
# ../lib.sh.
#
#	jars POM DIR				fetch the jars that POM names into DIR, unless they're there
#	kafka_jars BUILD			those of the broker, into BUILD/jars
#	broker_new DIR BUILD PORT	format DIR, start; listens on PORT, and on PORT + 2
#								for those who shall go through a proxy on PORT + 3
#	broker_start DIR BUILD		start (again), wait until it answers
#	broker_stop DIR [SIGNAL]
#
# PORT + 1 is the controller's.

jars()
{
	cmp -s "$1" "$2/pom.xml" && return
	rm -rf "$2"
	mvn -q -B -U -Dstyle.color=never -f "$1" dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory="$2" </dev/null && cp "$1" "$2/pom.xml"
}

kafka_jars() { jars pom.xml "$1/jars"; }

broker_new()
{
	local dir=$1 build=$2 port=$3 id
	rm -rf "$dir"
	mkdir -p "$dir"
	echo "$port" >"$dir/port"
	cat >"$dir/server.properties" <<-CONF
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$((port + 1))
		controller.listener.names=CONTROLLER
		listeners=PLAIN://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1)),PROXIED://127.0.0.1:$((port + 2))
		advertised.listeners=PLAIN://127.0.0.1:$port,PROXIED://127.0.0.1:$((port + 3))
		listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
		inter.broker.listener.name=PLAIN
		log.dirs=$dir/log
		auto.create.topics.enable=false
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=2
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=2
		group.initial.rebalance.delay.ms=0
		num.network.threads=2
		num.io.threads=2
		# small answers, so that a quota on bytes makes an even stream
		fetch.max.bytes=16384
	CONF
	id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c 1-22)
	java_quiet -cp "$build/jars/*" kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" \
		>"$dir/format.log" 2>&1 || { cat "$dir/format.log"; return 1; }
	broker_start "$dir" "$build"
}

# The options keep a JVM small: others want the machine, too.
JAVA=(java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dlog4j.configuration=file:$PWD/log4j.properties")

java_quiet() { "${JAVA[@]}" "$@"; }

listens()
{
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

broker_start()
{
	local dir=$1 build=$2 port turn
	port=$(<"$dir/port")
	! listens "$port" || { echo "somebody else has port $port"; return 1; }
	# no function here: $! would be a shell's, and a kill would leave the broker alone
	"${JAVA[@]}" -cp "$build/jars/*" kafka.Kafka "$dir/server.properties" >>"$dir/broker.log" 2>&1 &
	echo $! >"$dir/pid"
	for ((turn = 0; turn < 600; turn++)); do
		listens "$port" && listens $((port + 2)) && return
		kill -0 "$(<"$dir/pid")" 2>/dev/null || break
		read -rt 0.1 <> <(:) || true
	done
	echo "the broker doesn't start:"
	tail -20 "$dir/broker.log"
	return 1
}

broker_stop()
{
	kill "-${2:-TERM}" "$(<"$1/pid")" 2>/dev/null || true
	wait "$(<"$1/pid")" 2>/dev/null || true
	! listens "$(<"$1/port")" || { echo "the broker still listens"; return 1; }
}
