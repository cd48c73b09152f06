/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Settings that decide what our own SQL means, whoever runs it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RSINK_SETTINGS_H
#define RSINK_SETTINGS_H

extern void rsink_pin_session(void);
extern void rsink_pin_statement(void);

#endif							/* RSINK_SETTINGS_H */
