/*-------------------------------------------------------------------------
 *
 * xid.h
 *	  The top-level transaction of a transaction id, and whether it is prepared.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_XID_H
#define RSINK_XID_H

extern TransactionId rsink_topmost_xid(TransactionId xid);
extern bool rsink_xid_is_prepared(TransactionId xid);

#endif							/* RSINK_XID_H */
