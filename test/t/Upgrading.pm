# What tests of upgrades share: installations of PostgreSQL with the released 1.0 or
# with this version of revenue_sink, commands of docs/upgrading.md, a sink of 1.0 with
# something of each kind, and what must be true of it after any upgrade.

package Upgrading;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

our @EXPORT = qw(
  installation
  install_released
  install_now
  server_from
  page
  page_command
  pages_left
  sql
  run_stream
  make_base
  enrich
  prepare
  gid_of
  looks_like
  is_kept
  $DB
);

our $DB = 'shop';

# ----------------------------------------------------------------------
# Installations

my $tempdir = PostgreSQL::Test::Utils::tempdir();

sub config_of
{
	my ($path, $what) = @_;
	my $value = `$path/bin/pg_config --$what`;

	chomp $value;
	return $value;
}

sub copy_into
{
	my ($path, @files) = @_;

	# unlinked first: a running server may have the library mapped
	unlink map { my $name = $_; $name =~ s/.*\///; "$path/$name" } @files;
	system_or_bail('cp', @files, $path);
	return;
}

=pod

=item installation(name, path, released)

A private copy of the installation of PostgreSQL at a path, with the 1.0 that was built
in the folder "released"; returns its path.

=cut

sub installation
{
	my ($name, $path, $released) = @_;
	my $root = "$tempdir/installation_$name";

	{
		local $ENV{PG_CONFIG} = "$path/bin/pg_config";
		system_or_bail('bash', '-c', '. "$0" && private_programs "$1"', "$FindBin::RealBin/../lib.sh", $root);
	}
	my $copy = $root . config_of($path, 'bindir') =~ s/\/bin$//r;
	install_released($copy, $released);
	return $copy;
}

# Install into such a copy what was built of 1.0.
sub install_released
{
	my ($copy, $released) = @_;

	copy_into(config_of($copy, 'pkglibdir'), "$released/revenue_sink.so");
	copy_into(config_of($copy, 'sharedir') . '/extension', "$released/revenue_sink.control", glob("$released/sql/revenue_sink--*.sql"));
	return;
}

# Install into such a copy the revenue_sink of an installation, as a package does.
sub install_now
{
	my ($copy, $path) = @_;

	copy_into(config_of($copy, 'pkglibdir'), config_of($path, 'pkglibdir') . '/revenue_sink.so');
	copy_into(config_of($copy, 'sharedir') . '/extension', glob(config_of($path, 'sharedir') . '/extension/revenue_sink*'));
	return;
}

# A server with a copy of another one's files, which are in its backup; not started.
sub server_from
{
	my ($origin, $backup, $name, $path, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $path);

	$node->init_from_backup($origin, $backup, has_streaming => $params{streaming});
	$node->append_conf('postgresql.conf', $params{conf}) if $params{conf};
	return $node;
}

# ----------------------------------------------------------------------
# docs/upgrading.md, in the folder docs beside the folder test, or in DOCS

my $file = ($ENV{DOCS} // "$FindBin::RealBin/../../docs") . '/upgrading.md';
-r $file or die "$file is missing: copy docs to where test is, or set DOCS";
my $text = slurp_file($file);
my %snippet;
while ($text =~ /^( *)<!-- 039_upgrading\.pl: ([^\n]+) -->\n *```(?:sql|sh)\n(.*?)^ *```$/msg)
{
	my ($indent, $name, $command) = ($1, $2, $3);

	$snippet{$name} = $command =~ s/^$indent//mgr;
}
is(scalar(() = $text =~ /```(?:sql|sh)$/mg), scalar(keys %snippet), 'each command of the page has a name');
my %shown = %snippet;

# The text of a command
sub page
{
	my ($name) = @_;

	delete $shown{$name};
	return $snippet{$name} // die "the page has no \"$name\"";
}

# Run a command of the page in a shell, with its variables; returns what it prints, and
# in a list also the errors.
sub page_command
{
	my ($name, %env) = @_;
	my ($out, $err) = ('', '');
	my $options = delete $env{OPTIONS} // '';
	local %ENV = (%ENV, %env);

	chdir $tempdir or die "$!";
	my $ok = IPC::Run::run([ 'bash', '-euo', 'pipefail', '-c', page($name) =~ s/\n\z/ $options/r ], '<', \undef, '>', \$out, '2>', \$err);
	note("$name: $out$err");
	return wantarray ? ($ok, "$out$err") : $ok;
}

# The commands that nobody has asked for
sub pages_left
{
	return join(', ', sort keys %shown);
}

# ----------------------------------------------------------------------
# SQL

sub sql
{
	my ($node, $sql, $db) = @_;

	return $node->safe_psql($db // $DB, $sql);
}

=pod

=item run_stream([ nodes ], sub, after => streams, reader => 1)

Two writers send a stream to the first node that takes it. A sub is called when they
have begun. They go on meanwhile, and again and again try to, but the second half of
the stream they send after it. With a reader, nothing that it has seen may vanish.
Returns the stream, whose truth is that of the streams before, too.

=cut

my %client;
my $streams = 0;

sub run_stream
{
	my ($nodes, $sub, %params) = @_;
	my $number = $streams++;
	my $stream = RevenueSink::Streams->new(seed => 225 + $number, writers => 2, first => 100_000 * $number, after => $params{after});
	my $connstr = sprintf('dbname=%s host=%s port=%s target_session_attrs=read-write', $DB,
		join(',', map { $_->host } @$nodes), join(',', map { $_->port } @$nodes));
	my $gate = "$tempdir/gate_$number";
	my $load = RevenueSink::Load->new(seed => 225 + $number, streams => $stream, sink => 'orders', connstr => $connstr,
		binary => $client{writer} //= build_client('writer'), job => "stream-$number", partition => 10 * $number,
		pause => 20, gate => $gate);
	my ($done, $end) = (0, $stream->grow(120));

	$load->start_reader($client{reader} //= build_client('reader')) if $params{reader};
	$load->start_all($end);
	$load->run(sub {
		my (undef, undef, $step) = @_;

		return unless $step eq 'done' && ++$done == 5;
		$sub->();
		append_to_file($gate, '');
	});
	is(sql($nodes->[-1], 'SELECT min(next_offset) FROM revenue_sink.offsets(\'orders\', \'orders\') WHERE partition IN (' . join(',', 10 * $number, 10 * $number + 1) . ')'),
		$end, 'the stream went on to its end');
	ok($load->stop_reader, 'a reader saw nothing vanish') if $params{reader};
	return $stream;
}

# ----------------------------------------------------------------------
# What a server of 1.0 has before an upgrade. Events that are called 'old' are counted,
# unless their batch was rolled back.

my $events = 300;
my $first  = 1709287200;    # 2024-03-01 10:00 UTC
my %gid;
my %epoch;

# The SQL of a call with events from .. to, which has six counts
sub apply_of
{
	my ($from, $to) = @_;

	return qq(SELECT concat_ws('|', applied, duplicate, deferred, conflict, late, rejected) FROM (SELECT
	array_agg('old-' || n / 3 ORDER BY n) AS orders, array_agg('old-' || n ORDER BY n) AS events,
	array_agg(to_timestamp($first + n) ORDER BY n) AS times, array_agg(n * 0.01 ORDER BY n) AS amounts,
	array_agg('old'::text ORDER BY n) AS groups FROM generate_series($from, $to - 1) n) x,
	revenue_sink.apply('orders', orders, events, times, amounts, groups));
}

# Prepare a batch with one event, as the writer "held" or another one; returns the gid.
sub prepare
{
	my ($node, $number, $writer) = @_;

	$writer //= 'held';
	return $gid{$number} = sql($node, qq(
\\set QUIET on
BEGIN;
SELECT revenue_sink.begin_batch('orders', '$writer', '$writer', $epoch{$writer}, $number) \\gset
SELECT revenue_sink.apply('orders', 'held-$number', 'held', to_timestamp($first + 60), $number, 'held') \\gset
SELECT revenue_sink.pre_commit('orders') AS gid \\gset
PREPARE TRANSACTION :'gid';
\\echo :gid));
}

=pod

=item make_base(node)

Fill a server of 1.0: batches, offsets, committed and rolled back ones in two phases,
two that are in doubt, a deferred event and dead letters. Stops the server, and keeps
its files as the backup "cold".

=cut

sub make_base
{
	my ($node) = @_;

	sql($node, "CREATE DATABASE $DB", 'postgres');
	create_sink($node, $DB, sink => 'orders');
	create_sink($node, $DB, sink => 't', more => q('totals_fact', 'totals_events', mode => 'totals'));
	is(sql($node, q(SELECT extversion FROM pg_extension WHERE extname = 'revenue_sink')), '1.0', 'a database of 1.0');

	# The server has had more transactions than a new one has: so ids of these are of
	# none there.
	sql($node, 'DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
	$epoch{w} = sql($node, q(CALL revenue_sink.open_writer('orders', 'w', 'w')));
	foreach my $number (1 .. 3)
	{
		my ($from, $to) = (($number - 1) * 100, $number * 100);

		is(sql($node, qq(
\\set QUIET on
BEGIN;
SELECT revenue_sink.begin_batch('orders', 'w', 'w', $epoch{w}, $number) \\gset
@{[ apply_of($from, $to) ]};
SELECT revenue_sink.store_offsets('orders', 'old', '{0}', '{$to}') \\gset
SELECT revenue_sink.upsert('t', '{2024-03-01 10:00+00}', '{$to}', '{shop}', $to) \\gset
COMMIT;
SELECT revenue_sink.merge('orders') \\gset)), '100|0|0|0|0|0', "batch $number of 1.0");
	}
	$epoch{held} = sql($node, q(CALL revenue_sink.open_writer('orders', 'held', 'held')));
	prepare($node, $_) foreach 1 .. 4;
	sql($node, "CALL revenue_sink.commit_prepared('$gid{1}'); CALL revenue_sink.rollback_prepared('$gid{2}')");
	is(sql($node, qq(
SELECT revenue_sink.apply('orders', 'held-3', 'held', to_timestamp($first + 60), 3, 'held');
SELECT revenue_sink.apply('orders', 'old-0', 'old-0', to_timestamp($first), 99, 'old');
SELECT revenue_sink.apply('orders', 'ancient', 'ancient', '2024-02-01', 1, 'old'))), "deferred\nconflict\nlate",
		'1.0 has a deferred event and dead letters');
	$node->stop;
	$node->backup_fs_cold('cold');
	return;
}

# What outcome() says of all gids that were given
sub outcomes_of
{
	my ($node, $last) = @_;

	return join(', ', map { sql($node, "SELECT revenue_sink.outcome('$gid{$_}')") } 1 .. $last);
}

sub gid_of
{
	my ($number) = @_;

	return $gid{$number};
}

# ----------------------------------------------------------------------
# After the update: all that 1.1 adds

=pod

=item enrich(node)

Give a server of 1.1 what 1.0 doesn't have: resolutions, settled events, imports,
sealed slices, and batches whose gids are those of 1.1.

=cut

sub enrich
{
	my ($node) = @_;

	create_sink($node, $DB, sink => 'imported', more => q('imported_fact', 'imported_events'));
	create_sink($node, $DB, sink => 'bulk', more => q('bulk_fact', 'bulk_events'));
	is(sql($node, q(
SELECT revenue_sink.resolve('orders', 'count', array_agg(letter), 'late') FROM revenue_sink.dead_letter WHERE reason = 'late';
SELECT revenue_sink.resolve('orders', 'discard', array_agg(letter), 'why') FROM revenue_sink.dead_letter WHERE reason = 'conflict';
SELECT revenue_sink.import_totals('imported', '{2024-03-01 10:00+00}', '{17}', '{g}', '{1}');
SELECT applied FROM revenue_sink.import_seen('imported', '{o-1}'::text[], '{e-1}', '{2024-03-01 10:00+00}', '{17}', '{g}');
SELECT revenue_sink.apply('imported', 'o-2', 'e-2', '2024-03-01 10:00+00', 3, 'g');
SELECT applied FROM (SELECT array_agg('o-' || n / 3), array_agg('e-' || n), array_agg(timestamptz '2024-03-01 10:00+00' + n / 1000 * interval '1 minute'),
	array_agg(1::numeric) FROM generate_series(1, 150000) n) AS a (o, e, t, m), revenue_sink.apply('bulk', o, e, t, m))), "1\n1\n1\n1\napplied\n150000",
		'1.1 has resolutions, imports and many events');
	is(sql($node, qq(
\\set QUIET on
BEGIN;
SELECT revenue_sink.apply('orders', 'settled', 'settled', to_timestamp($first + 60), 5, 'held') \\gset
PREPARE TRANSACTION 'first';
SELECT revenue_sink.apply('orders', 'settled', 'settled', to_timestamp($first + 60), 5, 'held');
COMMIT PREPARED 'first')), 'deferred', 'an event of 1.1 is deferred');
	$node->poll_query_until($DB, q(SELECT (SELECT sum(events) > 50000 FROM revenue_sink.slice_4)
		AND NOT EXISTS (SELECT FROM revenue_sink.deferred) AND EXISTS (SELECT FROM revenue_sink.settled)))
	  or die 'nothing is sealed or settled';
	$epoch{later} = sql($node, q(CALL revenue_sink.open_writer('orders', 'later', 'later')));
	prepare($node, $_, 'later') foreach 5, 6;
	sql($node, "CALL revenue_sink.commit_prepared('$gid{5}'); CALL revenue_sink.rollback_prepared('$gid{6}')");
	return;
}

# What must look the same before and after
sub looks_like
{
	my ($node, $db) = @_;

	return sql($node, q(
SELECT * FROM imported_fact ORDER BY 1, 2;
SELECT count(*), sum(revenue), sum(events) FROM bulk_fact;
SELECT * FROM totals_fact ORDER BY 1, 2;
SELECT * FROM fact_revenue_1m WHERE group_key IN ('old', 'held') ORDER BY 1, 2;
SELECT * FROM revenue_sink.offsets('orders') WHERE source = 'old' ORDER BY 1, 2;
SELECT * FROM revenue_sink.dead_letter ORDER BY 1, 2, 3;
SELECT * FROM revenue_sink.settled WHERE order_id = 'settled';
SELECT sink, job, writer, epoch, opened_at, last_number, events FROM revenue_sink.writer WHERE job !~ '^stream-' ORDER BY 1, 2, 3;
SELECT sink, seen_events, removed, discarded FROM revenue_sink.stat_sink WHERE sink <> 'orders' ORDER BY 1;
SELECT sink, owner, mode, fact, ingest, bucket, dedup_window, retain FROM revenue_sink.sink ORDER BY 1), $db);
}

=pod

=item is_kept(node, name, outcomes => text, stream => streams, enriched => 1)

Is everything there after an upgrade that was there before, counted once?

=cut

sub is_kept
{
	my ($node, $name, %params) = @_;
	my $rich  = $params{rich};
	my $truth = $params{stream} ? $params{stream}->truth . "\n" : '';
	my %cents;

	# the truth of what was there before the stream
	foreach my $n (0 .. $events - 1)
	{
		my $minute = $first + 60 * int($n / 60);

		$cents{$minute} = [ ($cents{$minute}[0] // 0) + $n, ($cents{$minute}[1] // 0) + 1 ];
	}
	$truth .= join("\n", map { "$_|old|$cents{$_}[0]|$cents{$_}[1]" } sort keys %cents);
	$truth .= "\n" . ($first + 60) . '|held|' . ($params{held} // ($rich ? '1400|4' : '400|2'));
	$truth .= "\n1706745600|old|100|1" if $rich;

	wait_until("$name: deferred events are settled", sub { sql($node, 'SELECT count(*) FROM revenue_sink.deferred') eq '0' });
	like(sql($node, page('after')), qr/\A1\.1\n*\z/, "$name: the version is new, no sink has a problem, and check() finds nothing");
	is(sql($node, "SELECT c.problem FROM revenue_sink.sink s, revenue_sink.check(s.sink) c"), '', "$name: check() finds nothing in any sink");
	is(differences($node, $DB, sink => 'orders', truth => $truth), '', "$name: each event counts once");
	like(outcomes_of($node, $params{gids} // ($rich ? 6 : 4)), $params{outcomes}, "$name: outcomes of the old gids");
	is(sql($node, join(";\n", map { "BEGIN; SELECT revenue_sink.begin_batch('orders', 'w', 'w', $epoch{w}, $_); COMMIT" } 1 .. 3)),
		"f\nf\nf", "$name: batches are known by their numbers");
	is(sql($node, apply_of(0, $events)), "0|$events|0|0|0|0", "$name: their events are duplicates");
	is(sql($node, qq(
SELECT revenue_sink.apply('orders', 'held-1', 'held', to_timestamp($first + 60), 1, 'held');
SELECT revenue_sink.apply('orders', 'held-3', 'held', to_timestamp($first + 60), 3, 'held');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:00+00}', '{7}', '{shop}', 7);
SELECT revenue FROM totals_fact WHERE group_key = 'shop')), "duplicate\nduplicate\n1\n300", "$name: batches in two phases, and totals");
	if ($rich)
	{
		is(sql($node, q(
SELECT revenue_sink.apply('imported', 'o-1', 'e-1', '2024-03-01 10:00+00', 17, 'g');
SELECT revenue_sink.apply('imported', 'o-2', 'e-2', '2024-03-01 10:00+00', 3, 'g');
SELECT revenue_sink.apply('orders', 'ancient', 'ancient', '2024-02-01', 1, 'old');
SELECT revenue_sink.apply('orders', 'old-0', 'old-0', '2024-03-01 10:00+00', 99, 'old');
SELECT applied, duplicate FROM (SELECT array_agg('o-' || n / 3), array_agg('e-' || n), array_agg(timestamptz '2024-03-01 10:00+00' + n / 1000 * interval '1 minute'),
	array_agg(1::numeric) FROM generate_series(1, 150000) n) AS a (o, e, t, m), revenue_sink.apply('bulk', o, e, t, m);
SELECT sum(events) > 50000 FROM revenue_sink.slice_4)), "duplicate\nduplicate\nduplicate\nduplicate\n0|150000\nt",
			"$name: imports, resolutions and sealed events are known");
	}

	# Nobody has been given such an epoch before.
	foreach my $writer ('w', 'held', $rich ? 'later' : ())
	{
		my $epoch = sql($node, "CALL revenue_sink.open_writer('orders', '$writer', '$writer')");

		cmp_ok($epoch, '>', $epoch{$writer}, "$name: a new epoch of writer $writer is higher");
		like(error_of($node, $DB, "SELECT revenue_sink.begin_batch('orders', '$writer', '$writer', $epoch{$writer}, 9)"), qr/ERROR:  RS001:/,
			"$name: the old one is fenced off");
	}
	return;
}

1;
