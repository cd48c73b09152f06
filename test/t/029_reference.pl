# docs/reference.md and the catalog must say the same of functions, views and
# settings: anything that only one of them has, or that they have in different
# ways, is a failed test.
#
# The page is in the folder docs beside the folder test, or in DOCS.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use RevenueSink;
use Test::More;

# Everybody may execute these functions, because views call them, but they are no
# part of the contract.
my @INTERNAL = qw(counters events_of may_dispose may_see may_watch pool_usage prepared_batches
  relation_of revenue_of sink_problem stands stands_support unresolved winner_of);

# Only the extension's owner may execute these: functions of triggers, and those
# that the install script and merging call.
my @OWNERS = qw(ingest note_copy refuse_write start_worker winner);

my $file = ($ENV{DOCS} // "$FindBin::RealBin/../../docs") . '/reference.md';
-r $file or die "$file is missing: copy docs to where test is, or set DOCS";
my $page = slurp_file($file);

# The page shows the defaults of a server that sets nothing.
my $node = new_node('reference');
create_sink($node, 'postgres');

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Compare two lists with a line for each thing: which things are missing in which
# list?
sub is_listed
{
	my ($documented, $present, $what) = @_;
	my %documented = map { $_ => 1 } split /\n/, $documented;
	my %present = map { $_ => 1 } split /\n/, $present;

	is(join("\n", grep { !$documented{$_} } sort keys %present), '', "the page has all $what of the catalog");
	is(join("\n", grep { !$present{$_} } sort keys %documented), '', "the catalog has all $what of the page");
	cmp_ok(scalar keys %documented, '>', 0, "$what were compared");
	return;
}

# The rows of the table that follows a heading: lists of cells, without the
# table's head and the rule below it.
sub rows_below
{
	my ($heading) = @_;
	my ($part) = $page =~ /^#+ \Q$heading\E\n(.*?)(?=^#|\z)/ms or return;
	my @rows = map { [ split /\s*\|\s*/, $_ =~ s/^\|\s*//r ] } grep { /^\|/ } split /\n/, $part;

	return @rows[ 2 .. $#rows ];
}

# Each signature of the page becomes a function of the schema "page", so that
# PostgreSQL itself says whether two ways to write one are the same.
my @signatures = $page =~ /^```\n((?:FUNCTION|PROCEDURE) revenue_sink\..*?)\n```$/msg;
my $script = "CREATE SCHEMA page; SET check_function_bodies = off;\n";
foreach my $signature (@signatures)
{
	$signature =~ s/revenue_sink\.(\w+)/page."$1"/;
	$script .= "CREATE $signature LANGUAGE plpgsql AS 'BEGIN END';\n";
}
sql($script);

my $signatures = q(
SELECT concat_ws(' ', CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END,
	p.proname || '(' || pg_get_function_arguments(p.oid) || ')', pg_get_function_result(p.oid))
FROM pg_proc p WHERE p.pronamespace = '%s'::regnamespace AND %s ORDER BY 1);
my $internal = join(', ', map { "'$_'" } @INTERNAL);
is_listed(sql(sprintf($signatures, 'page', 'true')),
	sql(sprintf($signatures, 'revenue_sink', "has_function_privilege('public', p.oid, 'EXECUTE') AND p.proname NOT IN ($internal)")),
	'functions and procedures');
is(sql(q(SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc p
WHERE pronamespace = 'revenue_sink'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
	AND proname NOT IN (SELECT proname FROM pg_proc WHERE pronamespace = 'page'::regnamespace))),
	"@INTERNAL", 'the other functions that everybody may execute are the internal ones');
is(sql(q(SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc p
WHERE pronamespace = 'revenue_sink'::regnamespace AND NOT has_function_privilege('public', p.oid, 'EXECUTE'))),
	"@OWNERS", 'the other functions are for the owner of the extension');
is(sql('SELECT count(*) FROM pg_proc WHERE pronamespace = \'page\'::regnamespace'), scalar @signatures,
	'no signature is there twice');

# The views of the schema, and the two views of a sink: a line per column, in
# order.
my $views = q(SELECT c.oid FROM pg_class c WHERE c.relkind = 'v' AND (c.relnamespace = 'revenue_sink'::regnamespace
	OR c.oid IN ('fact_revenue_1m'::regclass, 'order_events'::regclass)));
my @headings = $page =~ /^#+ (View \S+)$/mg;
my $columns = '';
foreach my $heading (@headings)
{
	my $view = $heading =~ s/View //r;
	my $n = 0;

	$columns .= join(' ', $view, ++$n, $_->[0], $_->[1]) . "\n" foreach rows_below($heading);
}
$columns =~ s/ timestamptz$/ timestamp with time zone/mg;
is_listed($columns, sql(qq(
SELECT concat_ws(' ', a.attrelid::regclass, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
	format_type(a.atttypid, a.atttypmod))
FROM pg_attribute a WHERE a.attrelid IN ($views) AND a.attnum > 0 AND NOT a.attisdropped)), 'columns of views');

# The server's settings
my %takes_effect = (postmaster => 'restart', sighup => 'reload');
my $settings = sql(q(SELECT concat_ws(' ', name, current_setting(name), coalesce(unit, 'none'), context)
FROM pg_settings WHERE name LIKE 'revenue_sink.%'));
$settings =~ s/ (\w+)$/' ' . ($takes_effect{$1} \/\/ $1)/mge;
is_listed(join("\n", map { "@{$_}[0 .. 3]" } rows_below('Settings of the server')), $settings, 'settings of the server');

# A sink's settings: all arguments of create_sink except its name; those of
# alter_sink have a star.
my $arguments = q(SELECT unnest(proargnames) FROM pg_proc
	WHERE pronamespace = 'revenue_sink'::regnamespace AND proname = '%s');
is_listed(join("\n", map { $_->[0] } rows_below('Settings of a sink')),
	sql(sprintf("SELECT a || CASE WHEN a IN ($arguments) THEN ' *' ELSE '' END FROM ($arguments) AS c (a) WHERE a <> 'sink'",
			'alter_sink', 'create_sink')), 'settings of a sink');

# Objects that the text mentions by their full name
my %mentioned = map { $_ => 1 } $page =~ /\brevenue_sink\.(\w+)/g;
my $known = join(' ', sql(q(SELECT string_agg(name, ' ') FROM (
	SELECT proname FROM pg_proc WHERE pronamespace = 'revenue_sink'::regnamespace UNION ALL
	SELECT relname FROM pg_class WHERE relnamespace = 'revenue_sink'::regnamespace UNION ALL
	SELECT split_part(name, '.', 2) FROM pg_settings WHERE name LIKE 'revenue_sink.%') AS k (name))));
is(join(' ', grep { $known !~ /\b$_\b/ } sort keys %mentioned), '', 'the page mentions nothing that is not there');

done_testing();
