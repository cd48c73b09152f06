# revenue_sink: build, install, and everything that tests it.
#
#	make && make install	build for the PostgreSQL of PG_CONFIG
#	make demo				install what is missing, build, show the main job
#	make check				install what is missing, build, run every test
#	make bench				ratios against what a user would do instead

EXTENSION = revenue_sink
MODULE_big = revenue_sink
DATA = sql/revenue_sink--1.0.sql
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
REGRESS = $(patsubst sql/%.sql,%,$(filter-out sql/revenue_sink--%,$(sort $(wildcard sql/*.sql))))
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))

# 'make DEBUG=1' turns assertions of our own code on
PG_CPPFLAGS = $(if $(DEBUG),-DUSE_ASSERT_CHECKING)
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-cast-function-type $(if $(WERROR),-Werror) $(if $(DEBUG),-O0)
SHLIB_LINK = -lsodium

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(PGXS),)
include $(PGXS)
endif
