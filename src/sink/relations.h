/*-------------------------------------------------------------------------
 *
 * relations.h
 *	  A sink's views and tables: creating them, and recognizing them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_RELATIONS_H
#define RSINK_RELATIONS_H

/* The two kinds of views of a sink. */
typedef enum RsinkView
{
	RSINK_FACT,
	RSINK_INGEST
} RsinkView;

extern void rsink_create_tables(int32 id, bool totals, const char *owner);
#define RSINK_NOWN_TABLES 6

extern const char *const rsink_own_tables[RSINK_NOWN_TABLES];

extern void rsink_index_deltas(int32 id);
extern void rsink_add_uncounted(int32 id);
extern void rsink_create_sealed(int32 id);
extern void rsink_drop_spill(int32 id);
extern void rsink_create_ingest(int32 id, bool totals, const char *name);
extern void rsink_comment_views(const char *sink, const char *fact, const char *ingest);
extern void rsink_mark_view(int32 id, RsinkView which, Oid relid);
extern bool rsink_is_view_of(int32 id, RsinkView which, Oid relid);
extern Oid	rsink_find_view(int32 id, RsinkView which);
extern bool rsink_is_ingest_view(Oid relid);
extern Oid	rsink_table_of(int32 id, const char *kind);
extern char *rsink_view_name(Oid relid);

#endif							/* RSINK_RELATIONS_H */
