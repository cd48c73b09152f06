# Dozens of crashes in mid-stream.
#
# Several writers stream events, with duplicates in their own stream and of each
# other's events, and continue from their stored offsets after whatever happens to
# them. In each round something is killed, at a moment chosen by seed: the whole
# server with -9, a backend, a client, the worker. When all streams have arrived,
# the totals must equal the truth computed here from the streams, and check() must
# find nothing.
#
# All the while a reader watches the markers that each batch carries in two
# minutes: they appear together, and never vanish.
#
# RSINK_SEED chooses another course of events, RSINK_ROUNDS another number of
# rounds.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

my $seed    = $ENV{RSINK_SEED}   || 1;
my $rounds  = $ENV{RSINK_ROUNDS} || 44;
my $writers = 3;
my $blocks  = 60;     # of each stream in a round

my $writer_binary = build_client('writer');
my $reader_binary = build_client('reader');
plan skip_all => 'no C compiler' unless $writer_binary && $reader_binary;

note "seed $seed";
my $node = new_node('crash', conf => q(
revenue_sink.worker_interval = '20ms'
checkpoint_timeout = 30s
));
create_sink($node, 'postgres');

my $random  = RevenueSink::Random->new($seed);
my $streams = RevenueSink::Streams->new(seed => $seed, writers => $writers);
my $load    = RevenueSink::Load->new(
	seed    => $seed,
	binary  => $writer_binary,
	connstr => $node->connstr('postgres'),
	streams => $streams);
$load->start_reader($reader_binary);

# Kill one server process: the postmaster ends the others and starts anew. Wait
# until it has, since whoever connects before is thrown out again.
sub crash_process
{
	my ($pid) = @_;
	my $from = -s $node->logfile;

	$node->wait_for_log(qr/database system is ready to accept connections/, $from)
	  if kill_process('KILL', $pid);
}

# Ways to kill. Each takes a plug and the writer whose step it was.
my %kill = (
	'server' => sub { kill_server($node); $node->start },
	'server, immediate stop' => sub { $node->stop('immediate'); $node->start },
	'server, twice' => sub {
		kill_server($node);
		$node->start;
		kill_server($node);
		$node->start;
	},
	'backend' => sub { crash_process($load->backend($_[0])) },
	'backend, terminated' => sub { kill_process('TERM', $load->backend($_[0])) },
	'client'  => sub { $load->kill_writer($_[0]) },
	'clients' => sub { $load->kill_writer($_) foreach keys %{ $load->{writer} } },
	'worker'  => sub {
		my ($pid) = worker_pids($node);
		crash_process($pid) if $pid;
	});
my @kinds = ((sort keys %kill), 'server', 'backend', 'client');
my @steps = qw(open begin begin applied applied commit commit commit done);

my (%told, @story);
foreach my $round (1 .. $rounds)
{
	# Every way comes up equally often, whatever the seed.
	my $kind   = $kinds[ ($round + $seed) % @kinds ];
	my $victim = $random->below($writers);
	my $step   = $steps[ $random->below(scalar @steps) ];
	my $count  = $step eq 'open' ? 1 : 1 + $random->below(5);
	my $what   = "round $round: $kind at writer $victim, $step $count";
	my $killed = 0;

	@story = ();
	$load->start_all($streams->grow($blocks));
	$load->run(sub {
		my (undef, $n, $told, $at) = @_;

		$told{$told}++;
		push @story, "writer $n: $told $at";
		return if $killed || $n != $victim || $told ne $step || --$count > 0;
		$killed = 1;
		push @story, "killing $kind";
		$kill{$kind}->($n);
	});
	$what .= ' (nothing killed)' unless $killed;
	is(differences($node, 'postgres', truth => $streams->truth), '', $what)
	  or last;
}

note join("\n", @story) unless Test::More->builder->is_passing;
note 'since the last crash: ', $node->safe_psql('postgres', q(
SELECT format('%s applied, %s duplicate, %s deferred', applied, duplicate, deferred)
FROM revenue_sink.stat_sink));
note join ', ', map { "$_: $told{$_}" } sort keys %told;

ok($load->stop_reader, 'the reader saw markers together, and none vanish');
diag("RSINK_SEED=$seed") unless Test::More->builder->is_passing;

done_testing();
