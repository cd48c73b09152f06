# Upgrades of a server of 1.0, by the commands of docs/upgrading.md: in place, by a
# standby, by pg_upgrade, by a dump and by logical replication. Meanwhile two writers
# send a stream, and batches are prepared.
#
# RELEASED is a folder with builds of 1.0, as test/released makes them; without it
# there is nothing to start from. INSTALLATIONS has the paths of installations of
# PostgreSQL with this version of revenue_sink, the oldest one first; by default there
# is one, that of pg_config. The page is in the folder docs beside the folder test, or
# in DOCS.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my @paths = split ' ', $ENV{INSTALLATIONS} // `dirname \$(pg_config --bindir)`;
my ($oldest, $newest) = @paths[ 0, -1 ];
my $released = ($ENV{RELEASED} // '') . '/' . (`$oldest/bin/pg_config --version` =~ /(\d+)/)[0];

plan skip_all => 'no build of 1.0 in RELEASED; see test/released' unless -r "$released/revenue_sink.so";
plan skip_all => 'no C compiler' unless build_client('writer');

require Upgrading;
Upgrading->import;

my $conf = q(
revenue_sink.dedup_memory = '3MB'
revenue_sink.worker_interval = '50ms'
shared_buffers = 64MB
max_connections = 40
);
my @locale = ('--encoding=UTF8', '--locale=C.UTF-8');

# An error of a statement: SQLSTATE, message and hint
sub refusal
{
	my ($node, $sql) = @_;

	return answer_of($node, 'shop', $sql, 'HINT');
}

my $update = page('update');
my $event = q(SELECT revenue_sink.apply('orders', 'old-0', 'old-0', '2024-03-01 10:00+00', 0, 'old'));
my $needs_update = qr/^55000 .*: Run ALTER EXTENSION revenue_sink UPDATE in this database\.$/;

# What the library of 1.1 does with tables of 1.0: everything but finishing batches is
# refused. The update stops behind one that is prepared, until the page has helped.
sub finish_and_update
{
	my ($node, $name) = @_;
	my ($complete, $incomplete) = map { gid_of($_) } 3, 4;

	like(refusal($node, $event), $needs_update, "$name: calls are refused before the update");
	is(sql($node, "SELECT revenue_sink.outcome('$complete')"), 'in doubt', "$name: a prepared batch is in doubt");
	like(refusal($node, "SET statement_timeout = '60s'; $update"),
		qr/^55006 extension revenue_sink is used by the prepared transaction "(\Q$complete\E|\Q$incomplete\E)": Commit or roll back the prepared transaction first\.$/,
		"$name: the update names a prepared batch");
	is(sql($node, "\\set complete '$complete'\n\\set incomplete '$incomplete'\n" . page('finish')), "committed\nrolled back", "$name: they are finished");
	like(refusal($node, $event), $needs_update, "$name: the tables are still of 1.0");
	return;
}

sub look
{
	my ($node, $name, $prepared) = @_;
	my $text = sql($node, page('look'));

	like($text, qr/\A1\.0\norders\|\w+\nt\|\w+\n((orders\|held\|held\|[34]\|\S+\|in doubt\|\S+\n?){$prepared})\z/, "$name: a look beforehand");
	return;
}

# ----------------------------------------------------------------------
# The server of 1.0 from which the upgrades begin

my $path_1_0 = installation('released', $oldest, $released);
my $origin = new_node('origin', streaming => 1, conf => $conf, install_path => $path_1_0, extra => \@locale);
make_base($origin);

# ----------------------------------------------------------------------
# In place

my $machine = installation('machine', $oldest, $released);
my $server = server_from($origin, 'cold', 'in_place', $machine);
$server->start;
look($server, 'in place', 2);

my $in_place = run_stream([$server], sub {
	# The package is upgraded, and the server goes on with the old library.
	install_now($machine, $oldest);
	is(sql($server, $event), 'duplicate', 'in place: a running server goes on with the old library');
	like(error_of($server, 'shop', $update), qr/ERROR:  42883: could not find function .* in file .*revenue_sink/, 'in place: the update needs the new library');
	is(sql($server, $event), 'duplicate', 'in place: and has changed nothing');
	$server->restart;
	finish_and_update($server, 'in place');

	# The way back, as long as the tables are of 1.0
	$server->stop;
	install_released($machine, $released);
	$server->start;
	is(sql($server, $event), 'duplicate', 'in place: the way back before the update');
	$server->stop;
	install_now($machine, $oldest);
	$server->start;
	like(refusal($server, $event), $needs_update, 'in place: and forth again');
	ok(page_command('update all', PGHOST => $server->host, PGPORT => $server->port), 'in place: all databases are updated');
	is(sql($server, $event), 'duplicate', 'in place: calls work again');
}, reader => 1);
enrich($server);
$server->backup('rich');
my $picture = looks_like($server);
my $all_known = qr/^committed, rolled back, committed, rolled back(, committed, rolled back)?$/;
is_kept($server, 'in place', stream => $in_place, rich => 1, outcomes => $all_known);
$server->stop;

# ----------------------------------------------------------------------
# By a standby that is upgraded first, and takes over

my $primary_path = installation('primary', $oldest, $released);
my $primary = server_from($origin, 'cold', 'primary', $primary_path);
$primary->start;
$primary->backup('base');
my $standby = server_from($primary, 'base', 'standby', $oldest, streaming => 1);

my $stream = run_stream([ $primary, $standby ], sub {
	$standby->start;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	cmp_ok(sql($standby, 'SELECT count(*) FROM fact_revenue_1m'), '>', 5, 'standby: facts of 1.0 are read with the library of 1.1');
	ok(page_command('stop primary', OLD_BIN => "$primary_path/bin", OLD_DATA => $primary->data_dir), 'standby: the primary is stopped');
	$primary->_update_pid(0);
	is(sql($standby, page('promote')), 't', 'standby: and the standby promoted');
	finish_and_update($standby, 'standby');
	sql($standby, $update);

	# The primary becomes a standby of the new one.
	install_now($primary_path, $oldest);
	$primary->enable_streaming($standby);
	$primary->start;
	$standby->wait_for_catchup($primary, 'replay', $standby->lsn('insert'));
	is(sql($primary, page('after') =~ s/^SELECT problem.*//mr), '1.1', 'standby: the former primary is a standby of 1.1');
}, reader => 1);
is_kept($standby, 'standby', stream => $stream, outcomes => $all_known);
$standby->wait_for_catchup($primary, 'replay', $standby->lsn('insert'));
is(sql($primary, 'SELECT * FROM fact_revenue_1m ORDER BY 1, 2'), sql($standby, 'SELECT * FROM fact_revenue_1m ORDER BY 1, 2'),
	'standby: the former primary follows');
$_->stop foreach $primary, $standby;

# ----------------------------------------------------------------------
# pg_upgrade, through all versions

sub major
{
	my ($path) = @_;

	return (`$path/bin/pg_config --version` =~ /(\d+)/)[0];
}

# An empty cluster for pg_upgrade to fill
sub new_cluster
{
	my ($name, $from, $path) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $path);

	ok(page_command('initdb', NEW_BIN => "$path/bin", NEW_DATA => $node->data_dir,
			OPTIONS => major($from) < 18 && major($path) >= 18 ? '--no-data-checksums' : ''), "$name: initdb");
	$node->append_conf('postgresql.conf', "$conf\n" . join("\n", q(shared_preload_libraries = 'revenue_sink'), 'max_prepared_transactions = 10',
			'fsync = off', 'timezone = UTC', 'port = ' . $node->port, q(unix_socket_directories = ') . $node->host . q('), q(listen_addresses = '')));
	return $node;
}

# The environment of pg_upgrade's commands. Its ports are others than those of the
# writers, whose sessions would keep pg_upgrade from stopping the server.
my @port = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;

sub upgrade_env
{
	my ($old, $old_path, $new, $path) = @_;

	return (OLD_BIN => "$old_path/bin", NEW_BIN => "$path/bin", OLD_DATA => $old->data_dir, NEW_DATA => $new->data_dir,
		PGSOCKETDIR => $new->host, PGPORTOLD => $port[0], PGPORTNEW => $port[1]);
}

my @targets = @paths > 1 ? @paths[ 1 .. $#paths ] : @paths;
foreach my $way (qw(copy link))
{
	my $rich = $way eq 'link';
	my $from = $rich ? $oldest : $path_1_0;
	my $old = $rich ? server_from($server, 'rich', "old_$way", $from) : server_from($origin, 'cold', "old_$way", $from);
	my @nodes = ($old, map { new_cluster("new_${way}_" . major($_), $from, $_) } @targets);

	$old->start;
	my $went = run_stream(\@nodes, sub {
		if (!$rich)
		{
			# Prepared batches are in the way.
			like(sql($old, page('prepared transactions')), qr/^\S+\|[^|]+\|shop\n\S+\|[^|]+\|shop$/, "$way: prepared batches");
			$old->stop;
			my ($ok, $said) = page_command('pg_upgrade check', upgrade_env($old, $from, $nodes[1], $targets[0]));
			ok(!$ok, "$way: pg_upgrade refuses prepared transactions");
			like($said, qr/source cluster contains prepared transactions/, "$way: and says so");
			$old->start;
			sql($old, "\\set complete '" . gid_of(3) . "'\n\\set incomplete '" . gid_of(4) . "'\n" . page('finish'));
		}
		foreach my $n (1 .. $#nodes)
		{
			my ($before, $after) = @nodes[ $n - 1, $n ];
			my $path = $targets[ $n - 1 ];
			my @env = upgrade_env($before, $n == 1 ? $from : $targets[ $n - 2 ], $after, $path);

			$before->stop;
			ok(page_command('pg_upgrade check', @env), "$way: pg_upgrade --check") if !$rich;
			ok(page_command("pg_upgrade $way", @env), "$way: pg_upgrade to " . major($path));
			$after->start;
			ok(page_command('analyze', NEW_BIN => "$path/bin", PGHOST => $after->host, PGPORT => $after->port), "$way: vacuumdb") if $n == $#nodes;
			if (!$rich)
			{
				# Tables of 1.0 go all the way, and are updated at the end.
				like(refusal($after, $event), $needs_update, "$way: tables of 1.0 rest with " . major($path));
				is(sql($after, 'SELECT count(*) > 5 FROM fact_revenue_1m'), 't', "$way: and can be read");
				next if $n < $#nodes;
				sql($after, $update);
			}
			is(sql($after, $event), 'duplicate', "$way: calls work with " . major($path));
		}
	}, reader => 1, $rich ? (after => $in_place) : ());
	is(looks_like($nodes[-1]), $picture, "$way: all that was there is there") if $rich;
	is_kept($nodes[-1], $way, stream => $went, rich => $rich,
		outcomes => $rich ? qr/^committed, rolled back, committed, rolled back, committed, unknown$/ : $all_known);
	$nodes[-1]->stop;
}

# ----------------------------------------------------------------------
# By a dump, from 1.0 and from 1.1

# The environment of commands for two servers
sub two_servers
{
	my ($old, $new) = @_;

	return (OLD => 'host=' . $old->host . ' port=' . $old->port, NEW => 'host=' . $new->host . ' port=' . $new->port,
		PATH => "$newest/bin:$ENV{PATH}");
}

# Of a batch that was rolled back, the new server knows that it isn't there, at most.
my $on_new_server = qr/^committed, (?:rolled back|unknown), committed, (?:rolled back|unknown)/;

foreach my $way ('dump of 1.0', 'dump')
{
	my $rich = $way eq 'dump';
	my $old = $rich ? server_from($server, 'rich', 'dump_old', $oldest) : server_from($origin, 'cold', 'dump_old_1_0', $path_1_0);
	my $new = new_node($rich ? 'dump_new' : 'dump_new_1_0', conf => $conf, install_path => $newest, extra => \@locale);
	my %env = two_servers($old, $new);

	$old->start;
	my $went = run_stream([ $old, $new ], sub {
		ok(page_command('stop writing', %env), "$way: writers are kept away");
		sql($old, "SET default_transaction_read_only = off;\n\\set complete '" . gid_of(3) . "'\n\\set incomplete '" . gid_of(4) . "'\n" . page('finish')) if !$rich;
		ok(page_command('dump', %env), "$way: dumped");
		ok(page_command($rich ? 'restore' : 'restore 1.0', %env), "$way: restored");
		is($new->safe_psql('incoming', $event), 'duplicate', "$way: the new server knows what was counted");
		is(looks_like($new, 'incoming'), $picture, "$way: all that was there is there") if $rich;
		ok(page_command('rename', %env), "$way: the database gets its name");
		$old->stop;
	}, $rich ? (after => $in_place) : ());
	is_kept($new, $way, stream => $went, rich => $rich, outcomes => $rich ? qr/$on_new_server, committed, unknown$/ : qr/$on_new_server$/);
	$new->stop;
}

# ----------------------------------------------------------------------
# By logical replication

my $publisher = server_from($server, 'rich', 'publisher', $oldest, conf => 'wal_level = logical');
my $subscriber = new_node('subscriber', conf => $conf, install_path => $newest, extra => \@locale);
my %env = two_servers($publisher, $subscriber);
my $copied = qr/^55000 sink "orders" cannot be used/;

$publisher->start;
my $went = run_stream([ $publisher, $subscriber ], sub {
	sql($publisher, page('publish'));
	is(sql($publisher, q(SELECT c.oid::regclass FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind = 'r' AND c.relnamespace = 'revenue_sink'::regnamespace AND c.relreplident <> 'f' AND i.indrelid IS NULL)), '',
		'replication: each table has a replica identity');
	ok(page_command('schema', %env), 'replication: the schema is created');
	ok(page_command('subscribe', %env), 'replication: the new server subscribes');
	wait_until('the copies are whole', sub {
		sql($subscriber, page('whole')) =~ /\A(\w+\|the sink is a copy, written by subscription "from_old"; the copy is whole\n?){4}\z/ });
	like(refusal($subscriber, $event), $copied, 'replication: copies are refused to writers');
	is(looks_like($subscriber), $picture, 'replication: the copies read alike');

	# A batch is prepared, which the new server hasn't got before it is committed.
	prepare($publisher, 7, 'later');
	ok(page_command('stop writing', %env), 'replication: writers are kept away');
	sql($publisher, "SET default_transaction_read_only = off; CALL revenue_sink.commit_prepared('" . gid_of(7) . "')");
	ok(page_command('catch up', %env), 'replication: the new server has caught up');
	is(sql($subscriber, 'SELECT * FROM fact_revenue_1m ORDER BY 1, 2'), sql($publisher, 'SELECT * FROM fact_revenue_1m ORDER BY 1, 2'),
		'replication: and has the same revenue');
	like(refusal($subscriber, $event), $copied, 'replication: it is still a copy');
	ok(page_command('sequences', %env), 'replication: sequences are set');
	is(sql($subscriber, 'SELECT last_value FROM revenue_sink.sink_id'), 4, 'replication: the number of the last sink');
	ok(page_command('take over', %env), 'replication: the new server takes over');
	is(sql($subscriber, $event), 'duplicate', 'replication: calls work at once');
	$publisher->stop;
}, after => $in_place);
is_kept($subscriber, 'replication', stream => $went, rich => 1, held => '2100|5', gids => 7,
	outcomes => qr/$on_new_server, committed, unknown, committed$/);
unlike(slurp_file($subscriber->logfile), qr/ERROR: .*\n.*CONTEXT:  (processing remote data|COPY )/, 'replication: it has never failed');
$subscriber->stop;

is(pages_left(), '', 'each command of the page was run');
done_testing();
