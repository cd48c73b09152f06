/**
 * The calls of revenue_sink over pgjdbc.
 *
 * <p>A program that commits batch by batch uses a {@link org.revenuesink.BatchWriter}: it opens an
 * epoch, numbers the batches, connects again after a lost connection and sends a batch again whose
 * answer was lost. A program that takes checkpoints, or has a loop of its own, makes the calls by
 * itself over a {@link org.revenuesink.SinkConnection}. Both take events in an {@link
 * org.revenuesink.EventBatch}.
 *
 * <p>Errors are {@link org.revenuesink.RevenueSinkException}s, which are {@link
 * java.sql.SQLException}s. Its subclasses say what a program can do: {@link
 * org.revenuesink.FencedException} stop, {@link org.revenuesink.RetryableException} repeat, {@link
 * org.revenuesink.BadEventException} look at one event of the batch.
 */
package org.revenuesink;
