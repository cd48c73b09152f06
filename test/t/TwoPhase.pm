# What the tests of two-phase commit share: jobs with batches that are held,
# and sessions that halt in the midst of a call.

package TwoPhase;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use RevenueSink;

our @EXPORT = qw(
  build_module
  batch_sql
  start_call
  halts
  lose_answer
  finish_call
);

=pod

=item build_module(name)

Compile test/modules/<name>/<name>.c for LOAD. Returns its path, undef where
there is no compiler, or nothing of the server to compile against.

=cut

sub build_module
{
	my ($name) = @_;
	my $source = "$FindBin::RealBin/../modules/$name/$name.c";
	my $module = PostgreSQL::Test::Utils::tempdir() . "/$name.so";
	my %config;

	foreach my $what (qw(cc includedir-server))
	{
		$config{$what} = `pg_config --$what`;
		chomp $config{$what};
	}
	my ($cc) = split / /, $config{cc};
	return undef if system("command -v $cc >/dev/null 2>&1") != 0;
	return undef unless -f "$config{'includedir-server'}/postgres.h";
	system_or_bail($cc, '-O1', '-shared', '-fPIC', '-o', $module, $source,
		"-I$config{'includedir-server'}");
	return $module;
}

=pod

=item batch_sql(job, writer, epoch, number, [ event, amount ], ...)

The SQL of a batch up to its pre_commit, all events in one minute, the job as
their group; psql has the gid as :gid then.

=cut

sub batch_sql
{
	my ($job, $writer, $epoch, $number, @events) = @_;
	my $apply = join '', map {
		"SELECT revenue_sink.apply('s', '$job', '$_->[0]', '2024-03-01 10:01+00', $_->[1], '$job');\n"
	} @events;

	return qq(
BEGIN;
SELECT revenue_sink.begin_batch('s', '$job', '$writer', $epoch, $number);
${apply}SELECT revenue_sink.pre_commit('s') AS gid \\gset
);
}

=pod

=item start_call(node, db, module, step, sql, before)

Start SQL that halts at its k-th step, in a session of its own, after what
comes before it.

=cut

sub start_call
{
	my ($node, $db, $module, $step, $sql, $before) = @_;
	my $call = { out => '', err => '' };

	$before //= '';
	$call->{sql} = "LOAD '$module';
SELECT pg_backend_pid();
\\o /dev/null
$before
\\o
SET stop_at.step = $step;
$sql
\\q
";
	$call->{run} = IPC::Run::start(
		[ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', '-' ],
		'<', \$call->{sql}, '>', \$call->{out}, '2>', \$call->{err});
	return $call;
}

# Wait until a call has halted, or has come to its end: then false.
sub halts
{
	my ($call) = @_;
	my $ended = 0;

	wait_until('the call halts or ends', sub {
		$ended = !$call->{run}->pumpable;
		$call->{run}->pump_nb unless $ended;
		($call->{pid}) = $call->{out} =~ /^(\d+)\n/;
		return $ended ||
		  ($call->{pid} && RevenueSink::state_of($call->{pid}) =~ /^[Tt]$/);
	});
	return !$ended;
}

# The client of a halted call dies, and the server goes on without it.
sub lose_answer
{
	my ($call) = @_;

	$call->{run}->signal('KILL');
	kill('CONT', $call->{pid});
	wait_until('the session has ended', sub { RevenueSink::is_gone($call->{pid}) });
	return;
}

# Wait for the end of a call's client; the answer that it got.
sub finish_call
{
	my ($call) = @_;

	$call->{run}->finish;
	return $call->{out} =~ /^\d+\n(.*)/s ? $1 =~ s/\n\z//r : '';
}

1;
