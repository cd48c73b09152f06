# revenue_sink: build, install, and everything that tests it.
#
#	make && make install	build for the PostgreSQL of PG_CONFIG
#	make demo				install what is missing, build, show the main job
#	make example NAME=...	a client (python, java, go or spark) with a broker and a server
#	make check				install what is missing, build, run the test suite
#	make check-all			make check with PostgreSQL 15, 17 and 18, and make check-upgrades
#	make check-upgrades		the ways of docs/upgrading.md from 1.0 on 15 through 17 to 18
#	make deb				packages for Debian, in packages/
#	make check-deb			these packages built, installed, upgraded and removed
#	make dist				the zip for PGXN, in packages/
#	make check-dist			this zip installed with pgxnclient
#	make clients			the jars of clients/java, built twice and tested; says where they lie
#	make check-monitoring	docs/monitoring/ with Prometheus: faults are played, alerts fire
#	make check-processors	Kafka, Spark and Flink, killed while they write
#	make bench				ratios against what a user would do instead
#	make soak EVENTS=...	a sink that sees a billion events; a server that is killed meanwhile
#	make chaos N=...		a checkpointing processor and its server, killed at random
#	make model				random calls in several sessions, compared with a small model
#	make fuzz CALLS=...		random calls of all functions, by a role that owns one sink of two
#	make mutants			planted faults: does the suite catch each?
#	make valgrind			the regress tests under valgrind
#	make lint				compilers, clang-tidy and cppcheck
#	make debug				install a build with assertions and without optimization; back to
#							the other one: make clean install

EXTENSION = revenue_sink
MODULE_big = revenue_sink
DATA = $(wildcard sql/revenue_sink--*.sql)
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
REGRESS = $(patsubst sql/%.sql,%,$(filter-out sql/revenue_sink--%,$(sort $(wildcard sql/*.sql))))
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test

# 'make DEBUG=1' turns assertions of our own code on
PG_CPPFLAGS = -I$(srcdir)/src $(if $(DEBUG),-DUSE_ASSERT_CHECKING)
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-cast-function-type $(if $(WERROR),-Werror) $(if $(DEBUG),-O0)
SHLIB_LINK = -lsodium

PG_CONFIG ?= pg_config
PROJECT_GOALS = demo example clients check check-all check-upgrades deb check-deb dist check-dist \
	check-monitoring check-processors bench soak chaos fuzz mutants valgrind lint model debug

# The project's own goals start where PostgreSQL may not be installed yet, and
# "check" is a name that PGXS has taken; they call make again for its goals.
ifeq ($(filter $(PROJECT_GOALS),$(MAKECMDGOALS)),)
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*/*.h)
else
.PHONY: $(PROJECT_GOALS)

demo:
	@test/setup demo
	@$(MAKE) -s --no-print-directory install WERROR=1
	@test/demo/run

example:
	@test/setup demo
	@$(MAKE) -s --no-print-directory install WERROR=1
	@test/processors/setup
	@clients/examples/$(or $(NAME),python)/run

check:
	@test/setup check
	@$(MAKE) -s --no-print-directory install WERROR=1
	@test/check

check-all:
	@test/check_all

check-upgrades:
	@test/setup check-upgrades
	@test/upgrades/run

deb:
	@test/setup deb
	@test/packages/build_deb

check-deb:
	@test/setup check-deb
	@test/packages/check_deb

dist:
	@test/packages/build_dist

check-dist:
	@test/setup check-dist
	@test/packages/check_dist

clients:
	@test/setup check
	@$(MAKE) -s --no-print-directory install WERROR=1
	@test/clients/setup
	@test/clients/run

check-monitoring:
	@test/setup check-monitoring
	@$(MAKE) -s --no-print-directory install
	@test/monitoring/run

check-processors:
	@test/setup check
	@$(MAKE) -s --no-print-directory install WERROR=1
	@test/processors/check

bench:
	@test/setup check
	@$(MAKE) -s --no-print-directory install
	@test/bench/run

soak:
	@test/setup check
	@$(MAKE) -s --no-print-directory install
	@test/soak/run

chaos:
	@test/setup check
	@$(MAKE) -s --no-print-directory install
	@test/chaos/run

fuzz:
	@test/setup check
	@test/fuzz/run

mutants:
	@test/setup check
	@$(MAKE) -s --no-print-directory install
	@test/mutants/run

valgrind:
	@test/setup check
	@$(MAKE) -s --no-print-directory install
	@test/valgrind

lint:
	@test/setup check
	@test/lint

model:
	@test/setup check
	@$(MAKE) -s --no-print-directory install
	@test/model/run

debug:
	@$(MAKE) -s --no-print-directory clean
	@$(MAKE) -s --no-print-directory install DEBUG=1
endif
