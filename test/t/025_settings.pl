# Settings that others make: for a database, for all roles, in postgresql.conf.
#
# No setting may stop the worker or change its results, or those of create_sink,
# the doors and the administration in a session. And broken sinks are left alone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;
use Time::HiRes qw(time);

my $dir = PostgreSQL::Test::Utils::tempdir();

# A worker's lines begin with the kind of process and its number. Each database has
# a worker, and one of them prints all trees of its queries; so the interval is long
# enough for the rounds of all to fit into it.
my $node = new_node('settings', conf => q(
revenue_sink.worker_interval = '200ms'
revenue_sink.writer_idle = '1s'
revenue_sink.max_sinks = 200
max_worker_processes = 60
max_prepared_transactions = 40
autovacuum = off
log_line_prefix = '%b [%p]: '
));

# ----------------------------------------------------------------------
# Unfriendly values

# Left out are a setting that at its minimum lets no SQL run; settings that aren't
# about SQL: where libraries are found, the extension's included; libraries of
# others; patches of Debian; settings of a transaction, since the default_ ones
# stand for them; and settings that exclude the other log_.._stats.
my %left_out = map { $_ => 1 } qw(
  max_stack_depth
  dynamic_library_path local_preload_libraries extension_destdir output_plugin_libraries
  transaction_deferrable transaction_isolation transaction_read_only
  log_statement_stats
);

# Strings, and settings whose value by the rule below isn't unfriendly enough, or
# is too unfriendly for this test, which reads the log and the answers of psql.
my %value = (
	application_name => 'somebody',
	backtrace_functions => 'errfinish',
	client_encoding => 'LATIN1',
	client_min_messages => 'error',
	default_table_access_method => 'heap2',
	default_tablespace => 'other',
	default_text_search_config => 'pg_catalog.english',
	default_toast_compression => 'pglz',
	default_transaction_isolation => 'serializable',
	jit_above_cost => 0,
	jit_inline_above_cost => 0,
	jit_optimize_above_cost => 0,
	lc_messages => 'POSIX',
	lc_monetary => 'POSIX',
	lc_numeric => 'POSIX',
	lc_time => 'POSIX',
	log_min_messages => 'log',
	restrict_nonsystem_relation_kind => 'view, foreign-table',
	search_path => 'evil, pg_catalog, public',
	session_preload_libraries => '$libdir/plpgsql',
	session_replication_role => 'replica',
	synchronous_commit => 'off',
	temp_file_limit => 0,
	temp_tablespaces => 'other',
	timezone_abbreviations => 'India',
	wal_compression => 'pglz',
	wal_consistency_checking => 'all',
	DateStyle => 'SQL, DMY',
	IntervalStyle => 'sql_standard',
	TimeZone => 'America/St_Johns',
);

# These settings forbid statements to people, whom they stop; the worker is not
# stopped.
my %forbids = (
	default_transaction_read_only => 'off',
	statement_timeout => 0,
	lock_timeout => 0,
	idle_in_transaction_session_timeout => 0,
	idle_session_timeout => 0,
	transaction_timeout => 0,
	restrict_nonsystem_relation_kind => '',
	temp_file_limit => -1,
	exit_on_error => 'off',
	role => 'none',
);

# A session of the test that drives a worker has calm settings; a session whose
# own settings are tested only gets rid of those that forbid what it does.
my %calm = (%forbids,
	client_min_messages => 'warning',
	ignore_system_indexes => 'off',
	client_encoding => 'UTF8',
	default_table_access_method => 'heap',
	default_transaction_isolation => "read\\ committed",
	session_replication_role => 'origin',
	search_path => 'public',
	DateStyle => 'ISO',
	IntervalStyle => 'postgres',
	TimeZone => 'UTC',
);
my %known = map { $_ => 1 } 'role', split /\n/, $node->safe_psql('postgres', 'SELECT name FROM pg_settings');

sub options_of
{
	my (%options) = @_;

	return join ' ', map { "-c $_=$options{$_}" } grep { $known{$_} } sort keys %options;
}

sub unfriendly
{
	my ($name, $type, $boot, $min, $max, $enum) = @_;

	return $value{$name} if exists $value{$name};
	return $boot eq 'on' ? 'off' : 'on' if $type eq 'bool';
	return (grep { $_ ne $boot } split /,/, $enum =~ s/["{}]//gr)[0] if $type eq 'enum';
	return undef if $type eq 'string' || $min == $max;
	return 1 if $name =~ /timeout$/;
	return $min if $min != $boot;
	return $max < 1000 ? $max : $boot + 1;
}

# The settings of these contexts with unfriendly values, as [name, value].
sub settings_of
{
	my $contexts = join ', ', map { "'$_'" } @_;
	my @found;

	foreach my $line (split /\n/, $node->safe_psql('postgres', qq(
SELECT name, vartype, boot_val, min_val, max_val, enumvals FROM pg_settings
WHERE name !~ '^revenue_sink' AND context IN ($contexts) ORDER BY vartype, category, name)))
	{
		my ($name, $type, $boot, $min, $max, $enum) = split /\|/, $line, -1;
		my $value = $left_out{$name} ? undef : unfriendly($name, $type, $boot, $min, $max, $enum);

		push @found, [ $name, $value ] if defined $value;
	}
	return @found;
}

# A value as SQL wants it; a list of names isn't one string.
sub literal
{
	my ($name, $value) = @_;

	return $name =~ /search_path|tablespaces|DateStyle|preload/ && $value =~ /,/ ? $value : "'$value'";
}

my @all = (settings_of('user', 'superuser'), [ 'role', 'nobody' ]);
my %single = map { $_ => 1 } qw(default_transaction_read_only default_transaction_isolation session_replication_role
  role statement_timeout lock_timeout search_path default_table_access_method force_parallel_mode debug_parallel_query);
my %group;

foreach my $setting (@all)
{
	my $type = $setting->[1] =~ /^(on|off)$/ ? 'bool' : $setting->[1] =~ /^[\d.-]+$/ ? 'number' : 'word';
	my $n = 1;

	$n++ while @{ $group{"$type$n"} // [] } >= 14;
	push @{ $group{ $single{ $setting->[0] } ? lc $setting->[0] : "$type$n" } }, $setting;
}
push @{ $group{safe_snapshot} }, [ 'default_transaction_read_only', 'on' ],
  [ 'default_transaction_deferrable', 'on' ], [ 'default_transaction_isolation', 'serializable' ];
$group{$_} = [ [ IntervalStyle => $_ ], [ DateStyle => 'German' ], [ bytea_output => 'escape' ] ]
  foreach qw(iso_8601 postgres_verbose);
cmp_ok(scalar @all, '>', 150, scalar @all . ' settings in ' . scalar(keys %group) . ' groups');

# ----------------------------------------------------------------------
# Work for the worker

# A schema has functions and operators that lie, and a sink is to be restored
# except for its last table.
$node->safe_psql('postgres', q(
CREATE ROLE nobody;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE other LOCATION '';
CREATE DATABASE origin));
$node->safe_psql('origin', q(
SET client_min_messages = warning;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE SCHEMA evil;
CREATE FUNCTION evil.no(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.no(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.no(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.no);
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.no);
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.no);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT timestamptz ''infinity''';
CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT ''evil''::text';
CREATE AGGREGATE evil.max(bigint) (SFUNC = int8pl, STYPE = bigint);
CREATE EXTENSION revenue_sink;
SELECT revenue_sink.create_sink('s');
SELECT revenue_sink.apply('s', 'o' || i, 'e', '2024-03-01 10:00+00', i, 'g') FROM generate_series(1, 9) i));
system_or_bail('pg_dump', '-d', $node->connstr('origin'), '-f', "$dir/dump", '-Fc');
my @toc = split /\n/, `pg_restore -l $dir/dump`;
my ($last) = grep { /TABLE DATA revenue_sink epoch / } @toc;
append_to_file("$dir/but_one", join('', map { "$_\n" } grep { $_ ne $last } @toc));
append_to_file("$dir/last", "$last\n");
system_or_bail('pg_restore', '-L', "$dir/last", '-f', "$dir/last.sql", "$dir/dump");
$node->safe_psql('postgres', 'CREATE DATABASE base');
system_or_bail('pg_restore', '-e', '-d', $node->connstr('base'), '-L', "$dir/but_one", "$dir/dump");
$node->safe_psql('base', q(
SELECT revenue_sink.create_sink('here', 'here', 'here_in', on_bad_event => 'reject');
SELECT revenue_sink.create_sink('t', 't', 't_in', mode => 'totals')));

# Make rows of every kind in a database; the event 'held' is deferred behind a
# prepared transaction.
sub work_of
{
	my ($db) = @_;

	return qq(
\\set ON_ERROR_STOP 1
\\o /dev/null
SELECT revenue_sink.apply('here', 'o' || i, 'e', '2024-03-01 10:00+00', 1.5, 'g') FROM generate_series(1, 990) i;
SELECT revenue_sink.apply('here', 'o' || i, 'e', '2024-03-01 10:00+00', 1.5, 'g') FROM generate_series(991, 1100) i;
SELECT revenue_sink.apply('here', '', 'bad', '2024-03-01 10:00+00', 1) FROM generate_series(1, 3);
CALL revenue_sink.open_writer('here', 'job', 'w', NULL, 1);
) . join('', map { qq(
BEGIN;
SELECT revenue_sink.begin_batch('here', 'job', 'w', 1, $_);
SELECT revenue_sink.apply('here', 'b$_', 'e', '2024-03-01 10:01+00', 2, 'g');
SELECT revenue_sink.store_offsets('here', 'topic', '{0}', '{$_}');
COMMIT;) } (1 .. 5)) . qq(
BEGIN;
SELECT revenue_sink.apply('here', 'held', 'e', '2024-03-01 10:02+00', 7, 'g');
PREPARE TRANSACTION 'held in $db';
SELECT revenue_sink.apply('here', 'held', 'e', '2024-03-01 10:02+00', 7, 'g');
SELECT revenue_sink.upsert('t', '{2024-03-01 10:01+00}', '{65}', NULL, i) FROM generate_series(1, 3) i;
\\i $dir/last.sql
);
}

my $begun = q(
SELECT string_agg(CASE WHEN ok THEN '' ELSE what || ' ' END, '') FROM (VALUES
	('folded', (SELECT count(*) FROM revenue_sink.ledger WHERE sink_id > 0) < 5),
	('packed', (SELECT count(*) FROM revenue_sink.seen_2) < 200),
	('adopted', (SELECT count(problem) = 0 FROM revenue_sink.sink)),
	('totals merged', (SELECT count(*) = 1 FROM revenue_sink.total_3))) AS v (what, ok));
my $finished = q(
SELECT string_agg(CASE WHEN ok THEN '' ELSE what || ' ' END, '') FROM (VALUES
	('settled', (SELECT count(*) = 0 FROM revenue_sink.deferred)),
	('merged', (SELECT sum(unmerged_deltas) = 0 FROM revenue_sink.stat_sink)),
	('expired', (SELECT sum(events) = 1 FROM revenue_sink.seen_2))) AS v (what, ok));
my $result = q(
SELECT minute, group_key, revenue, events FROM here ORDER BY 1, 2;
SELECT minute, group_key, revenue, events FROM fact_revenue_1m ORDER BY 1, 2;
SELECT minute, revenue FROM t;
SELECT next_offset FROM revenue_sink.offsets('here', 'topic');
SELECT count(*) FROM revenue_sink.dead_letter;
SELECT sink, order_id, event_id, answer FROM revenue_sink.settled;
SELECT problem FROM revenue_sink.check('s');
SELECT problem FROM revenue_sink.check('t');
SELECT problem FROM revenue_sink.check('here'));
my $right = join "\n", '2024-03-01 10:00:00+00|g|1650.0|1100', '2024-03-01 10:01:00+00|g|10|5', '2024-03-01 10:02:00+00|g|7|1',
  '2024-03-05 10:00:00+00|g|9|1', '2024-03-01 10:00:00+00|g|45|9', '2024-03-01 10:01:00+00|65', 5, 1,
  'here|held|e|duplicate';

# Run psql with some settings in a database. A timeout that the server has may end a
# connection before it is made, if the machine is busy; then psql connects again.
sub say_of
{
	my ($db, $sql, %options) = @_;
	local $ENV{PGOPTIONS} = options_of(%options);
	my ($ret, $stdout, $stderr);

	foreach my $try (1 .. 20)
	{
		($ret, $stdout, $stderr) = $node->psql($db, $sql);
		last unless $stderr =~ /^psql: error: connection to server .* due to transaction timeout/;
	}
	return $stdout . ($ret ? "\n$stderr" : '');
}

# Wait until a query says that nothing is missing, in all databases.
sub all_are
{
	my ($what, $sql, @dbs) = @_;
	my %missing = map { $_ => 1 } @dbs;
	my $until = time + 180;

	while (%missing && time < $until)
	{
		foreach my $db (sort keys %missing)
		{
			$missing{$db} = say_of($db, $sql, %calm);
			delete $missing{$db} if $missing{$db} eq '';
		}
	}
	is($missing{$_} // '', '', "$_: $what") foreach @dbs;
	return;
}

# Lines of workers and the launcher, since a position in the log, that shouldn't
# be there.
sub complaints
{
	my ($from) = @_;
	my $log = slurp_file($node->logfile, $from);

	return join "\n", $log =~ /^(revenue_sink (?:worker|launcher) \[\d+\]: (?:WARNING|ERROR|FATAL|PANIC)(?!.*(?:administrator command|despite IgnoreSystemIndexes)).*)/mg;
}

# Let the workers of these databases do everything, and check the results.
sub go_through
{
	my ($from, @dbs) = @_;

	is(say_of($_, work_of($_), %calm), '', "$_: events") foreach @dbs;
	all_are('begun', $begun, @dbs);
	foreach my $db (@dbs)
	{
		is(say_of($db, qq(COMMIT PREPARED 'held in $db';
SELECT revenue_sink.apply('here', 'last', 'e', '2024-03-05 10:00+00', 9, 'g')), %calm), 'applied', "$db: more events");
	}
	all_are('finished', $finished, @dbs);
	is(say_of($_, $result, %calm), $right, "$_: all is right") foreach @dbs;
	is(complaints($from), '', 'workers and launcher have nothing to complain of');
	return;
}

# ----------------------------------------------------------------------
# Settings by ALTER DATABASE

my @refused;
my $sql = '';

foreach my $db (sort keys %group)
{
	$sql .= "CREATE DATABASE $db TEMPLATE base;\n";
	$sql .= "ALTER DATABASE $db SET $_->[0] = " . literal(@$_) . ";\n" foreach @{ $group{$db} };
}
my (undef, undef, $stderr) = $node->psql('postgres', $sql, on_error_stop => 0);
is(join("\n", grep { /ERROR/ } split /\n/, $stderr), '', 'all settings are set');
my $from = -s $node->logfile;
$node->restart;
go_through($from, sort keys %group);

# ----------------------------------------------------------------------
# In a session that has the settings by ALTER DATABASE: all doors and the
# administration

my $session = q(
SELECT revenue_sink.create_sink('mine', 'm', 'm_in', bucket => '5 minutes', dedup_window => '3 days -2 hours') \g /dev/null
SELECT applied FROM revenue_sink.apply('mine', '{a,b}'::text[], '{1,1}'::text[], '{2024-03-01T10:01Z,2024-03-01T10:02Z}'::timestamptz[], '{1.25,2}'::numeric[]);
SELECT applied FROM revenue_sink.apply('mine', '[{"order_id": "c", "event_id": "1", "event_time": "2024-03-01T10:03Z", "amount": 4}]'::jsonb);
SELECT revenue_sink.apply('mine', 'd', '1', '2024-03-01T10:04Z', 8);
INSERT INTO m_in VALUES ('e', '1', '2024-03-01T10:04Z', 16), ('a', '1', '2024-03-01T10:01Z', 1.25);
COPY m_in FROM STDIN WITH (FORMAT csv);
f,1,2024-03-01T10:04Z,32,
\.
SELECT revenue_sink.merge('mine') \g /dev/null
SELECT revenue_sink.expire('mine') \g /dev/null
SELECT problem FROM revenue_sink.check('mine');
SELECT revenue, events FROM m;
SELECT applied, duplicate FROM revenue_sink.stat_sink WHERE sink OPERATOR(pg_catalog.=) 'mine';
SELECT dedup_window OPERATOR(pg_catalog.=) '3 days -2 hours' FROM revenue_sink.sink WHERE sink OPERATOR(pg_catalog.=) 'mine';
SELECT revenue_sink.alter_sink('mine', dedup_window => '2 days -1 hour') \g /dev/null
SELECT revenue_sink.drop_sink('mine') \g /dev/null
);

# A serializable transaction may have to be repeated if the worker has changed
# rows that it changes, too; everybody who uses such transactions does so.
sub session_of
{
	my ($db) = @_;
	my @said;

	return say_of($db, $session, %forbids) if $db !~ /isolation|snapshot/;
	foreach my $statement (split /\n(?=SELECT|INSERT|COPY)/, $session)
	{
		my $said;

		wait_until("$db: serialized", sub { ($said = say_of($db, "$statement\n", %forbids)) !~ /could not serialize access/ });
		push @said, $said if $said ne '';
	}
	return join "\n", @said;
}

foreach my $db (sort keys %group)
{
	# the triggers of the ingest view don't fire then, and that is said
	if ($db eq 'session_replication_role')
	{
		like(say_of($db, $session, %forbids), qr/ERROR:  cannot insert into ingest view "m_in" with session_replication_role/,
			'no event is lost where triggers do not fire');
		next;
	}
	is(session_of($db), "2\n1\napplied\n63.25|6\n6|1\nt", "$db: the results in a session");
}

# The settings don't decide which access method the tables have, either.
my $others = q(SELECT string_agg(relname, ' ') FROM pg_class JOIN pg_am ON pg_am.oid = relam
WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind IN ('r', 't', 'm') AND amname <> 'heap');
my $heaps = q(SELECT count(*) > 12 FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r');
my $new = q(SET client_min_messages = error; DROP EXTENSION revenue_sink CASCADE;
CREATE EXTENSION revenue_sink; SELECT revenue_sink.create_sink('a', 'a', 'a_in');
SELECT revenue_sink.create_sink('b', 'b', 'b_in', mode => 'totals'););
is(say_of('default_table_access_method', "$new $heaps; $others", %forbids), "\n\nt\n", 'ALTER DATABASE: tables are heaps');
is(say_of('iso_8601', "SET default_table_access_method = heap2; $new $heaps; $others", %forbids), "\n\nt\n", 'SET: tables are heaps');

# ----------------------------------------------------------------------
# A table that isn't a heap is not written.

my $try = "SELECT revenue_sink.apply('a', 'o', 'e', '2024-03-01 10:00+00', 1)";
foreach my $table (qw(seen_1 slice_1 sealed_1 filter_1 delta_1 total_1 deferred_event settled_event dead_letter_event sink_state))
{
	say_of('iso_8601', "ALTER TABLE revenue_sink.$table SET ACCESS METHOD heap2", %calm);
	if ($table =~ /_1$/)
	{
		like(say_of('iso_8601', $try, %calm), qr/$table.*(not a heap|access method)/is, "$table of another access method: a clear error");
	}
	else
	{
		unlike(say_of('iso_8601', qq($try; INSERT INTO a_in VALUES ('', '', NULL, NULL, NULL)), %calm), qr/lost|server closed/, "$table: no crash");
	}
	is(say_of('iso_8601', "ALTER TABLE revenue_sink.$table SET ACCESS METHOD heap; $try", %calm) =~ /^(applied|duplicate)$/ ? 1 : 0, 1,
		"$table: put right");
}
$node->safe_psql('postgres', join '', map { "DROP DATABASE $_ WITH (FORCE);" } sort keys %group);

# ----------------------------------------------------------------------
# All settings at once, for all roles and for the worker's own role

$node->safe_psql('postgres', 'CREATE DATABASE everyone TEMPLATE base');
$node->safe_psql('postgres', join '', map {
	my $set = "SET $_->[0] = " . literal(@$_) . ';';
	"ALTER ROLE ALL $set ALTER ROLE CURRENT_USER $set" } grep { $_->[0] ne 'role' } @all);
$ENV{PGOPTIONS} = options_of(%calm);
$from = -s $node->logfile;
$node->restart;
go_through($from, 'everyone');
$node->safe_psql('postgres', 'ALTER ROLE ALL RESET ALL; ALTER ROLE CURRENT_USER RESET ALL');
delete $ENV{PGOPTIONS};

# ----------------------------------------------------------------------
# Settings in postgresql.conf, where more can be set: no transaction of the
# launcher waits for another one either.

my %not_in_file = (role => 1);
my $conf = join '', map { "$_->[0] = '$_->[1]'\n" } grep { !$not_in_file{ $_->[0] } } @all,
  [ default_transaction_deferrable => 'on' ], [ ignore_system_indexes => 'on' ], [ old_snapshot_threshold => 0 ],
  [ autovacuum_naptime => 1 ], [ vacuum_defer_cleanup_age => 1000 ], [ max_pred_locks_per_page => 0 ];
$conf =~ s/^old_snap.*\n//m if !$node->safe_psql('postgres', q(SELECT count(*) FROM pg_settings WHERE name = 'old_snapshot_threshold'));
$conf =~ s/^vacuum_defer.*\n//m if !$node->safe_psql('postgres', q(SELECT count(*) FROM pg_settings WHERE name = 'vacuum_defer_cleanup_age'));
$node->safe_psql('postgres', 'CREATE DATABASE file TEMPLATE base');
my $file = $node->data_dir . '/postgresql.conf';
my $friendly = slurp_file($file);
$node->append_conf('postgresql.conf', $conf);
$ENV{PGOPTIONS} = options_of(%calm);
$from = -s $node->logfile;
$node->restart;
go_through($from, 'file');
delete $ENV{PGOPTIONS};
open(my $out, '>', $file) or die "$!";
print $out $friendly;
close $out;
$node->restart;

# ----------------------------------------------------------------------
# Broken sinks are left alone.

$node->safe_psql('postgres', 'CREATE DATABASE broken TEMPLATE origin');
foreach my $sql (
	"SELECT revenue_sink.create_sink('x', fact => 'pg_temp.f')",
	"SELECT revenue_sink.create_sink('x', fact => 'x', ingest => 'pg_temp.f')",
	"SET search_path = pg_temp; SELECT revenue_sink.create_sink('x')")
{
	(undef, undef, $stderr) = $node->psql('broken', $sql);
	like($stderr, qr/ERROR:  cannot create view.*HINT:  /s, "refused: $sql");
}
is($node->safe_psql('broken', "SELECT count(*) FROM revenue_sink.sink WHERE sink = 'x'"), '0', 'nothing is left of them');

# Wait for more transactions of the worker than twenty rounds have.
sub rounds_pass
{
	my $count = q(SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'broken');
	my $before = $node->safe_psql('postgres', $count);

	wait_until('rounds have passed', sub { $node->safe_psql('postgres', $count) > $before + 150 });
	return;
}
$node->safe_psql('broken', "SELECT revenue_sink.apply('s', 'new', 'e', '2024-03-01 10:00+00', 1)");
foreach my $break ('DROP VIEW order_events', 'ALTER TABLE revenue_sink.total_1 RENAME TO other')
{
	$from = -s $node->logfile;
	$node->safe_psql('broken', $break);
	rounds_pass();
	is(complaints($from), '', "$break: no errors");
	my $told = () = slurp_file($node->logfile, $from) =~ /the worker skips sink "s"/g;
	is($told, $break =~ /^DROP/ ? 1 : 0, "$break: told once") ;
}

# A sink that finds no free slot says so now and then, and not in each round.
$node->append_conf('postgresql.conf', 'revenue_sink.max_sinks = 1');
$node->safe_psql('postgres', 'CREATE DATABASE full_up TEMPLATE base');
$node->safe_psql('postgres', "SELECT 'DROP DATABASE ' || datname || ' WITH (FORCE)' FROM pg_database WHERE datname IN ('broken', 'everyone', 'file', 'origin', 'base') \\gexec");
$node->restart;
$from = -s $node->logfile;
my $count = q(SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'full_up');
my $before = $node->safe_psql('postgres', $count);
wait_until('rounds have passed', sub { $node->safe_psql('postgres', $count) > $before + 150 });
my $errors = () = slurp_file($node->logfile, $from) =~ /ERROR:  this server has no free slot for another sink/g;
cmp_ok($errors, '<', 10, 'no slot for a sink: no error each round');

done_testing();
