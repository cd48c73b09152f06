# What a page shows of a file here. Sourced by bash scripts.
#
#	block PAGE FILE		the block below the line "<!-- FILE -->" of a page
#	as_shown			what psql -a prints, as pages show it

block()
{
	awk -v marker="<!-- $2 -->" '
		$0 == marker { wanted = 1; next }
		wanted && /^```/ { if (inside) exit; inside = 1; next }
		inside' "$1"
}

as_shown() { sed 's/^psql:[^ ]* //; s/ *$//'; }
