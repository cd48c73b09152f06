# What a page shows of a file here. Sourced by bash scripts.
#
#	block PAGE FILE		the block below the line "<!-- FILE -->" of a page
#	as_shown			what psql -a prints, as pages show it: without the names of letters and
#						the times in messages, which are others each time

block()
{
	awk -v marker="<!-- $2 -->" '
		$0 == marker { wanted = 1; next }
		wanted && /^```/ { if (inside) exit; inside = 1; next }
		inside' "$1"
}

as_shown() { sed -E 's/^psql:[^ ]* //; s/ *$//; s/\\x[0-9a-f]{64}/\\x../; s/ at 20[0-9: .-]+\+00/ at ../'; }
