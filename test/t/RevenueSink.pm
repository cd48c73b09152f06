# What the TAP tests share: nodes that preload the extension, real crashes,
# streams of order events with their true totals, the client programs that
# send and watch them.

package RevenueSink;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use FindBin;
use IO::Select;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  new_node
  create_sink
  sink_table
  kill_server
  halt_process
  kill_process
  wait_until
  worker_pids
  differences
  error_of
  answer_of
  build_client
);

# Marker events, the first two lines of a block, are in these two minutes.
our $MARKER_A = 1709283600;    # 2024-03-01 09:00 UTC
our $MARKER_B = 1709283660;
our $BLOCK    = 100;           # lines; as in writer.c

=pod

=item new_node(name, conf => text, streaming => 1, start => 0, install_path => path, extra => [ .. ])

A running node with the extension preloaded, which restarts by itself after
the crash of a backend, as servers do.

=cut

sub new_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $params{install_path});

	$node->init(allows_streaming => $params{streaming}, extra => $params{extra} // []);
	$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'revenue_sink'
max_prepared_transactions = 10
max_connections = 40
shared_buffers = 64MB
restart_after_crash = on
log_statement = none
timezone = UTC
));
	$node->append_conf('postgresql.conf', $params{conf}) if $params{conf};
	$node->start unless defined $params{start} && !$params{start};
	return $node;
}

# The extension, if it isn't there yet, and a sink 's' with the default views.
sub create_sink
{
	my ($node, $db, %params) = @_;
	my $sink = $params{sink} // 's';
	my $more = $params{more} ? ", $params{more}" : '';

	$node->safe_psql($db, qq(
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS revenue_sink;
SELECT revenue_sink.create_sink('$sink'$more);));
	return;
}

# The name of a table of the only sink in a database: seen, delta, total.
sub sink_table
{
	my ($node, $db, $kind) = @_;

	return $node->safe_psql($db, qq(
SELECT oid::regclass FROM pg_class
WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r'
  AND relname ~ '^${kind}_[0-9]+\$'));
}

# What psql writes to stderr, with sqlstates, when it goes on after errors.
sub error_of
{
	my ($node, $db, $sql) = @_;
	my (undef, undef, $stderr) = $node->psql($db, "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);

	return $stderr;
}

# What a statement comes to: its result, or the sqlstate and message of the error
# with one part of it, DETAIL or HINT.
sub answer_of
{
	my ($node, $db, $sql, $part) = @_;
	my (undef, $stdout, $stderr) = $node->psql($db,
		"\\set VERBOSITY verbose\nSET client_min_messages = error;\n$sql", on_error_stop => 1);

	return $stdout unless $stderr =~ /ERROR:  (\w+): (.*)/;
	my ($state, $message) = ($1, $2);
	return $stderr =~ /$part:  (.*)/ ? "$state $message: $1" : "$state $message";
}

# The letter of a process's state, empty when there is no such process.
sub state_of
{
	my ($pid) = @_;

	open(my $stat, '<', "/proc/$pid/stat") or return '';
	return (<$stat> // '') =~ /\) (\S)/ ? $1 : '';
}

# Has a process ended? One that nobody has waited for yet has ended too.
sub is_gone
{
	my ($pid) = @_;

	return !kill(0, $pid) || state_of($pid) =~ /^Z?$/;
}

# Poll for a condition; the name is for the one who reads that it never came.
sub wait_until
{
	my ($name, $condition) = @_;
	my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default;

	while ($tries-- > 0)
	{
		return 1 if $condition->();
		usleep(50_000);
	}
	croak "timed out waiting until $name";
}

# Halt a process, and wait until it stands: false if it came to its end before.
sub halt_process
{
	my ($pid) = @_;

	kill('STOP', $pid) or return 0;
	wait_until("process $pid stands", sub { state_of($pid) =~ /^[TtZ]?$/ });
	return !is_gone($pid);
}

# Signal one process, if it still runs, and wait for its end. What is killed is
# halted first: then it is the signal that ended it, and not its own last step.
sub kill_process
{
	my ($signal, $pid) = @_;

	return 0 if is_gone($pid) || ($signal eq 'KILL' && !halt_process($pid));
	kill($signal, $pid) or return 0;
	wait_until("process $pid is gone", sub { is_gone($pid) });
	return 1;
}

sub children_of
{
	my ($parent) = @_;
	my @pids;

	foreach my $path (glob '/proc/[0-9]*/stat')
	{
		open(my $stat, '<', $path) or next;
		my $line = <$stat> // '';
		push @pids, $1 if $line =~ /^(\d+) \(.*\) \S (\d+) / && $2 == $parent;
	}
	return @pids;
}

=pod

=item kill_server(node)

Kill -9 of the whole server, and wait until nothing of it is left. The
postmaster is halted first, and seen to be, so that it can't start anybody while
its children are counted. Its lock files go too: its number may still be taken, by a process
that has ended and that nobody has waited for, as happens in containers.

=cut

sub kill_server
{
	my ($node) = @_;
	my $pidfile = $node->data_dir . '/postmaster.pid';
	my $socket  = $node->host . '/.s.PGSQL.' . $node->port;
	my ($postmaster) = slurp_file($pidfile) =~ /^(\d+)/;

	halt_process($postmaster);
	my @pids = children_of($postmaster);
	kill('KILL', @pids);
	$node->kill9;
	foreach my $pid ($postmaster, @pids)
	{
		wait_until("process $pid is gone", sub { is_gone($pid) });
	}
	unlink $pidfile, "$socket.lock", $socket;
	return;
}

# The workers of a database, or of all.
sub worker_pids
{
	my ($node, $db) = @_;
	my $where = $db ? "AND datname = '$db'" : '';

	return split /\n/, $node->safe_psql('postgres', qq(
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'revenue_sink worker' $where ORDER BY pid));
}

=pod

=item differences(node, db, sink => 's', fact => 'fact_revenue_1m', truth => text)

Settle what is deferred, then everything that is wrong with a sink, as text:
what check() finds, and how the fact view differs from the truth, which has
lines 'epoch of the minute|group|cents|events'. Empty: all is well.

=cut

sub differences
{
	my ($node, $db, %params) = @_;
	my $sink  = $params{sink} // 's';
	my $fact  = $params{fact} // 'fact_revenue_1m';
	my $text  = $node->safe_psql($db, qq(
SET client_min_messages = warning;
\\o /dev/null
SELECT revenue_sink.merge('$sink');
\\o
SELECT 'check: ' || problem FROM revenue_sink.check('$sink');
SELECT extract(epoch FROM minute)::bigint, group_key,
       (revenue * 100)::numeric(40,0), events
FROM $fact ORDER BY 1, group_key COLLATE "C"));
	my %want = map { $_ => 1 } split /\n/, $params{truth};
	my @wrong;

	foreach my $line (split /\n/, $text)
	{
		push @wrong, "found: $line" unless delete $want{$line};
	}
	push @wrong, "missing: $_" foreach sort keys %want;
	splice @wrong, 10, scalar(@wrong), '...' if @wrong > 10;
	return join("\n", @wrong);
}

=pod

=item build_client(name, option, ...)

Compile test/t/<name>.c against this installation's libpq. Returns its path,
undef where there is no compiler.

=cut

sub build_client
{
	my ($name, @options) = @_;
	my $source = "$FindBin::RealBin/$name.c";
	my $binary = PostgreSQL::Test::Utils::tempdir() . "/$name";
	my %config;

	foreach my $what (qw(cc includedir libdir))
	{
		$config{$what} = `pg_config --$what`;
		chomp $config{$what};
	}
	my ($cc) = split / /, $config{cc};
	return undef if system("command -v $cc >/dev/null 2>&1") != 0;
	system_or_bail($cc, '-O1', '-o', $binary, $source, "-I$config{includedir}",
		"-L$config{libdir}", "-Wl,-rpath,$config{libdir}", '-lpq', @options);
	return $binary;
}

# ----------------------------------------------------------------------
# Random choices that are the same for the same seed, everywhere.

package RevenueSink::Random;

my $mask = (1 << 48) - 1;

sub new
{
	my ($class, $seed) = @_;

	return bless { state => ($seed + 12345) & $mask }, $class;
}

sub below
{
	my ($self, $limit) = @_;
	use integer;

	$self->{state} = ($self->{state} * 25214903917 + 11) & $mask;
	return ($self->{state} >> 17) % $limit;
}

# ----------------------------------------------------------------------
# Streams of order events, one file per writer, and their true totals.
#
# About one line in ten is a duplicate, of the same stream or of another's; a
# block of lines starts with two markers in the group of its writer. A sink that has
# had streams before gets events with numbers from "first" on, which the earlier ones
# ("after") don't have.

package RevenueSink::Streams;

use PostgreSQL::Test::Utils;

sub new
{
	my ($class, %params) = @_;

	return bless {
		random     => RevenueSink::Random->new($params{seed}),
		duplicates => $params{duplicates} // 1,
		dir        => PostgreSQL::Test::Utils::tempdir(),
		writers    => $params{writers},
		lines      => 0,     # of each stream
		first      => $params{first} // 0,
		next       => $params{first} // 0,    # id of the next new event
		all        => [],    # lines that can recur
		truth      => { map { $_ => [ @{ $params{after}{truth}{$_} } ] } keys %{ $params{after}{truth} // {} } },    # "epoch|group" -> [cents, events]
	}, $class;
}

sub file
{
	my ($self, $writer) = @_;

	return "$self->{dir}/stream_$writer";
}

# Count an event, once, and give its line.
sub add
{
	my ($self, $order, $event, $minute, $second, $cents, $group) = @_;
	my @t    = gmtime($minute + $second);
	my $sum  = $self->{truth}{"$minute|$group"} //= [ 0, 0 ];
	my $time = sprintf('%04d-%02d-%02d %02d:%02d:%02d+00',
		$t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ]);
	my $sign = $cents < 0 ? '-' : '';
	my $line = sprintf("%s,%s,%s,%s%d.%02d,%s\n", $order, $event, $time,
		$sign, abs($cents) / 100, abs($cents) % 100, $group);

	$sum->[0] += $cents;
	$sum->[1]++;
	return $line;
}

# The lines of one block.
sub block
{
	my ($self, $writer, $number) = @_;
	my $random = $self->{random};
	my $all    = $self->{all};
	my @lines  = map {
		$self->add("marker-$writer-" . ($number + $self->{first}), $_->[0], $_->[1], 0, 100,
			"marker-$writer")
	} ([ 'a', $RevenueSink::MARKER_A ], [ 'b', $RevenueSink::MARKER_B ]);

	while (@lines < $RevenueSink::BLOCK)
	{
		if ($self->{duplicates} && @$all && $random->below(10) == 0)
		{
			# mostly of late, so that writers meet over it
			my $back = $random->below(4) ? 1000 : scalar @$all;
			$back = @$all if $back > @$all;
			push @lines, $all->[ -1 - $random->below($back) ];
			next;
		}
		my $id = $self->{next}++;
		push @lines, $self->add(
			'order-' . int($id / 3), "evt-$id",
			$RevenueSink::MARKER_A + 3600 + 60 * $random->below(20),
			$random->below(60), $random->below(20000) - 2000,
			'shop-' . $random->below(4));
		push @$all, $lines[-1];
	}
	return @lines;
}

# Some more blocks of lines for each stream; returns where they end.
sub grow
{
	my ($self, $blocks) = @_;
	my @files;

	foreach my $writer (0 .. $self->{writers} - 1)
	{
		open($files[$writer], '>>', $self->file($writer)) or die "$!";
	}
	foreach (1 .. $blocks)
	{
		my $number = $self->{lines} / $RevenueSink::BLOCK;
		foreach my $writer (0 .. $self->{writers} - 1)
		{
			print { $files[$writer] } $self->block($writer, $number);
		}
		$self->{lines} += $RevenueSink::BLOCK;
	}
	close $_ or die "$!" foreach @files;
	return $self->{lines};
}

# The true totals, as differences() wants them.
sub truth
{
	my ($self) = @_;
	my $truth = $self->{truth};

	return join("\n",
		map { "$_|$truth->{$_}[0]|$truth->{$_}[1]" } sort keys %$truth);
}

# ----------------------------------------------------------------------
# Writers at work on streams, and the reader that watches.

package RevenueSink::Load;

use Test::More;

sub new
{
	my ($class, %params) = @_;
	my $self = bless {
		sink   => 's',
		ingest => 'order_events',
		fact   => 'fact_revenue_1m',
		job    => 'crash-test',
		partition => 0,           # that of the first writer
		pause  => 0,              # after each batch, in milliseconds
		gate   => undef,          # name of a file; without it, writers stop in the middle
		writer => {},             # those that run: number -> { pid, out, end }
		random => RevenueSink::Random->new($params{seed} + 1),
		%params                   # binary, connstr, streams
	}, $class;

	return $self;
}

# Start a writer that goes on with its stream up to a line.
sub start
{
	my ($self, $n, $end) = @_;
	my $pid = open(my $out, '-|', $self->{binary},
		'-d', $self->{connstr}, '-s', $self->{sink},
		'-i', $self->{ingest},  '-j', $self->{job},
		'-w', "writer-$n",      '-p', $self->{partition} + $n,
		'-f', $self->{streams}->file($n),
		'-e', $end, '-r', 1 + $self->{random}->below(1_000_000_000),
		'-m', $self->{pause}, defined $self->{gate} ? ('-g', $self->{gate}) : ());

	die "could not start writer: $!" unless $pid;
	$self->{writer}{$n} = { pid => $pid, out => $out, end => $end, text => '' };
	return;
}

sub start_all
{
	my ($self, $end) = @_;

	$self->start($_, $end) foreach (0 .. $self->{streams}{writers} - 1);
	return;
}

=pod

=item $load->run(sub { my ($load, $n, $step, $what) = @_; ... })

Until all writers are at their end, call a sub for each step they tell. Dies
if a writer fails, or if none says anything for too long. What the sub has
killed with kill_writer() is started again.

=cut

sub run
{
	my ($self, $on_step) = @_;
	my $writers = $self->{writer};

	while (%$writers)
	{
		my %of     = map { $writers->{$_}{out} => $_ } keys %$writers;
		my $select = IO::Select->new(map { $_->{out} } values %$writers);
		my @ready  = $select->can_read($PostgreSQL::Test::Utils::timeout_default);

		die "no writer said anything for too long" unless @ready;
		foreach my $out (@ready)
		{
			my $n = $of{$out};
			my $w = $writers->{$n};

			if (sysread($out, $w->{text}, 4096, length $w->{text}))
			{
				while ($w->{text} =~ s/^(\w+) (\d+)\n//)
				{
					$w->{backend} = $2 if $1 eq 'open';
					$on_step->($self, $n, $1, $2) if $on_step;
				}
				next;
			}
			delete $writers->{$n};
			next if close($out);
			die "writer $n failed: $?" unless $w->{killed};
			$self->start($n, $w->{end});
		}
	}
	return;
}

# Kill a writer in mid-stream.
sub kill_writer
{
	my ($self, $n) = @_;

	$self->{writer}{$n}{killed} = 1;
	kill('KILL', $self->{writer}{$n}{pid});
	return;
}

# The server process of a writer's connection.
sub backend
{
	my ($self, $n) = @_;

	return $self->{writer}{$n}{backend};
}

sub start_reader
{
	my ($self, $binary) = @_;
	my $sums = join ', ', map {
		"coalesce(sum(events) FILTER (WHERE minute = to_timestamp($_)), 0)"
	} ($RevenueSink::MARKER_A, $RevenueSink::MARKER_B);
	my $pid = open(my $out, '-|', $binary, $self->{connstr},
		"SELECT group_key, $sums FROM $self->{fact}"
		  . " WHERE group_key LIKE 'marker-%' GROUP BY group_key");

	die "could not start reader: $!" unless $pid;
	$self->{reader} = { pid => $pid, out => $out };
	return;
}

# The reader's verdict: how often it looked, undef if it saw something wrong.
sub stop_reader
{
	my ($self) = @_;
	my $reader = delete $self->{reader};

	kill('TERM', $reader->{pid});
	my $text = join '', readline($reader->{out});
	return undef unless close($reader->{out});
	return $text =~ /looks (\d+)/ ? $1 : undef;
}

# Leave no client behind if a test dies.
sub DESTROY
{
	my ($self) = @_;
	local $?;

	kill('KILL', $_->{pid}) foreach (values %{ $self->{writer} });
	kill('KILL', $self->{reader}{pid}) if $self->{reader};
	return;
}

1;
