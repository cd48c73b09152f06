/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Fixed values for settings on which our own SQL depends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SETTINGS_H
#define RSINK_SETTINGS_H

extern void rsink_pin_session(void);
extern void rsink_pin_statement(void);

#endif							/* RSINK_SETTINGS_H */
